"""Reading photos of any format as upright sRGB pictures.

The format is detected from the content, not from the name: a file named .txt may be a JPEG. The
EXIF orientation is applied, embedded colour profiles are converted to sRGB, transparent parts
become white, and an animation gives its first frame.
"""

import hashlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from features.errors import NotAPictureError, PhotoError
from features.frame import Frame

# The formats that Pillow decodes itself; EPS is left out, because it would start an interpreter.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "TGA", "HEIF",
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """An upright sRGB photo.

    path: the file. content_hash: SHA-256 of the file's bytes, hexadecimal.
    width, height: size of the upright photo in pixels, as stored in the file.
    image: Pillow RGB image of that size, or decoded smaller (see `load_photo`).
    taken_ns: the date taken from the EXIF data, in nanoseconds since 1970; the camera's clock is
    read as UTC where the file has no offset. None where the file has no date.
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


def load_photo(path: Path, at_least: int | None = None) -> Photo:
    """Read a photo upright, in sRGB, without transparency.

    at_least: the decoder may return a smaller image whose longer side has at least this many
    pixels, which makes JPEGs several times faster; width and height remain those of the file. None
    decodes all pixels.

    Raises NotAPictureError where neither the content nor the name is that of a picture, PhotoError
    where the content cannot be decoded or has too many pixels, OSError where the file cannot be
    read.
    """
    with path.open("rb") as file:
        image = _identify(path, file)
        taken_ns = _taken_ns(image)
        try:
            stored_width, stored_height = image.size
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            upright = ImageOps.exif_transpose(image)
            # exif_transpose keeps the profile and the transparency, which are handled next.
            rgb = _to_srgb(upright)
        except Image.DecompressionBombError:
            raise PhotoError(_TOO_LARGE.format(path)) from None
        except Exception as error:
            raise PhotoError(f"{path}: broken picture ({error})") from error
        file.seek(0)
        content_hash = hashlib.file_digest(file, "sha256").hexdigest()
    turned = image.getexif().get(_ORIENTATION_TAG) in (5, 6, 7, 8)
    width, height = (stored_height, stored_width) if turned else (stored_width, stored_height)
    return Photo(path, content_hash, width, height, rgb, taken_ns)


def date_taken(path: Path) -> int | None:
    """`Photo.taken_ns` of a file, read from its header; None for a file that is no picture.

    Raises OSError where the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            return _taken_ns(_identify(path, file))
        except PhotoError:
            return None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its content or by its name; broken pictures count.

    Reads only the header of the file.
    """
    if _is_picture_name(path):
        return True
    try:
        with path.open("rb") as file:
            _identify(path, file)
    except NotAPictureError:
        return False
    except (PhotoError, OSError):
        return True
    return True


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


_ORIENTATION_TAG = 0x0112
# EXIF tags of a date and of its offset from UTC, the most reliable first.
_DATES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.OffsetTime),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEIF_SUFFIXES = (".heic", ".heif")
_TOO_LARGE = "{}: too many pixels; scale it down to index it"


def _is_picture_name(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in _HEIF_SUFFIXES or Image.registered_extensions().get(suffix) in FORMATS


def _identify(path: Path, file: BinaryIO) -> Image.Image:
    """The picture in an open file, of which only the header is read. Raises as `load_photo`."""
    has_heif = _register_heif()
    try:
        return Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        if path.suffix.lower() in _HEIF_SUFFIXES and not has_heif:
            raise PhotoError(f"{path}: to read HEIC photos, install pillow-heif") from None
        if _is_picture_name(path):
            raise PhotoError(f"{path}: named like a picture, but its content is none") from None
        raise NotAPictureError(f"{path}: not a picture") from None
    except Image.DecompressionBombError:
        raise PhotoError(_TOO_LARGE.format(path)) from None
    except Exception as error:
        raise PhotoError(f"{path}: broken picture ({error})") from error


def _taken_ns(image: Image.Image) -> int | None:
    """`Photo.taken_ns` of a picture that is opened, but not decoded."""
    if image.format == "PNG" and "exif" not in image.info:
        return None  # Pillow would decode the pixels to look for EXIF data behind them
    try:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:
        return None  # broken EXIF data raises any kind of error
    for date_tag, offset_tag in _DATES:
        taken_ns = _nanoseconds(tags.get(date_tag), tags.get(offset_tag))
        if taken_ns is not None:
            return taken_ns
    return None


def _nanoseconds(date: object, offset: object) -> int | None:
    """Nanoseconds since 1970 of "2024:05:31 18:00:00" with "+02:00", None for anything else."""
    if not isinstance(date, str):
        return None
    try:
        taken = datetime.strptime(date.strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    if not 1800 <= taken.year < 2200:  # beyond 64 bits of nanoseconds, or nearly
        return None
    try:
        zone = datetime.strptime(str(offset).strip("\0 "), "%z").tzinfo
        taken = taken.replace(tzinfo=zone)
    except ValueError:
        pass  # no offset, or a blank one
    return (taken - _EPOCH) // timedelta(microseconds=1) * 1000


@cache
def _register_heif() -> bool:
    """Let Pillow read HEIC if pillow-heif is installed, and return whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB over white, by the embedded colour profile if there is one."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        colour = _convert_profile(rgba.convert("RGB"), profile)
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(colour, (0, 0), rgba.getchannel("A"))
        return white
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    return _convert_profile(image, profile)


def _convert_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by an embedded ICC profile, or plainly where none can be used."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            # Broken profiles are common, and so are profiles for another colour space.
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert greyscale of 16 or 32 bits, or of floating point, to 8 bits."""
    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) * (255.0 / (high - low)) if high > low else values * 0.0
    else:
        scaled = values / 257.0 if values.max() > 255 else values
    return Image.fromarray(np.clip(np.round(scaled), 0, 255).astype(np.uint8))
