"""Pictures of what was found: photos with boxes, heatmaps and masks drawn over them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.frame import Frame
from features.photo import Photo, load_photo

# Dark blue over green to yellow, from Matplotlib's viridis at equal distances (CC0).
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 74, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (109, 205, 89),
        (180, 222, 44),
        (253, 231, 37),
    ],
    dtype=np.float32,
)


def thumbnail(path: Path, longest: int) -> Image.Image:
    """The upright photo, its longer side at most `longest` pixels. Raises as `load_photo`."""
    return shrunk(load_photo(path, at_least=2 * longest), longest)


def shrunk(photo: Photo, longest: int) -> Image.Image:
    """A photo's picture, its longer side at most `longest` pixels."""
    scale = min(1.0, longest / max(photo.width, photo.height))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def heatmap_over(picture: Image.Image, heatmap: NDArray[np.float32], frame: Frame) -> Image.Image:
    """A photo in grey under its heatmap in colour, from its median (dark) to its peak (bright).

    picture: the photo at any size. heatmap: (grid, grid) float32.
    """
    # From the median, as in localisation: a few very cold cells must not wash out the rest.
    valid = frame.valid()
    low, high = float(np.median(heatmap[valid])), float(heatmap[valid].max())
    scaled = (heatmap - low) / max(high - low, 1e-12)
    drawn = np.clip(frame.to_photo(scaled.astype(np.float32), *picture.size), 0.0, 1.0)
    places = drawn * (len(_VIRIDIS) - 1)
    below = np.minimum(places.astype(int), len(_VIRIDIS) - 2)
    part = (places - below)[..., None]
    colours = _VIRIDIS[below] * (1 - part) + _VIRIDIS[below + 1] * part
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray((0.35 * grey + 0.65 * colours).astype(np.uint8))


def mask_over(picture: Image.Image, cells: NDArray[np.bool_], frame: Frame) -> Image.Image:
    """A photo with everything but the selected cells faded.

    picture: the photo at any size. cells: (grid, grid) bool.
    """
    drawn = frame.to_photo(cells.astype(np.float32), *picture.size)[..., None]
    weight = 0.25 + 0.75 * np.clip(drawn * 2 - 0.5, 0.0, 1.0)
    colours = np.asarray(picture, dtype=np.float32)
    return Image.fromarray((colours * weight + 255.0 * (1 - weight)).astype(np.uint8))
