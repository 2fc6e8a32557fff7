"""Average precision where a photo is found only if the object is found at its true place in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.regions import Box
from search.evaluation.benchmarks.benchmark import BenchmarkQuery
from search.evaluation.metrics.ranking import best_places

# The object is looked for in the relevant photos among this many of the best.
LOOKED_AT = 100

# The least intersection over union of a box that fits, as PASCAL VOC counts detections
# (Everingham et al., IJCV 2010).
_LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class Overlaps:
    """How well the boxes found in `photos_to_localise` fit, by the photos' places.

    cells: of the boxes of cells. fitted: of those that are fitted to masks, as searches show them.
    """

    cells: Mapping[int, float]
    fitted: Mapping[int, float]


def overlap(found: Box, true: Sequence[Box]) -> float:
    """The intersection over union of a box with the true box that it fits best, 0..1.

    Boxes are (x0, y0, x1, y1). true: at least one.
    """
    x0, y0, x1, y1 = found
    left, top, right, bottom = np.array(true, dtype=np.float64).T
    wide = (np.minimum(right, x1) - np.maximum(left, x0)).clip(min=0)
    high = (np.minimum(bottom, y1) - np.maximum(top, y0)).clip(min=0)
    common = wide * high
    either = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) - common
    return float((common / either).max())


def photos_to_localise(asked: BenchmarkQuery, scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The places of the photos in which the object has to be found, best first: those relevant,
    with known boxes, among the first 100.

    scores: (n_gallery,).
    """
    if not asked.boxes:
        return np.empty(0, dtype=np.int64)
    best = _best(asked, scores)
    return best[np.isin(best, list(asked.boxes))]


def localised_precision(
    asked: BenchmarkQuery, scores: NDArray[np.float32], overlaps: Mapping[int, float]
) -> float | None:
    """The average precision over the first 100 photos, where a relevant photo in which the found
    box does not fit the true one counts as one that is not relevant; None without known boxes.

    It is the sum over the ranks k of fitting photos of the share of fitting photos among the first
    k, divided by the number of relevant photos, at most 100. Relevant photos whose boxes are not
    known are left out; those whose files are missing are never found, so it is 0 where all are
    missing. Equal scores count against the method.

    overlaps: of each of `photos_to_localise`, by its place.
    """
    if not asked.boxes:
        return 0.0 if asked.missing and len(asked.relevant) == 0 else None
    n_positives = min(len(asked.boxes) + asked.missing, LOOKED_AT)
    fits = [overlaps.get(place, 0.0) >= _LEAST_OVERLAP for place in _best(asked, scores).tolist()]
    hits = np.array(fits, dtype=bool)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / n_positives)


def _best(asked: BenchmarkQuery, scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The first 100 places of the ranking, of equal scores first those that are not relevant."""
    unknown = np.setdiff1d(asked.relevant, np.array(list(asked.boxes), dtype=np.int64))
    left_out = np.union1d(asked.ignored, unknown)
    # No more than these can be left out of the first.
    first = best_places(scores, LOOKED_AT + len(left_out), asked.relevant)
    return first[~np.isin(first, left_out)][:LOOKED_AT]
