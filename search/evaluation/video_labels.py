"""Labels carried through videos, measured on DAVIS-2017: J, F and J&F of each object."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.photo import load_photo
from indexer.protocols import Extractor
from search.evaluation.benchmarks.davis import DavisSequence, read_annotation
from search.evaluation.methods.baselines import PatchExtractor
from search.evaluation.metrics.masks import (
    FrameStatistics,
    boundary_f_measure,
    frame_statistics,
    j_and_f,
    mask_iou,
)
from search.evaluation.metrics.ranking import bootstrap_interval
from search.evaluation.paper import published
from search.evaluation.report import versions
from search.evaluation.run_store import RunResults, results_folder
from search.segmentation.frames import VideoFrame
from search.segmentation.propagate import carry_labels

Ids = NDArray[np.uint8]
# Object ids of a sequence's frames after the first, given the first's.
Method = Callable[[DavisSequence, Ids, Extractor], Iterator[Ids]]
# What is being done, how much of it is done, and how much there is.
OnStep = Callable[[str, int, int], None]


def _propagated(sequence: DavisSequence, ids: Ids, extractor: Extractor) -> Iterator[Ids]:
    return _carried(sequence, ids, extractor, sharpen=True)


def _propagated_cells(sequence: DavisSequence, ids: Ids, extractor: Extractor) -> Iterator[Ids]:
    return _carried(sequence, ids, extractor, sharpen=False)


def _rgb_patches(sequence: DavisSequence, ids: Ids, extractor: Extractor) -> Iterator[Ids]:
    return _carried(sequence, ids, PatchExtractor(extractor.grid), sharpen=True)


def _first_mask(sequence: DavisSequence, ids: Ids, extractor: Extractor) -> Iterator[Ids]:
    return (ids for _ in sequence.frames[1:])


# propagate: what `waldo propagate` does. propagate-unsharpened: the same without a guided filter.
# rgb-patches: the same by the colours of cells, of as many. first-mask: nothing moves.
METHODS: dict[str, Method] = {
    "propagate": _propagated,
    "propagate-unsharpened": _propagated_cells,
    "rgb-patches": _rgb_patches,
    "first-mask": _first_mask,
}


def _carried(
    sequence: DavisSequence, ids: Ids, extractor: Extractor, sharpen: bool
) -> Iterator[Ids]:
    # A broken frame ends an evaluation: a number without it would be another number.
    photos = map(load_photo, sequence.frames)
    first = next(photos)
    frames = (VideoFrame(photo.path.stem, photo) for photo in photos)
    for _, found in carry_labels(first, ids, frames, extractor, sharpen=sharpen):
        yield found


@dataclass(frozen=True)
class ObjectResult:
    """How well one object was followed by one method: J and F over the frames that count."""

    sequence: str
    object_id: int
    j: FrameStatistics
    f: FrameStatistics

    @property
    def j_and_f(self) -> float:
        return j_and_f(self.j, self.f)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ObjectResult":
        """What `asdict` made of one."""
        j, f = FrameStatistics(**values["j"]), FrameStatistics(**values["f"])
        return cls(**{**values, "j": j, "f": f})


def select_video_methods(names: list[str]) -> dict[str, Method]:
    """Methods by name, all where none is given. Raises WaldoError for an unknown one."""
    for name in names:
        if name not in METHODS:
            raise WaldoError(f"--method {name}: no such method; one of {', '.join(METHODS)}")
    return {name: METHODS[name] for name in names or METHODS}


def davis_folder(work: Path, sequences: list[DavisSequence], extractor: FeatureExtractor) -> Path:
    """The folder for the results of an unfinished `evaluate_davis`. Raises WaldoError for a file
    that is not there.
    """
    import torch

    files = [path for item in sequences for path in (*item.frames, *item.annotations)]
    asked = [[item.name, item.objects, len(item.frames)] for item in sequences]
    settings = [extractor.fingerprint(), extractor.model.device.type, torch.__version__, asked]
    return results_folder(work, "davis2017", files, settings)


def evaluate_davis(
    sequences: list[DavisSequence],
    extractor: Extractor,
    methods: dict[str, Method],
    kept: RunResults,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Methods on the sequences of DAVIS-2017, as JSON-ready values, fractions 0..1.

    "methods" holds for each J&F with its 95 % bootstrap interval over objects, and mean, recall and
    decay of J and F; "objects" every object's own; "n_queries" are objects, "n_gallery" frames.
    kept: gets every sequence's results by a method; those that it has are not measured again.
    on_step is told how far it is. Raises PhotoError for a frame that cannot be read.
    """
    results: dict[str, list[ObjectResult]] = {name: [] for name in methods}
    steps = [(sequence, name) for sequence in sequences for name in methods]
    for done, (sequence, name) in enumerate(steps):
        if on_step is not None:
            on_step(f"{sequence.name} by {name}, sequences by methods", done, len(steps))
        found = kept.of(sequence.name)
        if name not in found:
            measured = measure_sequence(sequence, methods[name], extractor)
            found[name] = [asdict(item) for item in measured]
            kept.keep(sequence.name, found)
        results[name] += map(ObjectResult.from_dict, found[name])
    return {
        "protocol": "davis2017",
        "model": extractor.fingerprint(),
        "methods": {name: _summary(found) for name, found in results.items()},
        "n_queries": sum(len(sequence.objects) for sequence in sequences),
        "n_gallery": sum(len(sequence.frames) for sequence in sequences),
        "objects": {name: [asdict(item) for item in found] for name, found in results.items()},
        "versions": versions(),
        "paper": published("davis2017"),
    }


def measure_sequence(
    sequence: DavisSequence, method: Method, extractor: Extractor
) -> list[ObjectResult]:
    """A method's result on each object of a sequence; the first and the last frame do not count."""
    first = read_annotation(sequence.annotations[0])
    counted = sequence.annotations[1:-1]
    j: dict[int, list[float]] = {number: [] for number in sequence.objects}
    f: dict[int, list[float]] = {number: [] for number in sequence.objects}
    for path, ids in zip(counted, method(sequence, first, extractor), strict=False):
        truth = read_annotation(path)
        for number in sequence.objects:
            j[number].append(mask_iou(ids == number, truth == number))
            f[number].append(boundary_f_measure(ids == number, truth == number))
    return [
        ObjectResult(
            sequence.name, number, frame_statistics(j[number]), frame_statistics(f[number])
        )
        for number in sequence.objects
    ]


def _summary(results: list[ObjectResult]) -> dict[str, Any]:
    both = [result.j_and_f for result in results]
    values: dict[str, Any] = {
        "J&F": float(np.mean(both)),
        "J&F_interval": list(bootstrap_interval(both)),
    }
    for name, statistics in (("J", [r.j for r in results]), ("F", [r.f for r in results])):
        values[name] = float(np.mean([found.mean for found in statistics]))
        values[f"{name}_recall"] = float(np.mean([found.recall for found in statistics]))
        values[f"{name}_decay"] = float(np.mean([found.decay for found in statistics]))
    return values


def table_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Each method's row: text by column, the same columns for all, in percent."""
    rows = {}
    for name, values in report["methods"].items():
        low, high = values["J&F_interval"]
        cells = {"J&F": _percent(values["J&F"])}
        cells["95 % interval"] = f"{_percent(low)} to {_percent(high)}"
        for metric in ("J", "F"):
            cells[metric] = _percent(values[metric])
            cells[f"{metric} recall"] = _percent(values[f"{metric}_recall"])
            cells[f"{metric} decay"] = _percent(values[f"{metric}_decay"])
        rows[name] = cells
    return rows


def _percent(part: float) -> str:
    return f"{100 * part:.1f}"
