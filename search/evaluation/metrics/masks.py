"""Metrics of masks: IoU, boundary IoU, and DAVIS's J and F with their statistics over frames.

Masks are (height, width) bool. Comparing two masks of different sizes raises ValueError.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# Shares of the image's diagonal: the width of a boundary in boundary IoU, the tolerance of F.
_BOUNDARY = 0.02
_TOLERANCE = 0.008

# The decay compares the first and the last of this many runs of frames.
_BINS = 4


@dataclass(frozen=True)
class FrameStatistics:
    """J or F of one object over the frames of a sequence, as DAVIS reports them.

    mean: over the frames. recall: the share of frames above 0.5. decay: the mean of the first
    quarter minus that of the last, so positive where the object is gradually lost.
    """

    mean: float
    recall: float
    decay: float


def mask_iou(predicted: Mask, truth: Mask) -> float:
    """Intersection over union, 0..1; DAVIS's J. 1 where both are empty, 0 where only one is."""
    intersection, union = _overlap(predicted, truth)
    return intersection / union if union else 1.0


def cumulative_iou(pairs: Iterable[tuple[Mask, Mask]]) -> float:
    """The sum of intersections over the sum of unions, 0..1; large objects weigh more.

    pairs: (predicted, truth); pairs may differ in size. PerSeg takes it over the photos of an
    object; the code published with PDM takes it over all photos and calls it mIoU. As in that
    code, 1e-10 is added to the sum of unions, so the result is 0 where all masks are empty.
    """
    overlaps = [_overlap(predicted, truth) for predicted, truth in pairs]
    return sum(i for i, _ in overlaps) / (sum(u for _, u in overlaps) + 1e-10)


def boundary_iou(predicted: Mask, truth: Mask) -> float:
    """IoU of the masks' boundaries (Cheng et al., CVPR 2021), 0..1.

    A boundary is what d erosions by 3 x 3 pixels remove, where d is 2 % of the diagonal, rounded,
    and at least one pixel. Pixels outside the image count as background, so an object that meets
    the border has a boundary there. Only an empty mask has an empty boundary; the result is 1 where
    both are empty, 0 where only one is.
    """
    return mask_iou(*boundaries(predicted, truth))


def boundaries(predicted: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Both masks' boundaries, as `boundary_iou` compares them."""
    _check_size(predicted, truth)
    width = max(1, round(_BOUNDARY * float(np.hypot(*truth.shape))))
    return _inner_boundary(predicted, width), _inner_boundary(truth, width)


def boundary_f_measure(predicted: Mask, truth: Mask) -> float:
    """DAVIS's F (Perazzi et al., CVPR 2016; the davis2017 evaluator), 0..1.

    This is the F-measure of two outlines, one pixel wide: precision is the share of the predicted
    outline within ceil(0.8 % of the diagonal) pixels of the true one, recall the reverse. The
    image's border is not an outline, so an object that fills the image has none, like an empty
    mask. The result is 1 where neither mask has an outline, 0 where only one has.
    """
    _check_size(predicted, truth)
    outlines = _outline(predicted), _outline(truth)
    if not (outlines[0].any() and outlines[1].any()):
        return float(outlines[0].any() == outlines[1].any())
    radius = np.ceil(_TOLERANCE * float(np.hypot(*truth.shape)))
    precision = _share_near(outlines[0], outlines[1], radius)
    recall = _share_near(outlines[1], outlines[0], radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask, diagonals included, with its holes filled; nothing of
    an empty mask.
    """
    from scipy import ndimage

    filled = ndimage.binary_fill_holes(mask)
    parts, _ = ndimage.label(filled, structure=np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # the background
    return np.asarray((parts == sizes.argmax()) & filled)


def frame_statistics(values: Sequence[float] | NDArray[np.float64]) -> FrameStatistics:
    """The statistics of an object's J or F over the frames that count, in order.

    DAVIS does not count the first and the last frame of a sequence. The four bins of the decay
    share their end frames, as in the davis2017 evaluator. Raises ValueError where there is no
    frame.
    """
    frames = np.asarray(values, dtype=np.float64)
    if len(frames) == 0:
        raise ValueError("no frame to take statistics over")
    # The small number rounds halves up, like the evaluator.
    ends = np.round(np.linspace(1, len(frames), _BINS + 1) + 1e-10).astype(np.int64) - 1
    first, last = frames[: ends[1] + 1], frames[ends[-2] :]
    return FrameStatistics(
        mean=float(frames.mean()),
        recall=float((frames > 0.5).mean()),
        decay=float(first.mean() - last.mean()),
    )


def j_and_f(j: FrameStatistics, f: FrameStatistics) -> float:
    """DAVIS's J&F of one object, 0..1; that of a benchmark is the mean over its objects."""
    return (j.mean + f.mean) / 2


def _overlap(predicted: Mask, truth: Mask) -> tuple[int, int]:
    """The number of pixels in both masks, and in either."""
    _check_size(predicted, truth)
    return int((predicted & truth).sum()), int((predicted | truth).sum())


def _check_size(predicted: Mask, truth: Mask) -> None:
    if predicted.shape != truth.shape:
        raise ValueError(f"masks of different sizes: {predicted.shape} and {truth.shape}")


def _inner_boundary(mask: Mask, width: int) -> Mask:
    """The pixels of the mask within `width` steps (also diagonal ones) of the background."""
    from scipy import ndimage

    # One erosion by a large square equals many by 3 x 3.
    inside = ndimage.minimum_filter(mask, size=2 * width + 1, mode="constant", cval=0)
    return np.asarray(mask & ~inside)


def _outline(mask: Mask) -> Mask:
    """Pixels that differ from a neighbour to the right, below or both (`seg2bmap`, Martin 2003)."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ across)


def _share_near(outline: Mask, other: Mask, radius: float) -> float:
    """The share of an outline within the radius of the other; neither is empty."""
    from scipy import ndimage

    # The same as dilating the other by a disk, at a cost that does not depend on the radius.
    return float((ndimage.distance_transform_edt(~other)[outline] <= radius).mean())
