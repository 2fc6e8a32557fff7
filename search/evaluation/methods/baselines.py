"""Baselines without a diffusion model: maps of plain colours, for the same stores and scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.protocols import Extractor

# Each cell of a photo at this size has 8 x 8 pixels.
_GRID = 16
_CELL = 8

# Bins per colour channel of the histogram.
_BINS = 8


class PatchExtractor(Extractor):
    """RGB patches: a cell's appearance is its 8 x 8 pixels, 0..1. The semantic map is zero.

    grid: cells per side.
    """

    dim = _CELL * _CELL * 3

    def __init__(self, grid: int = _GRID) -> None:
        self.grid = grid
        self.image_size = grid * _CELL

    def fingerprint(self) -> dict[str, str | int]:
        return {"model": "rgb-patches", "image_size": self.image_size}

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        return [
            _maps(photo, _patches(photo.pixels).astype(np.float32) / np.float32(255.0))
            for photo in inputs
        ]


class HistogramExtractor(Extractor):
    """RGB histograms: a cell's appearance is the share of its pixels in each of 8^3 colours, so
    the mean over cells is a region's histogram. The semantic map is zero.
    """

    image_size = _GRID * _CELL
    grid = _GRID
    dim = _BINS**3

    def fingerprint(self) -> dict[str, str | int]:
        return {"model": "rgb-histogram", "image_size": self.image_size, "bins": _BINS}

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        maps = []
        for photo in inputs:
            levels = _patches(photo.pixels).reshape(_GRID, _GRID, -1, 3) // (256 // _BINS)
            colours = levels @ np.array([_BINS**2, _BINS, 1])
            shares = (colours[..., None] == np.arange(self.dim)).mean(axis=2, dtype=np.float32)
            maps.append(_maps(photo, shares))
        return maps


# Extractors by the name of their maps; their maps are stored without a codec.
EXTRACTORS: dict[str, type[Extractor]] = {
    "rgb-patches": PatchExtractor,
    "rgb-histogram": HistogramExtractor,
}


def _patches(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(size, size, 3) pixels as (grid, grid, cell * cell * 3) patches."""
    grid = len(pixels) // _CELL
    blocks = pixels.reshape(grid, _CELL, grid, _CELL, 3).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(grid, grid, -1)


def _maps(photo: ModelInput, appearance: NDArray[np.float32]) -> FeatureMaps:
    stored = appearance.astype(np.float16)
    return FeatureMaps(stored, np.zeros_like(stored), photo.frame, photo.content_hash)
