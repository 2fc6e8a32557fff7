"""Metrics of masks, against plain loops over pixels and by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from search.evaluation.metrics.masks import (
    FrameStatistics,
    Mask,
    boundary_f_measure,
    boundary_iou,
    cumulative_iou,
    frame_statistics,
    j_and_f,
    mask_iou,
)

Pixels = set[tuple[int, int]]

pairs_of_masks = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def empty(height: int = 6, width: int = 8) -> Mask:
    return np.zeros((height, width), dtype=bool)


def rectangle(height: int, width: int, rows: slice, columns: slice) -> Mask:
    mask = empty(height, width)
    mask[rows, columns] = True
    return mask


def blobs(seed: int) -> tuple[Mask, Mask]:
    """Two smooth masks of 70 x 130 pixels that overlap and touch the border: wide enough that
    boundaries are 3 pixels wide and outlines may lie 2 apart.
    """
    noise = np.random.default_rng(seed).normal(size=(2, 70, 130))
    first, second = (ndimage.gaussian_filter(layer, 6) for layer in noise)
    return first > 0, first + 0.3 * second > 0


def pixels(mask: Mask) -> Pixels:
    return {(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]}


def naive_iou(first: Pixels, second: Pixels) -> float:
    return len(first & second) / len(first | second) if first | second else 1.0


def naive_boundary(mask: Mask) -> Pixels:
    height, width = mask.shape
    left = pixels(mask)
    for _ in range(max(1, round(0.02 * math.sqrt(height**2 + width**2)))):
        left = {
            (y, x)
            for y, x in left
            if all((y + dy, x + dx) in left for dy in (-1, 0, 1) for dx in (-1, 0, 1))
        }
    return pixels(mask) - left


def naive_outline(mask: Mask) -> Pixels:
    height, width = mask.shape
    return {
        (y, x)
        for y in range(height)
        for x in range(width)
        if any(
            mask[y, x] != mask[min(y + dy, height - 1), min(x + dx, width - 1)]
            for dy, dx in ((0, 1), (1, 0), (1, 1))
        )
    }


def naive_f_measure(predicted: Mask, truth: Mask) -> float:
    height, width = truth.shape
    radius = math.ceil(0.008 * math.sqrt(height**2 + width**2))
    steps = range(-radius, radius + 1)
    disk = [(dy, dx) for dy in steps for dx in steps if dy**2 + dx**2 <= radius**2]
    found, true = naive_outline(predicted), naive_outline(truth)
    if not found and not true:
        return 1.0
    if not found or not true:
        return 0.0
    near_true = {(y + dy, x + dx) for y, x in true for dy, dx in disk}
    near_found = {(y + dy, x + dx) for y, x in found for dy, dx in disk}
    precision, recall = len(found & near_true) / len(found), len(true & near_found) / len(true)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


@given(pairs_of_masks)
@settings(max_examples=150, deadline=None)
def test_metrics_of_small_masks_are_plain_loops(pair: tuple[Mask, Mask]) -> None:
    predicted, truth = pair
    assert mask_iou(*pair) == pytest.approx(naive_iou(pixels(predicted), pixels(truth)))
    boundaries = naive_boundary(predicted), naive_boundary(truth)
    assert boundary_iou(*pair) == pytest.approx(naive_iou(*boundaries))
    assert boundary_f_measure(*pair) == pytest.approx(naive_f_measure(*pair))


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_larger_masks_are_plain_loops(seed: int) -> None:
    predicted, truth = blobs(seed)
    assert 0.3 < mask_iou(predicted, truth) < 0.95
    boundaries = naive_boundary(predicted), naive_boundary(truth)
    assert boundary_iou(predicted, truth) == pytest.approx(naive_iou(*boundaries))
    assert boundary_f_measure(predicted, truth) == pytest.approx(naive_f_measure(predicted, truth))


@given(st.lists(pairs_of_masks, max_size=6))
@settings(max_examples=60, deadline=None)
def test_cumulative_iou_is_a_plain_loops(pairs: list[tuple[Mask, Mask]]) -> None:
    intersections = sum(len(pixels(first) & pixels(second)) for first, second in pairs)
    unions = sum(len(pixels(first) | pixels(second)) for first, second in pairs)
    assert cumulative_iou(pairs) == pytest.approx(intersections / (unions + 1e-10))


def test_cumulative_iou_weighs_by_size() -> None:
    large, small = rectangle(6, 8, slice(0, 6), slice(0, 8)), rectangle(2, 2, slice(1), slice(1))
    pairs = [(large, large), (np.zeros_like(small), small)]
    assert cumulative_iou(pairs) == pytest.approx(48 / 49)
    assert np.mean([mask_iou(*pair) for pair in pairs]) == 0.5
    assert cumulative_iou([(empty(), empty())]) == 0.0


def test_empty_masks() -> None:
    some = rectangle(6, 8, slice(2, 4), slice(2, 5))
    for metric in (mask_iou, boundary_iou, boundary_f_measure):
        assert metric(empty(), empty()) == 1.0
        assert metric(empty(), some) == 0.0
        assert metric(some, empty()) == 0.0
        assert metric(some, some) == 1.0


def test_boundaries_at_the_border() -> None:
    full = np.ones((6, 8), dtype=bool)
    # The border closes an object for boundary IoU: the full image's boundary is its outer ring.
    inner = rectangle(6, 8, slice(1, 5), slice(1, 7))
    assert boundary_iou(full, full & ~inner) == 1.0
    assert boundary_iou(full, inner) == 0.0
    # An L along two borders: nothing of it is deeper than a pixel. 13 pixels of the ring's 24.
    corner = rectangle(6, 8, slice(0, 1), slice(0, 8)) | rectangle(6, 8, slice(0, 6), slice(0, 1))
    assert boundary_iou(corner, full) == pytest.approx(13 / 24)
    # For F the border is no outline: a full mask has none, an object along it has one side less.
    assert boundary_f_measure(full, empty()) == 1.0
    assert boundary_f_measure(full, inner) == 0.0
    left_half = rectangle(6, 8, slice(0, 6), slice(0, 4))
    assert boundary_f_measure(left_half, ~left_half) == 1.0


def test_f_measure_tolerates_a_shift_up_to_the_radius() -> None:
    # 120 x 160: the diagonal is 200, so ceil(1.6) = 2 pixels are tolerated.
    bar = rectangle(120, 160, slice(0, 120), slice(40, 160))
    scores = []
    for shift in (0, 2, 3):
        moved = rectangle(120, 160, slice(0, 120), slice(40 + shift, 160))
        scores.append(boundary_f_measure(moved, bar))
    assert scores == [1.0, 1.0, 0.0]


def test_masks_of_different_sizes_are_refused() -> None:
    # A row would be compared with each row otherwise.
    one, other = empty(1, 8), empty(6, 8)
    for metric in (mask_iou, boundary_iou, boundary_f_measure):
        with pytest.raises(ValueError, match="different sizes"):
            metric(one, other)
    with pytest.raises(ValueError, match="different sizes"):
        cumulative_iou([(one, other)])


def naive_statistics(values: list[float]) -> FrameStatistics:
    n = len(values)
    ends = [math.floor(1 + Fraction(n - 1, 4) * i + Fraction(1, 2)) - 1 for i in range(5)]
    first, last = values[ends[0] : ends[1] + 1], values[ends[3] : ends[4] + 1]
    return FrameStatistics(
        sum(values) / n,
        sum(value > 0.5 for value in values) / n,
        sum(first) / len(first) - sum(last) / len(last),
    )


@given(st.lists(st.floats(0, 1) | st.just(0.5), min_size=1, max_size=300))
@settings(max_examples=150, deadline=None)
def test_frame_statistics_are_plain_loops(values: list[float]) -> None:
    found, expected = frame_statistics(values), naive_statistics(values)
    assert found.mean == pytest.approx(expected.mean)
    assert found.recall == pytest.approx(expected.recall)
    assert found.decay == pytest.approx(expected.decay, abs=1e-12)


def test_frame_statistics_by_hand() -> None:
    # Bins of eight frames end at frames 0, 2, 4, 5 and 7 (1.75, 3.5 and 5.25 are rounded), and
    # share their ends.
    falling = [1.0, 1.0, 0.7, 0.6, 0.5, 0.3, 0.0, 0.0]
    found = frame_statistics(falling)
    assert found.mean == pytest.approx(4.1 / 8)
    assert found.recall == pytest.approx(4 / 8)
    assert found.decay == pytest.approx(0.9 - 0.1)
    assert frame_statistics([0.8]) == FrameStatistics(0.8, 1.0, 0.0)
    with pytest.raises(ValueError, match="no frame"):
        frame_statistics([])


def test_j_and_f_is_the_mean_of_both_means() -> None:
    assert j_and_f(FrameStatistics(0.8, 1, 0.3), FrameStatistics(0.4, 0, -1)) == pytest.approx(0.6)
