"""The result of an evaluation as JSON, and run files that hold it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import WaldoError
from features.photo import photo_size
from features.regions import load_mask
from indexer.store.files import write_atomically
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.methods.methods import MapMethod
from search.evaluation.metrics.class_map import ClassMapQuality
from search.evaluation.metrics.summary import summary
from search.evaluation.paper import published_json
from search.evaluation.retrieval import Evaluation
from search.evaluation.run_store import DEPTH
from search.query import Query
from search.scoring.scores import DEFAULT_SCORE


def evaluation_json(
    benchmark: Benchmark,
    fingerprint: dict[str, str | int],
    codec: str,
    evaluation: Evaluation,
    class_map: ClassMapQuality | None,
) -> dict[str, Any]:
    """The report of a benchmark of searches, JSON-ready; metrics are fractions, 0..1.

    fingerprint: the model's, as its index has it. codec: the quality of the stored maps.
    Confidence is judged by scores without expansion; None where these were not measured too.
    class_map: how well S_S separates classes; None where the benchmark has no masks to measure it.
    "timings" are seconds by stage, and under "methods" those of scoring by method. "convention" is
    the benchmark's, where it has one, and "n_distractors" how many photos were put behind its
    gallery, where any were. `published_json` describes "paper" and "published".
    """
    found = {
        result.method.name: [query.measured for query in result.queries]
        for result in evaluation.results
    }
    default = found.get(DEFAULT_SCORE)
    seconds = evaluation.seconds
    methods = {name: summary(benchmark, queries, default) for name, queries in found.items()}
    for result in evaluation.results:
        if isinstance(result.method, MapMethod) and result.method.expanded:
            # As in searches: an expanded score's matches would vouch for themselves.
            own = methods.get(result.method.name.replace("-expanded", ""), {})
            methods[result.method.name]["confidence"] = own.get("confidence")
    report: dict[str, Any] = {
        "protocol": benchmark.protocol,
        "model": fingerprint,
        "codec": codec,
        "versions": versions(),
        "methods": methods,
        "n_queries": len(benchmark.queries),
        "n_gallery": len(benchmark.gallery),
        "timings": {
            **{stage: spent for stage, spent in seconds.items() if stage not in found},
            "methods": {name: spent for name, spent in seconds.items() if name in found},
        },
    }
    if benchmark.n_distractors:
        report["n_distractors"] = benchmark.n_distractors
    if benchmark.convention:
        report["convention"] = benchmark.convention
    report |= published_json(report)
    if class_map is not None:
        report["class_map"] = asdict(class_map)
    return report


def versions() -> dict[str, str]:
    """The versions of the software that results depend on."""
    import faiss
    import torch

    try:
        waldo = version("waldo-search")
    except PackageNotFoundError:  # run from its source folder
        waldo = "unknown"
    return {
        "waldo": waldo,
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "numpy": np.__version__,
    }


def write_searches_run(
    path: Path, report: dict[str, Any], benchmark: Benchmark, evaluation: Evaluation
) -> None:
    """Write a run file with the result of each query: its average precision (`query_precision`),
    the first 1,000 places of its ranking, and what is relevant or ignored. "relevant_ranks" are
    those of its relevant photos, from 1, ascending; ignored photos do not count, and equal scores
    count against the method. "object_share" is the share of the photo that the object takes, by its
    mask or its box; null where a query has neither.

    Places are those in "gallery". Of equal scores the earlier place comes first in a ranking.
    Raises as `write_run`.
    """
    gallery = (str(photo.absolute()) for photo in benchmark.gallery)
    write_run(path, report, gallery=gallery, queries=_query_results(benchmark, evaluation))


def write_run(path: Path, report: dict[str, Any], **lists: Iterable[Any]) -> None:
    """Write a run file: a report, and behind it some lists by name, such as the results of queries.

    Raises WaldoError where the file cannot be written; a file that was there is then unchanged.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            # One by one, because all rankings of a large gallery may not fit in memory.
            file.write(json.dumps(report)[:-1])
            for number, (name, entries) in enumerate(lists.items(), start=len(report)):
                file.write(f"{', ' if number > 0 else ''}{json.dumps(name)}: [")
                for row, entry in enumerate(entries):
                    file.write((", " if row > 0 else "") + json.dumps(entry))
                file.write("]")
            file.write("}")

    try:
        write_atomically(path, write)
    except OSError as error:
        raise WaldoError(f"{path}: cannot be written ({error.strerror})") from None


def _query_results(benchmark: Benchmark, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for row, query in enumerate(benchmark.queries):
        by_method = {}
        for result in evaluation.results:
            found = result.queries[row]
            by_method[result.method.name] = {
                "average_precision": found.measured.average_precision,
                "ranking": found.best[:DEPTH].tolist(),
                "relevant_ranks": found.measured.relevant_ranks,
            }
        asked = query.query
        yield {
            "photo": str(asked.photo.absolute()),
            "class": asked.class_name,
            "mask": None if asked.mask is None else str(asked.mask.absolute()),
            "box": asked.box,
            "object_share": _object_share(asked),
            "relevant": query.relevant.tolist(),
            "ignored": query.ignored.tolist(),
            "methods": by_method,
        }


def _object_share(asked: Query) -> float | None:
    """The share of the query's photo that its object takes, 0..1; None for a point or a name."""
    if asked.mask is None and asked.box is None:
        return None
    width, height = photo_size(asked.photo)
    if asked.mask is not None:
        return float(load_mask(asked.mask, width, height).mean())
    assert asked.box is not None
    x0, y0, x1, y1 = asked.box
    inside = (min(x1, width) - max(x0, 0)) * (min(y1, height) - max(y0, 0))
    return inside / (width * height)
