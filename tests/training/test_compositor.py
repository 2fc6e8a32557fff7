"""The scene compositor: seeded, and exact about where its objects are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import compositor
from training.compositor import Cutout, Pixels, Style

PLAIN = Style(light=0, perspective=0, rotation=0, flip=0, occlusion=0, degrade=0, shadow=0)


def disc(instance: str = "ball-1", side: int = 64) -> Cutout:
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - 0.5
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[:, :, :3] = (250, 10, 10)
    rgba[:, :, 3] = (np.hypot(x, y) < 0.5) * 255
    return Cutout(instance, "ball", rgba)


def grey(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), 128, np.uint8)


def square(left: float, top: float, side: float) -> compositor.Floats:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side + (left, top)
    return compositor.corners_homography(corners)


def test_one_seed_gives_one_scene() -> None:
    def draw(seed: int) -> compositor.Scene:
        rng = np.random.default_rng(seed)
        background = compositor.procedural_background(rng, (96, 64))
        placements = compositor.scatter(rng, [disc(), disc("ball-2")], (96, 64), Style())
        return compositor.compose(rng, background, placements, Style())

    first, again, other = draw(3), draw(3), draw(4)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.objects[1].mask, again.objects[1].mask)
    assert not np.array_equal(first.image, other.image)


def test_a_scene_has_the_backgrounds_shape_and_names_its_objects() -> None:
    rng = np.random.default_rng(0)
    placements = [(disc(), square(10, 5, 30))]
    scene = compositor.compose(rng, grey(80, 48), placements, PLAIN)
    assert scene.image.shape == (48, 80, 3)
    assert scene.image.dtype == np.uint8
    item = scene.objects[0]
    assert (item.instance, item.class_name) == ("ball-1", "ball")
    assert item.mask.shape == (48, 80)
    assert item.mask.dtype == np.bool_


def test_box_is_tight_and_exclusive() -> None:
    rng = np.random.default_rng(0)
    scene = compositor.compose(rng, grey(80, 48), [(disc(), square(10, 5, 30))], PLAIN)
    x0, y0, x1, y1 = scene.objects[0].box
    assert x0 == pytest.approx(10, abs=1)
    assert y0 == pytest.approx(5, abs=1)
    assert x1 == pytest.approx(40, abs=1)
    assert y1 == pytest.approx(35, abs=1)


def test_hidden_parts_are_not_in_the_mask() -> None:
    rng = np.random.default_rng(0)
    placements = [(disc("behind"), square(10, 10, 40)), (disc("before"), square(10, 10, 40))]
    scene = compositor.compose(rng, grey(64, 64), placements, PLAIN)
    behind, before = scene.objects
    assert not (behind.mask & before.mask).any()
    assert behind.mask.sum() <= 0.02 * before.mask.sum()
    assert before.box != (0, 0, 0, 0)


def test_a_hidden_object_has_an_empty_box() -> None:
    rng = np.random.default_rng(0)
    placements = [(disc("behind"), square(25, 25, 8)), (disc("before"), square(5, 5, 50))]
    scene = compositor.compose(rng, grey(64, 64), placements, PLAIN)
    assert scene.objects[0].box == (0, 0, 0, 0)


def test_without_light_and_degrading_colours_stay() -> None:
    rng = np.random.default_rng(0)
    scene = compositor.compose(rng, grey(64, 64), [(disc(), square(10, 10, 40))], PLAIN)
    assert np.abs(scene.image[30, 30].astype(int) - (250, 10, 10)).max() <= 2
    assert np.abs(scene.image[2, 2].astype(int) - 128).max() <= 1


corner = st.floats(-0.2, 0.2)


@settings(deadline=None, max_examples=50)
@given(st.lists(corner, min_size=8, max_size=8), st.floats(10, 90), st.floats(10, 90))
def test_a_homography_maps_the_corners_and_its_inverse_maps_them_back(
    shifts: list[float], width: float, height: float
) -> None:
    unit = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    corners = (unit + np.array(shifts).reshape(4, 2)) * (width, height) + 7
    homography = compositor.corners_homography(corners)
    assert np.allclose(compositor.apply_homography(homography, unit), corners, atol=1e-6)
    back = compositor.apply_homography(np.linalg.inv(homography), corners)
    assert np.allclose(back, unit, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.3, 3), st.floats(20, 60))
def test_masks_agree_with_the_homography(seed: int, aspect: float, extent: float) -> None:
    """A disc's mask is centred where its homography sends the disc's centre, and is as large."""
    rng = np.random.default_rng(seed)
    style = Style(light=0, perspective=0.3, rotation=1, flip=0.5, occlusion=0, degrade=0, shadow=0)
    homography = compositor.random_homography(rng, aspect, (64, 64), extent, style)
    side = 96
    rgba = np.array(disc(side=side).rgba)
    scene = compositor.compose(rng, grey(128, 128), [(Cutout("a", None, rgba), homography)], style)
    mask = scene.objects[0].mask
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns + 0.5, rows + 0.5], axis=1)
    inside = compositor.apply_homography(np.linalg.inv(homography), pixels)
    # A pixel and a half of tolerance at the border, in fractions of the cut-out.
    slack = 1.5 / (extent * min(aspect, 1 / aspect) ** 0.5 * 0.5)
    assert np.hypot(*(inside - 0.5).T).max() <= 0.5 + slack
    corners = compositor.apply_homography(homography, np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
    x, y = corners.T
    area = 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    assert mask.sum() == pytest.approx(area * math.pi / 4, rel=0.35, abs=40)


@pytest.mark.parametrize("seed", range(12))
def test_backgrounds_have_the_size_asked_for(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert compositor.procedural_background(rng, (50, 30)).shape == (30, 50, 3)
    photo = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    crop = compositor.photo_background(rng, photo, (50, 30))
    assert crop.shape == (30, 50, 3)
    assert crop.dtype == np.uint8


def test_a_look_alike_keeps_the_outline_and_changes_the_colours() -> None:
    cutout = disc()
    other = compositor.vary(np.random.default_rng(1), cutout, [], "ball-1#1")
    assert other.instance == "ball-1#1"
    assert other.class_name == "ball"
    assert np.array_equal(other.rgba[:, :, 3], cutout.rgba[:, :, 3])
    assert np.abs(other.rgba[:, :, :3].astype(int) - cutout.rgba[:, :, :3]).mean() > 5


def test_a_blob_is_an_object_without_a_class() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    blob = compositor.blob_cutout(np.random.default_rng(5), photo, 48, "blob-1")
    assert blob.class_name is None
    assert blob.rgba.shape == (48, 48, 4)
    cover = (blob.rgba[:, :, 3] > 127).mean()
    assert 0.05 < cover < 0.85
