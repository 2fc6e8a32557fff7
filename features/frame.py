"""The one place that maps source pixels, model pixels and map cells onto each other.

Coordinates are continuous, x right, y down, in the EXIF-oriented photo: pixel (i, j) covers
[i, i + 1) x [j, j + 1), so a box [x0, y0, x1, y1] spans x1 - x0 columns and y1 - y0 rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Frame:
    """Where a whole photo lies in the model's square input and in the feature map.

    The photo is scaled to fit and anchored at the square's top left corner; the rest, on the right
    or below, is padding. The photo therefore always fills the first `rows` x `cols` cells.

    width, height: the EXIF-oriented source photo, pixels.
    size: side of the model's square input, pixels.
    grid: side of the square feature map, cells.
    """

    width: int
    height: int
    size: int
    grid: int

    @property
    def scale(self) -> float:
        """Model pixels per source pixel, before rounding to whole pixels."""
        return self.size / max(self.width, self.height)

    @property
    def content(self) -> tuple[int, int]:
        """(width, height) of the scaled photo inside the square, model pixels, at least 1."""
        return (
            min(self.size, max(1, round(self.width * self.scale))),
            min(self.size, max(1, round(self.height * self.scale))),
        )

    @property
    def cols(self) -> int:
        """Map columns that hold photo rather than padding, at least 1."""
        return max(1, round(self.content[0] * self.grid / self.size))

    @property
    def rows(self) -> int:
        """Map rows that hold photo rather than padding, at least 1."""
        return max(1, round(self.content[1] * self.grid / self.size))

    @property
    def cell(self) -> tuple[float, float]:
        """(width, height) of one map cell in source pixels."""
        cell = self.size / self.grid
        return cell * self.width / self.content[0], cell * self.height / self.content[1]

    def valid(self) -> NDArray[np.bool_]:
        """(grid, grid) bool, True where a cell holds photo rather than padding."""
        valid = np.zeros((self.grid, self.grid), dtype=bool)
        valid[: self.rows, : self.cols] = True
        return valid

    def coverage(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The fraction of each cell that a source mask covers.

        mask: (height, width) bool in source pixels. Returns (grid, grid) float32 in 0..1; padding
        is 0. Raises ValueError for a mask of another shape.
        """
        if mask.shape != (self.height, self.width):
            raise ValueError(f"mask is {mask.shape}, the photo ({self.height}, {self.width})")
        scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(
            self.content, Image.Resampling.BOX
        )
        square = Image.new("L", (self.size, self.size))
        square.paste(scaled, (0, 0))
        cells = square.resize((self.grid, self.grid), Image.Resampling.BOX)
        result = np.asarray(cells, dtype=np.float32) / 255.0
        return np.where(self.valid(), result, np.float32(0.0))

    def cell_at(self, x: float, y: float) -> tuple[int, int]:
        """(row, column) of the valid cell under a source point; points outside are clipped."""
        width, height = self.cell
        column = min(self.cols - 1, max(0, int(x / width)))
        row = min(self.rows - 1, max(0, int(y / height)))
        return row, column

    def centre_of(self, row: int, column: int) -> tuple[float, float]:
        """(x, y) in source pixels of a valid cell's centre."""
        width, height = self.cell
        # A photo may be narrower than half a cell.
        return min((column + 0.5) * width, self.width), min((row + 0.5) * height, self.height)

    def box_of(self, cells: NDArray[np.bool_]) -> tuple[int, int, int, int]:
        """The box around the True cells, [x0, y0, x1, y1] in whole source pixels, inside the photo.

        cells: (grid, grid) bool with at least one True among the valid cells, else ValueError.
        """
        inside = cells[: self.rows, : self.cols]
        if not inside.any():
            raise ValueError("no cell is selected")
        ys = np.flatnonzero(inside.any(axis=1))
        xs = np.flatnonzero(inside.any(axis=0))
        width, height = self.cell
        x0 = min(round(xs[0] * width), self.width - 1)
        y0 = min(round(ys[0] * height), self.height - 1)
        # By rounding, the last valid cell may end short of the photo's edge or beyond it; and
        # cells of photos smaller than the map are less than a pixel wide.
        x1 = self.width if xs[-1] == self.cols - 1 else round((xs[-1] + 1) * width)
        y1 = self.height if ys[-1] == self.rows - 1 else round((ys[-1] + 1) * height)
        return x0, y0, min(self.width, max(x1, x0 + 1)), min(self.height, max(y1, y0 + 1))

    def to_photo(
        self,
        cells: NDArray[np.float32],
        width: int,
        height: int,
        part: tuple[int, int, int, int] | None = None,
    ) -> NDArray[np.float32]:
        """A cell map drawn over the photo at any size, bilinear, without the padding.

        cells: (grid, grid) float32. part: the box of the photo that is drawn, [x0, y0, x1, y1] in
        source pixels; None for the whole. Returns (height, width) float32, the map resampled so
        that it lies on a copy of this part resized to width x height pixels.
        """
        cell = self.size / self.grid
        cols, rows = self.content[0] / cell, self.content[1] / cell
        x0, y0, x1, y1 = part or (0, 0, self.width, self.height)
        left, right = x0 / self.width * cols, x1 / self.width * cols
        top, bottom = y0 / self.height * rows, y1 / self.height * rows
        box = (left, top, right, bottom)
        # Padding cells must not bleed into the photo's last row and column.
        filled = cells.astype(np.float32).copy()
        filled[self.rows :, :] = filled[self.rows - 1, :]
        filled[:, self.cols :] = filled[:, self.cols - 1 : self.cols]
        resized = Image.fromarray(filled).resize((width, height), Image.Resampling.BILINEAR, box)
        return np.asarray(resized, dtype=np.float32)
