"""Pictures of masks: palette PNGs as in DAVIS, photos with tinted objects, and contact sheets."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from features.errors import WaldoError

# The share of colour inside an object; the rest is the photo.
_TINT = 0.45

# A contact sheet of a long video has at least this many pictures, and less than twice as many.
# _PICTURE_WIDTH: pixels.
_PICTURES = 12
_COLUMNS = 4
_PICTURE_WIDTH = 320


def palette() -> NDArray[np.uint8]:
    """The colours of object ids, (256, 3) uint8: those of PASCAL VOC, which DAVIS uses too.

    Bits 0, 3 and 6 of an id are the highest bits of red; bits 1, 4 and 7 are those of green; bits 2
    and 5 are those of blue. Id 0 is black.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((ids >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


def read_ids(path: Path) -> NDArray[np.uint8]:
    """The object ids in an annotation file, (height, width) uint8.

    Ids are the palette indices of the PNG, or its grey values where it has no palette; they are
    never its colours. Raises WaldoError where the file is not such a PNG.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode = image.mode
            ids = np.array(image.convert("L") if mode == "1" else image, dtype=np.uint8)
    except Exception as error:  # broken pictures come up as any kind of error
        raise WaldoError(f"{path}: not a readable PNG ({error})") from None
    if mode not in ("P", "L", "1"):
        raise WaldoError(
            f"{path}: has colours (mode {mode}); an annotation holds object ids as palette indices"
        )
    return ids


def write_ids(path: Path, ids: NDArray[np.uint8]) -> None:
    """Write object ids, (height, width) uint8, as a PNG of palette indices."""
    image = Image.fromarray(ids)
    image.putpalette(palette().tobytes())
    image.save(path, format="PNG")


def tinted(picture: Image.Image, ids: NDArray[np.uint8]) -> Image.Image:
    """The photo with every object tinted in its colour and outlined.

    ids: (height, width) uint8, of the size of the picture, 0 where there is no object.
    """
    from scipy import ndimage

    photo = np.asarray(picture.convert("RGB"), dtype=np.float32)
    # The first colours of the palette are dark, so all colours are twice as bright here.
    bright = np.minimum(2 * palette().astype(np.float32), 255.0)
    width = max(1, round(min(ids.shape) / 240))
    size = 2 * width + 1
    edge = ndimage.maximum_filter(ids, size) != ndimage.minimum_filter(ids, size)
    inside = (ids > 0) & ~edge
    drawn = np.where(inside[..., None], (1 - _TINT) * photo + _TINT * bright[ids], photo)
    outline = bright[ndimage.maximum_filter(ids, size)]
    drawn = np.where((edge & (ids > 0))[..., None], outline, drawn)
    return Image.fromarray(drawn.astype(np.uint8))


class ContactSheet:
    """One picture with frames from the whole length of a video.

    The number of frames that it holds does not grow with the length of the video.
    """

    def __init__(self) -> None:
        self._kept: list[Image.Image] = []
        self._seen = 0
        self._every = 1

    def add(self, name: str, picture: Image.Image) -> None:
        """Add the next frame, which has the size of the frames before; only some are shown."""
        if self._seen % self._every == 0:
            height = max(1, round(picture.height * _PICTURE_WIDTH / picture.width))
            small = picture.resize((_PICTURE_WIDTH, height), reducing_gap=2.0)
            ImageDraw.Draw(small).text((4, 2), name, fill="white", stroke_width=1, stroke_fill=0)
            self._kept.append(small)
        self._seen += 1
        if len(self._kept) == 2 * _PICTURES:
            # The number of frames to come is unknown. So every second picture is dropped, and half
            # as many of the next frames are shown.
            self._kept = self._kept[::2]
            self._every *= 2

    def save(self, path: Path) -> None:
        """Write the sheet; at least one frame must have been added."""
        width, height = self._kept[0].size
        rows = -(-len(self._kept) // _COLUMNS)
        sheet = Image.new("RGB", (width * min(len(self._kept), _COLUMNS), height * rows))
        for place, picture in enumerate(self._kept):
            sheet.paste(picture, (place % _COLUMNS * width, place // _COLUMNS * height))
        sheet.save(path, quality=88)
