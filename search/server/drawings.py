"""The pictures that the page shows: photos made small, and layers to lay over them."""

import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from features.photo import load_photo
from search.segmentation.overlay import shrunk

# The sizes that photos are sent in: the most pixels along the longer side.
SIZES = (160, 320, 640, 1280, 2560)
# Pictures of at most this size are kept, this many of them: some 30 MiB.
_KEPT_SIZE, _KEPT = 320, 1024

# Pixels along the longer side of a layer.
LAYER_SIDE = 640
_MASK_COLOUR = (255, 122, 0)


class Photos:
    """Photos as JPEGs of some sizes, without what their files say beside the picture."""

    def __init__(self) -> None:
        self._kept: Callable[[Path, str, int], bytes] = lru_cache(_KEPT)(_jpeg)

    def jpeg(self, path: Path, content_hash: str, size: int) -> bytes:
        """A photo with at most `size` pixels along its longer side.

        content_hash: of the file, as it is now. Raises what `load_photo` raises.
        """
        draw = self._kept if size <= _KEPT_SIZE else _jpeg
        return draw(path, content_hash, size)


def size_for(wanted: int) -> int:
    """The smallest of the sizes that is at least as large; else the largest."""
    return next((size for size in SIZES if size >= wanted), SIZES[-1])


def _jpeg(path: Path, content_hash: str, size: int) -> bytes:
    # The hash tells a photo from an earlier one of the same name.
    return _as_jpeg(shrunk(load_photo(path, at_least=size), size))


def crop_jpeg(path: Path, box: tuple[int, int, int, int], size: int) -> bytes:
    """A square around a part of a photo as JPEG, with at most `size` pixels per side.

    box: [x0, y0, x1, y1], pixels of the upright photo. Raises what `load_photo` raises.
    """
    photo = load_photo(path)
    x0, y0, x1, y1 = box
    side = min(1.2 * max(x1 - x0, y1 - y0), photo.width, photo.height)
    left = min(max(0.0, (x0 + x1 - side) / 2), photo.width - side)
    top = min(max(0.0, (y0 + y1 - side) / 2), photo.height - side)
    pixels = max(1, min(size, round(side)))
    square = (left, top, left + side, top + side)
    part = photo.image.resize((pixels, pixels), Image.Resampling.LANCZOS, square, reducing_gap=3.0)
    return _as_jpeg(part)


def _as_jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def mask_layer(mask: NDArray[np.bool_]) -> Image.Image:
    """A mask to lay over its photo: RGBA, a colour on the object, stronger at its edge.

    mask: (height, width) bool, pixels of the photo.
    """
    whole = Image.fromarray(mask.astype(np.uint8) * 255)
    scale = min(1.0, LAYER_SIDE / max(whole.size))
    small = whole.resize(
        (max(1, round(whole.width * scale)), max(1, round(whole.height * scale))),
        Image.Resampling.BOX,
    )
    inside = np.asarray(small) > 127
    core = (
        np.asarray(Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(5)))
        > 0
    )
    alpha = np.where(core, 110, np.where(inside, 235, 0))
    layer = np.empty((*inside.shape, 4), np.uint8)
    layer[...] = (*_MASK_COLOUR, 0)
    layer[..., 3] = alpha
    return Image.fromarray(layer, "RGBA")


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
