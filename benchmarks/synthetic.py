"""Synthetic photos and features, for benchmarks that measure everything except models."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.protocols import Extractor


class SyntheticExtractor(Extractor):
    """A feature extractor with synthetic maps. seconds: the time spent in `extract` so far."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @abstractmethod
    def make_maps(self, photo: ModelInput) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """The appearance and semantic map of a photo, (grid, grid, dim) each, always the same."""

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"model": "synthetic", "revision": "1"}

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        return np.random.default_rng(1).normal(size=(50, self.dim)).astype(np.float32)

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        begin = time.perf_counter()
        maps = [
            FeatureMaps(*self.make_maps(photo), photo.frame, photo.content_hash) for photo in inputs
        ]
        self.seconds += time.perf_counter() - begin
        return maps


class PixelMaps(SyntheticExtractor):
    """Maps computed from the pixels of a photo, with falling variances like those of a model."""

    image_size, grid, dim = 32, 16, 160

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        inner, side = 64, self.image_size // self.grid
        self._first = rng.normal(size=(3 * side**2, inner)).astype(np.float32)
        falling = (1 / np.arange(1, inner + 1))[:, None]
        self._second = (falling * rng.normal(size=(inner, 2 * self.dim))).astype(np.float32)

    def make_maps(self, photo: ModelInput) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        side, grid = self.image_size // self.grid, self.grid
        cells = photo.pixels.reshape(grid, side, grid, side, 3).transpose(0, 2, 1, 3, 4)
        flat = cells.reshape(grid, grid, -1).astype(np.float32) / 128 - 1
        both = (np.tanh(flat @ self._first) @ self._second).astype(np.float16)
        return both[..., : self.dim], both[..., self.dim :]


def make_photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Write `count` different PNGs of 32 x 32 pixels, numbered from `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{i:07}.png" for i in range(first, first + count)]
    side = PixelMaps.image_size
    for i, path in enumerate(paths, start=first):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side)).save(path)
    return paths
