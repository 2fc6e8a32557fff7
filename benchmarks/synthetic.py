"""Stand-ins for a model and for photos, for benchmarks that measure everything but models."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.maps import FeatureMaps
from features.photo import ModelInput


class SyntheticExtractor(ABC):
    """A feature extractor whose maps are made up.

    seconds: spent in `extract` so far.
    """

    image_size: int
    grid: int
    dim: int

    def __init__(self) -> None:
        self.seconds = 0.0

    @abstractmethod
    def make_maps(self, photo: ModelInput) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Appearance and semantic map, (grid, grid, dim) each; the same photo, the same maps."""

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
    """Maps that follow from a photo's pixels, of falling variance as a model's are."""

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
    """Distinct 32-pixel PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{i:07}.png" for i in range(first, first + count)]
    side = PixelMaps.image_size
    for i, path in enumerate(paths, start=first):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side)).save(path)
    return paths


def seconds_of(work: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begin
