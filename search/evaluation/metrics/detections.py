"""F1 of one detection per photo, as PODS takes it (Sundaram et al., 2024) from COCO's metrics."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# COCO's thresholds of intersection over union and of recall (Lin et al., ECCV 2014).
_OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)

# COCO's areas, in pixels: all, small, medium and large.
_AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))


@dataclass(frozen=True)
class Detections:
    """What was found of one object in n photos, of which some show it.

    scores: (n,), how sure it is that the photo shows the object. areas: (n,), of the masks, pixels;
    a photo of 0 has no detection. true_areas: (n,), of the true masks; 0 where the photo does not
    show the object. overlaps: (n,), intersection over union of the two, 0..1.
    """

    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    true_areas: NDArray[np.float64]
    overlaps: NDArray[np.float64]


def detection_f1(found: Detections) -> NDArray[np.float64]:
    """F1 at each of the thresholds 0.5, 0.55, ... 0.95 of intersection over union, (10,).

    As in the published evaluator F1 is 2 P R / (P + R + 1e-6), where P is the mean of COCO's
    interpolated precision over its recalls and its areas, and R the mean of the recall over its
    areas; areas without a true mask are left out. At least one photo shows the object.
    """
    shown = found.true_areas > 0
    order = np.argsort(-found.scores, kind="stable")
    order = order[found.areas[order] > 0]
    values = []
    for overlap in _OVERLAPS:
        by_area = []
        for least, most in _AREAS:
            wanted = shown & (found.true_areas >= least) & (found.true_areas <= most)
            if wanted.any():
                matched = shown & (found.overlaps >= overlap)
                inside = (found.areas >= least) & (found.areas <= most)
                # Of the others, COCO counts neither what they match nor what they miss.
                counts = np.where(matched, wanted, inside)
                ranked = matched[order][counts[order]]
                by_area.append(_precision_and_recall(ranked, int(wanted.sum())))
        precision, recall = np.mean(by_area, axis=0)
        values.append(2 * precision * recall / (precision + recall + 1e-6))
    return np.array(values)


def _precision_and_recall(hits: NDArray[np.bool_], n_wanted: int) -> tuple[float, float]:
    """The mean of the interpolated precision over the recalls, and the recall. hits: best first."""
    if len(hits) == 0:
        return 0.0, 0.0
    right = np.cumsum(hits)
    recall = right / n_wanted
    precision = right / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(recall, _RECALLS)].mean()), float(recall[-1])
