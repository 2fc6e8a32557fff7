"""Cells, model pixels and source pixels agree, for photos of any shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.frame import Frame

frames = st.builds(
    Frame,
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.sampled_from([64, 128]),
    grid=st.sampled_from([8, 16]),
)


def exact_coverage(frame: Frame, box: tuple[int, int, int, int]) -> np.ndarray:
    """The area of each cell, in source pixels, that a box covers, by intersecting rectangles."""
    cell_width, cell_height = frame.cell
    edges_x = np.arange(frame.grid + 1) * cell_width
    edges_y = np.arange(frame.grid + 1) * cell_height
    x = np.clip(np.minimum(edges_x[1:], box[2]) - np.maximum(edges_x[:-1], box[0]), 0, None)
    y = np.clip(np.minimum(edges_y[1:], box[3]) - np.maximum(edges_y[:-1], box[1]), 0, None)
    return np.outer(y, x) / (cell_width * cell_height)


@given(frames)
@settings(max_examples=200, deadline=None)
def test_valid_cells_are_those_with_photo_in_them(frame: Frame) -> None:
    area = exact_coverage(frame, (0, 0, frame.width, frame.height))
    valid = frame.valid()
    assert valid.any()
    assert valid[area > 0.51].all()
    # A thin photo keeps one row or column, however little of a cell it fills.
    thin = min(frame.content) < frame.size / frame.grid
    assert thin or not valid[area < 0.2].any()


@given(frames, st.data())
@settings(max_examples=200, deadline=None)
def test_coverage_of_a_box_mask(frame: Frame, data: st.DataObject) -> None:
    x0 = data.draw(st.integers(0, frame.width - 1))
    y0 = data.draw(st.integers(0, frame.height - 1))
    x1 = data.draw(st.integers(x0 + 1, frame.width))
    y1 = data.draw(st.integers(y0 + 1, frame.height))
    mask = np.zeros((frame.height, frame.width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    expected = np.where(frame.valid(), exact_coverage(frame, (x0, y0, x1, y1)), 0.0)
    # The mask is resampled to whole model pixels on the way: at most an eighth of a cell per side.
    np.testing.assert_allclose(frame.coverage(mask), expected, atol=0.3)


@given(frames, st.data())
@settings(max_examples=200, deadline=None)
def test_box_of_a_cell_holds_the_cell(frame: Frame, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, frame.rows - 1))
    column = data.draw(st.integers(0, frame.cols - 1))
    cells = np.zeros((frame.grid, frame.grid), dtype=bool)
    cells[row, column] = True
    x0, y0, x1, y1 = frame.box_of(cells)
    assert 0 <= x0 < x1 <= frame.width
    assert 0 <= y0 < y1 <= frame.height
    cell_width, cell_height = frame.cell
    if min(cell_width, cell_height) >= 2:
        assert abs(x0 - column * cell_width) <= 0.5
        assert abs(y0 - row * cell_height) <= 0.5
        assert frame.cell_at((x0 + x1) / 2, (y0 + y1) / 2) == (row, column)


def test_box_of_everything_is_the_photo() -> None:
    frame = Frame(width=301, height=199, size=128, grid=16)
    assert frame.box_of(np.ones((16, 16), dtype=bool)) == (0, 0, 301, 199)
    with pytest.raises(ValueError, match="no cell"):
        frame.box_of(~frame.valid())


def test_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="mask is"):
        Frame(30, 20, 64, 8).coverage(np.ones((30, 20), dtype=bool))


def test_map_drawn_over_the_photo_lies_where_the_cells_are() -> None:
    frame = Frame(width=200, height=100, size=128, grid=16)
    cells = np.zeros((16, 16), dtype=np.float32)
    cells[2, 12] = 1.0
    drawn = frame.to_photo(cells, 400, 200)
    assert drawn.shape == (200, 400)
    y, x = np.unravel_index(int(drawn.argmax()), drawn.shape)
    # Cell (2, 12) of 16 x 16 over a 400-pixel-wide picture: 25 pixels per cell.
    assert (x // 25, y // 25) == (12, 2)
    # Padding below must not darken the last row.
    flat = np.where(frame.valid(), 1.0, -9.0).astype(np.float32)
    np.testing.assert_allclose(frame.to_photo(flat, 50, 25), 1.0)


def test_a_part_of_the_photo_is_drawn_as_in_the_whole() -> None:
    frame = Frame(400, 200, 64, 8)
    cells = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    whole = frame.to_photo(cells, 400, 200)
    part = frame.to_photo(cells, 150, 80, (100, 60, 250, 140))
    # Pillow's filters end at the border of the part.
    np.testing.assert_allclose(part[30:-30, 30:-30], whole[90:110, 130:220], atol=1e-4)


@given(frames, st.data())
@settings(max_examples=200, deadline=None)
def test_the_centre_of_a_cell_lies_in_the_cell(frame: Frame, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, frame.rows - 1))
    column = data.draw(st.integers(0, frame.cols - 1))
    x, y = frame.centre_of(row, column)
    assert 0 <= x <= frame.width
    assert 0 <= y <= frame.height
    assert frame.cell_at(x, y) == (row, column)
