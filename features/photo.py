"""Reading photos of any format as upright sRGB pictures.

The format is detected from the content, not from the name: a file named .txt may be a JPEG. The
EXIF orientation is applied, embedded colour profiles are converted to sRGB, transparent parts
become white, and an animation gives its first frame.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from features.errors import NotAPictureError, PhotoError, UnreadableError
from features.frame import Frame
from features.picture import (
    FORMATS,
    TooManyPixelsError,
    essential_pngs,
    is_reduced,
    open_picture,
    register_heif,
    to_srgb,
    upright_picture,
    upright_size,
)

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Photo:
    """An upright sRGB photo.

    path: the file. content_hash: SHA-256 of the file's bytes, hexadecimal.
    width, height: size of the upright photo in pixels, as stored in the file.
    image: Pillow RGB image of that size, or decoded smaller (see `load_photo`).
    taken_ns: the date taken from the EXIF data, in nanoseconds since 1970 began by the camera's own
    clock, whatever its zone. None where the file has no date.
    """

    path: Path
    content_hash: str
    width: int
    height: int
    image: Image.Image
    taken_ns: int | None = None


@dataclass(frozen=True)
class ModelInput:
    """A whole photo, scaled and padded to a model's square input.

    pixels: (size, size, 3) uint8 sRGB, padding in mid grey.
    frame: the mapping between these pixels, the source photo and the feature map.
    content_hash: SHA-256 of the file's bytes; it also seeds the photo's noise.
    taken_ns: as in Photo.
    """

    pixels: NDArray[np.uint8]
    frame: Frame
    content_hash: str
    taken_ns: int | None = None

    def without_padding(self) -> "ModelInput":
        """The same photo with the pixels of the cells that hold photo alone.

        Its pixels are (rows * side, columns * side, 3), the side that of a cell. A cell on the
        right or at the bottom is among them if the photo fills half of it; the rest is padding.
        """
        frame = self.frame
        side = frame.size // frame.grid
        return replace(self, pixels=self.pixels[: frame.rows * side, : frame.cols * side])


def load_photo(path: Path, at_least: int | None = None) -> Photo:
    """Read a photo upright, in sRGB, without transparency.

    at_least: the decoder may return a smaller image whose longer side has at least this many
    pixels, which makes JPEGs several times faster; width and height remain those of the file. None
    decodes all pixels.

    Raises NotAPictureError where neither the content nor the name is that of a picture, PhotoError
    where the content cannot be decoded or has too many pixels, UnreadableError where the system
    cannot read the file.
    """
    with _reading(path) as file:
        photo = _read(file, lambda opened: _decode(path, opened, at_least))
        file.seek(0)
        return replace(photo, content_hash=hashlib.file_digest(file, "sha256").hexdigest())


def photo_size(path: Path) -> tuple[int, int]:
    """`Photo.width` and `Photo.height` of a file, read from its header; the pixels may be broken.

    Raises NotAPictureError, PhotoError and UnreadableError as `load_photo`.
    """
    with _reading(path) as file:
        return _read(file, lambda opened: _size(path, opened))


def date_taken(path: Path) -> int | None:
    """`Photo.taken_ns` of a file, read from its header; None for a file that is no picture.

    Raises UnreadableError.
    """
    with _reading(path) as file:
        try:
            return _taken_ns(_identify(path, file))
        except (PhotoError, NotAPictureError):
            return None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its content or by its name; broken pictures count.

    Reads only the header of the file.
    """
    if _is_picture_name(path):
        return True
    try:
        with _reading(path) as file:
            _identify(path, file)
    except NotAPictureError:
        return False
    except PhotoError:
        return True
    return True


def is_raw_name(name: str) -> bool:
    """Whether a file is named like a camera's raw file."""
    return name.lower().endswith(_RAW_SUFFIXES)


def to_model_input(photo: Photo, size: int, grid: int) -> ModelInput:
    """Scale a photo into the top left of a (size, size) square whose map has grid x grid cells."""
    frame = Frame(photo.width, photo.height, size, grid)
    scaled = photo.image.resize(frame.content, Image.Resampling.LANCZOS, reducing_gap=3.0)
    square = Image.new("RGB", (size, size), (128, 128, 128))
    square.paste(scaled, (0, 0))
    return ModelInput(np.asarray(square), frame, photo.content_hash, photo.taken_ns)


def load_model_input(path: Path, size: int, grid: int) -> ModelInput:
    """`load_photo` and `to_model_input` in one, decoding no more pixels than the model needs.

    Raises what `load_photo` raises.
    """
    return to_model_input(load_photo(path, at_least=2 * size), size, grid)


# EXIF tags of a date, the most reliable first.
_DATES = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime)
# A date as EXIF has it, "2024:05:31 18:00:00", and as other programs write it: other separators,
# no time, no seconds, something behind them.
_DATE = re.compile(
    r"\s*(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})(?:[\sT]+(\d{1,2})[:.](\d{1,2})(?:[:.](\d{1,2}))?)?(?!\d)"
)
_EPOCH = datetime(1970, 1, 1)
_HEIF_SUFFIXES = (".heic", ".heif")
_RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc"),
    *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl"),
    *(".sr2", ".srf", ".srw", ".x3f"),
)
_VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".webm", ".wmv"),
)


def _is_picture_name(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in _HEIF_SUFFIXES or Image.registered_extensions().get(suffix) in FORMATS


@contextmanager
def _reading(path: Path) -> Iterator[BufferedReader]:
    """An open file. Raises UnreadableError where the system cannot open or read it."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({error.strerror or error})") from error


def _decode(path: Path, file: BinaryIO, at_least: int | None) -> Photo:
    """`load_photo` without the content hash. Raises OSError where the system cannot read."""
    image = _identify(path, file)
    taken_ns = _taken_ns(image)
    try:
        upright, (width, height) = upright_picture(image, at_least)
        rgb = to_srgb(upright)
    except Exception as error:
        raise _told(path, error) from error
    return Photo(path, "", width, height, rgb, taken_ns)


def _size(path: Path, file: BinaryIO) -> tuple[int, int]:
    """`photo_size` of an open file. Raises OSError where the system cannot read."""
    image = _identify(path, file)
    try:
        return upright_size(image)
    except Exception as error:
        raise _told(path, error) from error


def _read(file: BinaryIO, read: Callable[[BinaryIO], _Read]) -> _Read:
    """What `read` gives of a picture, without the metadata that may be what is broken if it must be
    so; it raises the error of the picture as it is where nothing helps.
    """
    try:
        return read(file)
    except PhotoError:
        for png in essential_pngs(file):
            try:
                return read(png)
            except (PhotoError, NotAPictureError):
                continue
        raise


def _identify(path: Path, file: BinaryIO) -> Image.Image:
    """The picture in an open file, of which only the header is read. Raises as `load_photo`."""
    try:
        image = open_picture(file)
    except UnidentifiedImageError:
        if path.suffix.lower() in _HEIF_SUFFIXES and not register_heif():
            raise PhotoError(f"{path}: to read HEIC photos, install pillow-heif") from None
        if _is_picture_name(path):
            raise PhotoError(f"{path}: named like a picture, but its content is none") from None
        raise _other_kind(path) from None
    except Exception as error:
        raise _told(path, error) from error
    if is_reduced(image) or (image.format == "TIFF" and is_raw_name(path.name)):
        raise _other_kind(path, raw=True)
    return image


def _other_kind(path: Path, raw: bool = False) -> NotAPictureError:
    """The error of a file that is no picture, or a camera's raw file, whatever it is named."""
    if raw or is_raw_name(path.name):
        message = f"{path}: a raw file of a camera; export it as JPEG"
        return NotAPictureError(message, "raw file")
    if path.suffix.lower() in _VIDEO_SUFFIXES:
        return NotAPictureError(f"{path}: a video, not a picture", "video")
    return NotAPictureError(f"{path}: not a picture")


def _told(path: Path, error: Exception) -> Exception:
    """The error of a decoder for people; an error of the system is left as it is."""
    if isinstance(error, TooManyPixelsError):
        return PhotoError(f"{path}: too many pixels; scale it down to index it")
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return PhotoError(f"{path}: broken picture ({error})")


def _taken_ns(image: Image.Image) -> int | None:
    """`Photo.taken_ns` of a picture that is opened, but not decoded."""
    if image.format == "PNG" and "exif" not in image.info:
        return None  # Pillow would decode the pixels to look for EXIF data behind them
    try:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:
        return None  # broken EXIF data raises any kind of error
    for tag in _DATES:
        taken_ns = _nanoseconds(tags.get(tag))
        if taken_ns is not None:
            return taken_ns
    return None


def _nanoseconds(date: object) -> int | None:
    """A date of EXIF in nanoseconds since 1970, None for anything else."""
    found = _DATE.match(date) if isinstance(date, str) else None
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    if not 1800 <= year < 2200:  # beyond 64 bits of nanoseconds, or nearly
        return None
    try:
        # Hour 24 is the midnight that ends a day, second 60 a leap second.
        taken = datetime(year, month, day, 0 if hour == 24 else hour, minute, min(second, 59))
    except ValueError:
        return None
    return (taken + timedelta(days=hour == 24) - _EPOCH) // timedelta(microseconds=1) * 1000
