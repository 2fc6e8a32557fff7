"""Pictures of results: photos with heatmaps or masks drawn over them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.frame import Frame
from features.photo import Photo, load_photo

# Ten equidistant colours of Matplotlib's viridis (CC0), from dark blue over green to yellow.
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
    """The upright photo in a file, with at most `longest` pixels along its longer side.

    Raises what `load_photo` raises.
    """
    return shrunk(load_photo(path, at_least=2 * longest), longest)


def shrunk(photo: Photo, longest: int) -> Image.Image:
    """The picture of a photo, with at most `longest` pixels along its longer side."""
    scale = min(1.0, longest / max(photo.width, photo.height))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def heatmap_over(picture: Image.Image, heatmap: NDArray[np.float32], frame: Frame) -> Image.Image:
    """A heatmap in colour over its photo in grey, from the heatmap's median (dark) to its peak.

    picture: the photo, of any size. heatmap: (grid, grid) float32.
    """
    colours, _ = _heat_colours(heatmap, frame, picture.size)
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray((0.35 * grey + 0.65 * colours).astype(np.uint8))


def heat_layer(heatmap: NDArray[np.float32], frame: Frame, longest: int) -> Image.Image:
    """A heatmap to lay over its photo: RGBA, opaque at the peak and clear at the median.

    heatmap: (grid, grid) float32. longest: pixels along the layer's longer side; the ratio of its
    sides is the photo's.
    """
    colours, drawn = _heat_colours(heatmap, frame, size_of(frame, longest))
    alpha = 255 * np.clip(1.6 * drawn, 0.0, 0.8)
    return Image.fromarray(np.dstack([colours, alpha]).astype(np.uint8), "RGBA")


def size_of(frame: Frame, longest: int) -> tuple[int, int]:
    """(width, height) of a picture in the photo's proportions. longest: its longer side, pixels."""
    scale = longest / max(frame.width, frame.height)
    return max(1, round(frame.width * scale)), max(1, round(frame.height * scale))


def _heat_colours(
    heatmap: NDArray[np.float32], frame: Frame, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A heatmap's colours, drawn at (width, height), and its values from 0 (the median) to 1."""
    # Colours start at the median, so that a few very cold cells do not use up the scale.
    valid = frame.valid()
    low, high = float(np.median(heatmap[valid])), float(heatmap[valid].max())
    scaled = (heatmap - low) / max(high - low, 1e-12)
    drawn = np.clip(frame.to_photo(scaled.astype(np.float32), *size), 0.0, 1.0)
    positions = drawn * (len(_VIRIDIS) - 1)
    below = np.minimum(positions.astype(int), len(_VIRIDIS) - 2)
    part = (positions - below)[..., None]
    return _VIRIDIS[below] * (1 - part) + _VIRIDIS[below + 1] * part, drawn


def mask_over(picture: Image.Image, cells: NDArray[np.bool_], frame: Frame) -> Image.Image:
    """A photo in which everything except the selected cells is faded.

    picture: the photo, of any size. cells: (grid, grid) bool.
    """
    drawn = frame.to_photo(cells.astype(np.float32), *picture.size)[..., None]
    weight = 0.25 + 0.75 * np.clip(drawn * 2 - 0.5, 0.0, 1.0)
    colours = np.asarray(picture, dtype=np.float32)
    return Image.fromarray((colours * weight + 255.0 * (1 - weight)).astype(np.uint8))
