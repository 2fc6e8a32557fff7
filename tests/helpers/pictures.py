"""Photos that tests make."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def smooth_pixels(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours without symmetry, (height, width, 3) uint8. JPEG changes them little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save_photo(path: Path, width: int = 96, height: int = 64, seed: int = 0) -> Path:
    """Write a photo of `smooth_pixels` in the format of the path's suffix; returns the path."""
    Image.fromarray(smooth_pixels(width, height, seed)).save(path)
    return path
