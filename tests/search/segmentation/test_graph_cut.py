"""The minimum cut against all masks of a small picture, and masks of pictures of every kind."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from features.frame import Frame
from features.regions import mask_cells
from search.evaluation.metrics.masks import mask_iou
from search.segmentation.graph_cut import colour_evidence, cut_object, minimum_cut

GRID = 8
FRAME = Frame(160, 120, 128, GRID)


def worth(
    mask: NDArray[np.bool_], gain: NDArray[np.floating], colours: NDArray[np.floating]
) -> float:
    """What a mask gains less what its border costs, in plain loops."""
    height, width = gain.shape
    borders = []
    for row, column in np.ndindex(height, width):
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            if row + down < height and 0 <= column + right < width:
                other = row + down, column + right
                apart = ((colours[row, column] - colours[other]) ** 2).sum()
                share = 1.0 if down * right == 0 else 2**-0.5
                borders.append((share, apart, mask[row, column] != mask[other]))
    mean = np.mean([apart for _, apart, _ in borders])
    cost = sum(s * (3 * np.exp(-d / (2 * mean)) + 0.2) for s, d, cut in borders if cut)
    return float(gain[mask].sum() - cost)


@pytest.mark.parametrize("seed", range(6))
def test_the_cut_is_the_best_of_all_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gain = rng.normal(scale=3, size=(3, 4))
    colours = rng.integers(0, 3, (3, 4, 3)).astype(np.float64) * 80
    found = minimum_cut(gain.astype(np.float32), colours.astype(np.float32))
    masks = (np.array(bits).reshape(3, 4) for bits in itertools.product([False, True], repeat=12))
    best = max(worth(mask, gain, colours) for mask in masks)
    # Capacities are rounded to thousandths.
    assert worth(found, gain, colours) == pytest.approx(best, abs=0.05)


def ellipse(x: float, y: float, wide: float, high: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:120, :160]
    return np.asarray(((columns - x) / wide) ** 2 + ((rows - y) / high) ** 2 < 1)


def painted(mask: NDArray[np.bool_], inside: int, outside: int) -> Image.Image:
    """Red on green-blue, each with some noise."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-15, 16, (*mask.shape, 3))
    colours = np.where(mask[:, :, None], (inside, 60, 40), (outside, 120, 160))
    return Image.fromarray(np.clip(colours + noise, 0, 255).astype(np.uint8))


TRUTH = ellipse(80, 60, 45, 30)
PICTURE = painted(TRUTH, 200, 40)


def evidence_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    return mask_cells(FRAME, mask).astype(np.float32) - 0.5


def plain(evidence: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(FRAME.to_photo(evidence, 160, 120) > 0)


def test_masks_follow_the_edges_of_the_picture() -> None:
    evidence = evidence_of(TRUTH)
    assert mask_iou(plain(evidence), TRUTH) < 0.9
    assert mask_iou(cut_object(evidence, FRAME, PICTURE), TRUTH) > 0.97
    # The picture may be smaller than the photo, and larger.
    for size in ((80, 60), (640, 480)):
        scaled = PICTURE.resize(size, Image.Resampling.BOX)
        assert mask_iou(cut_object(evidence, FRAME, scaled), TRUTH) > 0.94


def test_the_mask_reaches_beyond_the_evidence_where_colours_go_on() -> None:
    half = evidence_of(TRUTH & (np.arange(160) < 90))
    found = cut_object(half, FRAME, PICTURE)
    assert mask_iou(plain(half), TRUTH) < 0.7
    assert mask_iou(found, TRUTH) > 0.9
    # A thing of the same colour that is far away is another thing.
    far = ellipse(145, 20, 12, 12)
    small = ellipse(30, 90, 20, 20)
    both = painted(far | small, 200, 40)
    assert not cut_object(evidence_of(small), FRAME, both)[far].any()


def test_evidence_decides_where_the_picture_has_no_edge() -> None:
    evidence = evidence_of(TRUTH)
    for colour in ("grey", "black", "white"):
        found = cut_object(evidence, FRAME, Image.new("RGB", (160, 120), colour))
        assert mask_iou(found, plain(evidence)) > 0.9


def test_a_grey_picture_has_edges_too() -> None:
    grey = PICTURE.getchannel("R").convert("RGB")
    assert mask_iou(cut_object(evidence_of(TRUTH), FRAME, grey), TRUTH) > 0.95


def test_no_evidence_is_no_mask_and_all_evidence_is_the_whole_photo() -> None:
    nothing = np.full((GRID, GRID), -0.1, dtype=np.float32)
    # Evidence in the padding is none.
    nothing[7] = 0.5
    assert not cut_object(nothing, FRAME, PICTURE).any()
    everything = np.full((GRID, GRID), 0.5, dtype=np.float32)
    assert cut_object(everything, FRAME, PICTURE).all()


def test_one_cell_of_evidence_is_a_mask() -> None:
    dot = np.full((GRID, GRID), -0.5, dtype=np.float32)
    dot[3, 3] = 0.1
    found = cut_object(dot, FRAME, Image.new("RGB", (160, 120), "grey"))
    assert found.any()
    assert found.mean() < 0.05


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 2), (5, 7)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    frame = Frame(*size, 128, GRID)
    evidence = np.full((GRID, GRID), 0.5, dtype=np.float32)
    found = cut_object(evidence, frame, Image.new("RGB", size, "grey"))
    assert found.shape == (size[1], size[0])
    assert found.all()


def test_the_same_mask_in_every_thread() -> None:
    rng = np.random.default_rng(1)
    noisy = Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    evidence = rng.normal(scale=0.3, size=(GRID, GRID)).astype(np.float32)
    alone = cut_object(evidence, FRAME, noisy)
    assert 0 < alone.mean() < 1
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: cut_object(evidence, FRAME, noisy), range(8)):
            np.testing.assert_array_equal(found, alone)


def test_colours_are_evidence_where_they_tell() -> None:
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, :10], pixels[:, 10:20], pixels[:, 20:] = (220, 30, 30), (30, 30, 220), (128, 128, 128)
    sure = np.zeros((10, 30), dtype=np.float32)
    sure[:5, :10] = 1.0  # half of the red
    sure[:5, 10:20] = -1.0  # half of the blue
    sure[:2, 20:], sure[2:4, 20:] = 1.0, -1.0  # as much of the grey here as there
    told = colour_evidence(pixels, sure)
    assert (told[:, :10] > 2).all()
    assert (told[:, 10:20] < -2).all()
    assert (np.abs(told[:, 20:]) < 0.1).all()
