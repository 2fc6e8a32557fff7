"""Decoding pictures: upright, in sRGB, whatever their format and metadata.

Only what changes the pixels is taken from a file's metadata: its orientation, colour profile and
transparency. Broken metadata never costs a picture.
"""

import io
from functools import cache
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

# The formats that Pillow decodes itself; EPS is left out, because it would start an interpreter.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "TGA", "HEIF",
)  # fmt: skip

# The most pixels that are decoded, as Pillow has it; as RGB they take half a gigabyte.
MOST_PIXELS = 2 * 89_478_485

# Tags of TIFF: the orientation; bit 0, a reduced copy; where other pictures lie; DNG's version.
_ORIENTATION_TAG, _KIND_TAG, _OTHERS_TAG, _DNG_TAG = 0x0112, 0x00FE, 0x014A, 0xC612
_WIDTH_TAG, _HEIGHT_TAG = 0x0100, 0x0101
# How a stored picture is turned upright, by EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
# What may tell its orientation: chunks, and their names in Pillow's `info`.
_PNG_METADATA = frozenset((b"eXIf", b"tEXt", b"zTXt", b"iTXt"))
_PNG_TURNS = frozenset(("exif", "Raw profile type exif", "XML:com.adobe.xmp"))
# What a PNG is read by if it cannot be read as it is: without texts, and then with nothing else.
_PNG_CHUNKS = (_PNG_PIXELS | {b"iCCP", b"eXIf"}, _PNG_PIXELS)

# Bits per pixel of cameras, scanners and files: the fewest that hold the brightest pixel are white.
_DEPTHS = (8, 10, 12, 14, 16)


class TooManyPixelsError(ValueError):
    """A picture has more pixels than are decoded."""


def open_picture(file: BinaryIO) -> Image.Image:
    """The picture in an open file, of which only the header is read.

    Raises TooManyPixelsError, PIL.UnidentifiedImageError, and whatever a decoder raises.
    """
    try:
        return Image.open(file, formats=_formats())
    except Image.DecompressionBombError:
        pass
    # A JPEG is judged once it is known how small it is decoded.
    file.seek(0)
    try:
        return JpegImageFile(file)
    except SyntaxError:
        raise TooManyPixelsError("too many pixels") from None


def is_reduced(image: Image.Image) -> bool:
    """Whether an opened picture is a TIFF that holds another, larger one: as raw files do, whose
    first picture is a thumbnail.
    """
    tags = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and (
        _DNG_TAG in tags or bool(tags.get(_KIND_TAG, 0) & 1 and _OTHERS_TAG in tags)
    )


def upright_picture(
    image: Image.Image, at_least: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """An opened picture, decoded and turned upright, in the mode and with the profile that it has;
    and the upright width and height of the file.

    at_least: as in `photo.load_photo`. Raises TooManyPixelsError, and whatever a decoder raises.
    """
    width, height = image.size
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    # All coefficients of a progressive JPEG are in memory, however small it is decoded.
    decoded = (width, height) if image.info.get("progressive") else image.size
    if decoded[0] * decoded[1] > MOST_PIXELS:
        raise TooManyPixelsError("too many pixels")
    if image.format == "PNG":
        image.load()  # its EXIF data may lie behind the pixels
    orientation = _orientation(image)
    image.load()
    if image.format == "TIFF":
        return image, image.size  # Pillow has turned it
    upright = image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
    return upright, (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """The upright width and height of an opened picture, as `upright_picture` gives them.

    Pixels are decoded only where metadata of a PNG lies behind them. Raises whatever a decoder
    raises.
    """
    width, height = image.size
    if isinstance(image, TiffImageFile):
        # As stored: whether Pillow has turned the size by now depends on its version.
        width, height = image.tag_v2[_WIDTH_TAG], image.tag_v2[_HEIGHT_TAG]
    if isinstance(image, PngImageFile) and not _PNG_TURNS & image.info.keys():
        if not _ends_with_metadata(image):
            return width, height
        image.load()
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _ends_with_metadata(png: PngImageFile) -> bool:
    """Whether anything that may tell an orientation lies behind the pixels of an opened PNG, whose
    chunks are passed over unread.
    """
    file = png.fp
    assert file is not None  # it is open
    before = file.tell()
    file.seek(len(_PNG_SIGNATURE))
    names = []
    while len(head := file.read(8)) == 8:
        names.append(head[4:])
        file.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    file.seek(before)
    behind = names[names.index(b"IDAT") :] if b"IDAT" in names else []
    return not _PNG_METADATA.isdisjoint(behind)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture, 1 where it says none.

    The picture forgets its other tags: as Pillow decodes a TIFF, it turns it upright, and fails
    there where any tag is malformed.
    """
    try:
        exif = image.getexif()
        for tag in set(exif) - {_ORIENTATION_TAG}:
            del exif[tag]
        return int(exif.get(_ORIENTATION_TAG, 1))
    except Exception:
        return 1  # broken EXIF data raises any kind of error


def essential_pngs(file: BinaryIO) -> list[BinaryIO]:
    """The PNG in an open file without its texts, and with its pixels alone; none for other formats.

    Pillow refuses a PNG for a text that is too long, or for a wrong checksum of any chunk.
    """
    file.seek(0)
    if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
        return []
    data = file.read()
    chunks: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at:end]))
        at = end
    return [
        io.BytesIO(_PNG_SIGNATURE + b"".join(chunk for name, chunk in chunks if name in names))
        for names in _PNG_CHUNKS
    ]


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB over white, by the embedded colour profile if there is one."""
    image = eight_bits(image)
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


def eight_bits(image: Image.Image) -> Image.Image:
    """A greyscale picture of more than 8 bits, or of floating point, in 8 bits; others as they are.

    White is the most that the bits in use can hold: of 16 bits a camera may use 12. Numbers that
    are negative, fractional or beyond 16 bits have no white of their own: the least of the picture
    becomes black, and the most becomes white.
    """
    if not image.mode.startswith("I") and image.mode != "F":
        return image
    values = np.nan_to_num(
        np.asarray(image).astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0
    )
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0.0 and high < 2 ** _DEPTHS[-1]:
        low, high = 0.0, next(2.0**bits - 1 for bits in _DEPTHS if high < 2**bits)
    values -= low
    values *= 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


def _convert_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by an embedded ICC profile, or plainly where none can be used."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except Exception:
            # Broken profiles are common, and so are profiles for another colour space.
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


@cache
def register_heif() -> bool:
    """Let Pillow read HEIC if pillow-heif is installed, and return whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@cache
def _formats() -> tuple[str, ...]:
    register_heif()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
