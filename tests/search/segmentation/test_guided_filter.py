"""The guided filter against its definition, window by window."""

import numpy as np
import pytest
from numpy.typing import NDArray

from search.segmentation.guided_filter import guided_filter


def naive_guided_filter(
    guide: NDArray[np.float32], values: NDArray[np.float32], radius: int, eps: float
) -> NDArray[np.float64]:
    """A ridge regression in every window; the value of a pixel is the mean over its windows."""
    height, width = values.shape
    colours = np.pad(np.atleast_3d(guide), ((radius, radius), (radius, radius), (0, 0)), "edge")
    padded = np.pad(values, radius, "edge").astype(np.float64)
    side = 2 * radius + 1
    slopes = np.empty((height, width, colours.shape[2]))
    offsets = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            seen = colours[y : y + side, x : x + side].reshape(side**2, -1).astype(np.float64)
            wanted = padded[y : y + side, x : x + side].ravel()
            centred = seen - seen.mean(axis=0)
            scatter = centred.T @ centred / side**2 + eps * np.eye(seen.shape[1])
            slopes[y, x] = np.linalg.solve(scatter, centred.T @ wanted / side**2)
            offsets[y, x] = wanted.mean() - slopes[y, x] @ seen.mean(axis=0)
    slopes = np.pad(slopes, ((radius, radius), (radius, radius), (0, 0)), "edge")
    offsets = np.pad(offsets, radius, "edge")
    result = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            mean_slope = slopes[y : y + side, x : x + side].mean(axis=(0, 1))
            mean_offset = offsets[y : y + side, x : x + side].mean()
            result[y, x] = mean_slope @ np.atleast_3d(guide)[y, x] + mean_offset
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_it_equals_a_regression_in_every_window(channels: int) -> None:
    rng = np.random.default_rng(channels)
    guide = rng.random((17, 23, channels), dtype=np.float32)
    guide = guide[:, :, 0] if channels == 1 else guide
    values = rng.random((17, 23), dtype=np.float32)
    found = guided_filter(guide, values, 3, 1e-2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_guided_filter(guide, values, 3, 1e-2), atol=2e-5)


def test_each_of_several_maps_is_filtered_by_itself() -> None:
    rng = np.random.default_rng(0)
    guide, values = (rng.random((12, 20, 3), dtype=np.float32) for _ in range(2))
    both = guided_filter(guide, values, 2, 1e-3)
    for number in range(3):
        alone = guided_filter(guide, np.ascontiguousarray(values[:, :, number]), 2, 1e-3)
        np.testing.assert_allclose(both[:, :, number], alone, atol=1e-6)


def test_a_blurred_mask_gets_the_edge_of_the_picture() -> None:
    truth = np.zeros((40, 60), dtype=np.float32)
    truth[:, 34:] = 1.0
    guide = np.where(truth[:, :, None] > 0, (0.8, 0.3, 0.2), (0.2, 0.5, 0.6)).astype(np.float32)
    ramp = np.clip((np.arange(60, dtype=np.float32) - 21) / 20, 0, 1)
    coarse = np.broadcast_to(ramp, (40, 60)).astype(np.float32)
    found = guided_filter(guide, coarse, 6, 1e-4)
    assert ((coarse > 0.5) != (truth > 0)).mean() > 0.03
    assert ((found > 0.5) == (truth > 0)).all()


def test_the_guide_and_the_values_must_have_one_size() -> None:
    with pytest.raises(ValueError, match="guide is"):
        guided_filter(np.zeros((4, 5), np.float32), np.zeros((5, 4), np.float32), 1, 1e-3)
