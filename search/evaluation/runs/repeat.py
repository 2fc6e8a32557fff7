"""Repeating a sample of a run, to see whether its numbers come out again."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np

from features.errors import WaldoError
from indexer.codec.machine import describe_machine
from indexer.codec.quality import QUALITIES
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.report import versions
from search.evaluation.retrieval import Evaluation
from search.evaluation.runs.run_files import Run

# Of the bootstrap intervals, and of the sample.
SEED = 0

# As many queries as are compared at once: which others are beside a query can change the last bits
# of its scores, so a sample has neighbours of the run.
_TOGETHER = 8

# Average precisions that differ by less are the same.
_TOLERANCE = 1e-6

# No machine extracts more photos at a time.
_LARGEST_BATCH = 1_000_000


# What `request_of` needs of a run file and of its request: the kind of each entry.
_NEEDED: dict[str, type | UnionType] = {
    "request": dict,
    "versions": dict,
    "machine": dict,
    "model": dict,
    "files": str,
    "queries": list,
}
_ASKED: dict[str, type | UnionType] = {
    "protocol": str,
    "root": str,
    "model": str,
    "methods": list,
    "device": str,
    "batch_size": int,
    "codec": str,
    "distractors": str | None,
    "parts": int | None,
}


@dataclass(frozen=True)
class Departure:
    """A query whose average precision is another now. was, now: fractions, or None."""

    photo: str
    method: str
    was: float | None
    now: float | None


@dataclass(frozen=True)
class Repetition:
    """What came of a sample. methods: their names. changed: what is not as in the run, in words,
    such as versions and kernels.
    """

    n_queries: int
    methods: list[str]
    departures: list[Departure]
    changed: list[str]


def provenance(benchmark: Benchmark, request: dict[str, Any]) -> dict[str, Any]:
    """What a run file says beside the report, so that the run can be repeated: JSON-ready.

    request: what was asked for. "files" is a digest of the benchmark's photos, by name and size.
    """
    return {
        "request": request,
        "machine": _machine(),
        "seed": SEED,
        "files": _digest([*benchmark.gallery, *(asked.query.photo for asked in benchmark.queries)]),
    }


def request_of(run: Run) -> dict[str, Any]:
    """What a run was asked for.

    Raises WaldoError where its file does not say, or lacks something else that a repetition is
    compared with: files can be edited.
    """
    request = run.content.get("request")
    if request is None:
        raise WaldoError(
            f"{run.path}: cannot be checked: it does not say how it was made, as files of masks, "
            "of videos and of earlier versions do not; run it again by `waldo evaluate --out`"
        )
    if (wrong := next(_wrong_entries(run.content), None)) is not None:
        raise WaldoError(
            f"{run.path}: cannot be checked: {wrong} is missing, or is not what `waldo evaluate "
            "--out` writes; run it again"
        )
    return _asked(request)


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    """A request as this version writes it: earlier ones had no parts."""
    return {"parts": None, **request}


def _wrong_entries(content: dict[str, Any]) -> Iterator[str]:
    """The entries of a run file that cannot be used."""
    for name, kind in _NEEDED.items():
        if not isinstance(content.get(name), kind):
            yield name
            return
    request = _asked(content["request"])
    for name, kind in _ASKED.items():
        if name not in request or not isinstance(request[name], kind):
            yield f"request.{name}"
            return
    if request["codec"] not in QUALITIES:
        yield "request.codec"
    if isinstance(request["batch_size"], bool) or not 0 < request["batch_size"] <= _LARGEST_BATCH:
        yield "request.batch_size"
    if not isinstance(content["machine"].get("kernels"), dict):
        yield "machine.kernels"
    methods = request["methods"]
    if not methods or not all(isinstance(name, str) for name in methods):
        yield "request.methods"
        return
    for number, asked in enumerate(content["queries"]):
        if not isinstance(asked["photo"], str):
            yield f"queries[{number}].photo"
        for name in methods:
            if not _is_precision(asked["methods"].get(name, {}).get("average_precision", "")):
                yield f"queries[{number}].methods.{name}"
                return
    for name in methods:
        found = (asked["methods"][name]["average_precision"] for asked in content["queries"])
        mean = np.mean([precision for precision in found if precision is not None])
        stated = content["methods"].get(name, {}).get("mAP")
        # A sample of queries does not show whether the table is theirs.
        if not _is_precision(stated) or not _same(stated, float(mean)):
            yield f"methods.{name}.mAP"


def _is_precision(value: Any) -> bool:
    """Whether an average precision is as a run has it; NaN and huge numbers are not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 <= value <= 1 + _TOLERANCE)


def sample(run: Run, benchmark: Benchmark) -> range:
    """The places of the queries to repeat: 8 neighbours, the same ones each time.

    benchmark: as it is now. Raises WaldoError where it is not that of the run.
    """
    content = run.content
    asked = [str(query.query.photo.absolute()) for query in benchmark.queries]
    photos = [*benchmark.gallery, *(query.query.photo for query in benchmark.queries)]
    if asked != [query["photo"] for query in content["queries"]] or (
        _digest(photos) != content.get("files")
    ):
        raise WaldoError(
            f"{run.path}: cannot be checked: the photos of {content['protocol']} in "
            f"{content['request'].get('root')} are not those of the run"
        )
    groups = -(-len(asked) // _TOGETHER)
    start = _TOGETHER * int(np.random.default_rng(SEED).integers(groups))
    return range(start, min(start + _TOGETHER, len(asked)))


def compare_sample(run: Run, places: Sequence[int], again: Evaluation, model: Any) -> Repetition:
    """What is not as in the run. places: of the queries. again: their evaluation. model: the
    fingerprint of the model now.
    """
    departures = []
    for result in again.results:
        name = result.method.name
        for place, now in zip(places, result.queries, strict=True):
            query = run.content["queries"][place]
            was = query["methods"][name]["average_precision"]
            precision = now.measured.average_precision
            if not _same(was, precision):
                departures.append(Departure(query["photo"], name, was, precision))
    return Repetition(
        len(places),
        [result.method.name for result in again.results],
        departures,
        list(_changed(run.content, model)),
    )


def _same(was: float | None, now: float | None) -> bool:
    if was is None or now is None:
        return was is now
    return abs(was - now) < _TOLERANCE


def _changed(content: dict[str, Any], model: Any) -> Iterable[str]:
    """What decides numbers and is not as in the run, in words."""
    if content["request"].get("ray"):
        yield (
            "workers of a Ray cluster compared then, this process now: they take the kernel "
            "float32, or that of WALDO_KERNEL"
        )
    then = _facts(content["versions"], content["machine"], content["model"])
    now = _facts(versions(), _machine(), model)
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            yield f"{name}: {then.get(name)} then, {now.get(name)} now"


def _machine() -> dict[str, Any]:
    """What of the machine can decide numbers: the kernels are chosen by a measurement."""
    machine = describe_machine()
    return {
        "cpu": machine.cpu,
        "instructions": machine.capability,
        "threads": machine.threads,
        "gpu": machine.gpu,
        "kernels": {
            f"{one.levels} {one.vectors} x {one.numbers}": one.kernel for one in machine.choices
        },
    }


def _facts(
    software: dict[str, str], machine: dict[str, Any], model: dict[str, Any]
) -> dict[str, Any]:
    kernels = {f"kernel for {shape}": name for shape, name in machine["kernels"].items()}
    others = {name: value for name, value in machine.items() if name != "kernels"}
    return {**software, **others, **kernels, **model}


def _digest(photos: Iterable[Path]) -> str:
    """A digest of the names and sizes of files. Raises WaldoError for one that is gone."""
    text = hashlib.sha256()
    for photo in photos:
        try:
            size = photo.stat().st_size
        except OSError as error:
            raise WaldoError(f"{photo}: cannot be read ({error.strerror})") from None
        text.update(f"{photo.name}\0{size}\0".encode(errors="surrogateescape"))
    return text.hexdigest()[:16]
