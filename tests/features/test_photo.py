"""Photos of every format are read as upright sRGB, or refused with a clear error."""

import errno
import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from features.errors import NotAPictureError, PhotoError, UnreadableError
from features.photo import is_picture, load_model_input, load_photo, to_model_input
from features.picture import MOST_PIXELS
from tests.helpers.pictures import save_photo, smooth_pixels

# How a stored picture must be turned to stand upright, by EXIF orientation, as numpy does it.
STORED_FROM_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return np.asarray(load_photo(path).image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_stands_upright(tmp_path: Path, orientation: int) -> None:
    upright = smooth_pixels(90, 60)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright))
    path = tmp_path / "turned.png"
    Image.fromarray(stored).save(path, exif=exif)

    photo = load_photo(path)

    assert (photo.width, photo.height) == (90, 60)
    np.testing.assert_array_equal(np.asarray(photo.image), upright)


def test_turned_jpeg_decoded_small_keeps_the_files_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.rot90(smooth_pixels(800, 1600), 1)).save(path, exif=exif, quality=95)

    small = load_photo(path, at_least=128)

    assert (small.width, small.height) == (800, 1600)
    assert small.image.height < 1600
    assert small.image.height > small.image.width
    full = to_model_input(load_photo(path), 64, 8).pixels.astype(float)
    assert np.abs(to_model_input(small, 64, 8).pixels - full).mean() < 2.0


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_a_malformed_tag_costs_neither_photo_nor_orientation(tmp_path: Path, suffix: str) -> None:
    """A zero denominator: Pillow reads it, and cannot write it when it turns the picture itself."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = TiffImagePlugin.IFDRational(72, 1)
    path = tmp_path / f"turned.{suffix}"
    stored = np.ascontiguousarray(STORED_FROM_UPRIGHT[6](smooth_pixels(60, 90)))
    Image.fromarray(stored).save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    data = path.read_bytes()
    assert any(struct.pack(order + "II", 72, 1) in data for order in "<>")
    for order in "<>":
        data = data.replace(struct.pack(order + "II", 72, 1), bytes(8))
    if suffix == "png":
        data = with_right_checksums(data)
    path.write_bytes(data)

    photo = load_photo(path)

    assert (photo.width, photo.height) == (60, 90) == photo.image.size
    difference = np.asarray(photo.image).astype(int) - smooth_pixels(60, 90)
    assert np.abs(difference).mean() < 3.0


def chunks_of(png: bytes) -> list[tuple[bytes, bytes]]:
    """The names and contents of a PNG's chunks."""
    found, at = [], 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]], wrong: bytes = b"") -> bytes:
    """A PNG of some chunks; those named `wrong` get a wrong checksum."""
    png = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        checksum = zlib.crc32(name + content) ^ (name == wrong)
        png += struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
    return png


def with_right_checksums(png: bytes) -> bytes:
    return png_of(chunks_of(png))


def test_metadata_never_costs_a_png(tmp_path: Path) -> None:
    """Texts and profiles that inflate to more than a mebibyte, and wrong checksums of chunks."""
    pixels, path = smooth_pixels(48, 32), tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(path, exif=exif, icc_profile=swapped_primaries_profile())
    plain, upright = chunks_of(path.read_bytes()), pixels_of(path)
    assert not np.array_equal(upright, pixels[::-1, ::-1])  # the profile counts
    long = zlib.compress(b"x" * 2**21)
    text = (b"zTXt", b"prompt\0\0" + long)
    for png in (
        png_of([plain[0], text, *plain[1:]]),
        png_of([*plain[:-1], text, plain[-1]]),  # behind the pixels
        png_of([plain[0], (b"tEXt", b"a\0b"), *plain[1:]], wrong=b"tEXt"),
        png_of([plain[0], (b"pHYs", b"short"), *plain[1:]]),
    ):
        path.write_bytes(png)
        photo = load_photo(path)
        np.testing.assert_array_equal(np.asarray(photo.image), upright)
        assert photo.content_hash == hashlib.sha256(png).hexdigest()
    without = [chunk for chunk in plain if chunk[0] not in (b"iCCP", b"eXIf")]
    for png in (
        png_of([without[0], (b"iCCP", b"huge\0\0" + long), *without[1:]]),
        png_of([without[0], (b"eXIf", b"MM"), *without[1:]], wrong=b"eXIf"),
    ):
        path.write_bytes(png)
        np.testing.assert_array_equal(pixels_of(path), pixels)
    path.write_bytes(png_of([plain[0], text, *plain[1:]])[:-500])
    with pytest.raises(PhotoError, match="broken picture"):
        load_photo(path)


def swapped_primaries_profile() -> bytes:
    """A minimal ICC profile of sRGB-like primaries with red and blue exchanged."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(fixed(value) for value in values)

    red, green, blue = (0.436, 0.222, 0.014), (0.385, 0.717, 0.097), (0.143, 0.061, 0.714)
    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(*blue),
        b"gXYZ": xyz(*green),
        b"bXYZ": xyz(*red),
        b"rTRC": gamma,
        b"gTRC": gamma,
        b"bTRC": gamma,
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = struct.pack(">I", start + len(body))
    header = size + b"\0" * 4 + b"\x02\x10\0\0" + b"mntrRGB XYZ " + b"\0" * 12 + b"acsp"
    header += b"\0" * 28 + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return header.ljust(128, b"\0") + table + body


def test_colour_profile_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "profile.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path, icc_profile=swapped_primaries_profile())
    np.testing.assert_allclose(pixels_of(path)[0, 0], (0, 0, 255), atol=8)


def test_unusable_colour_profile_keeps_the_pixels(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (lab, b"not a profile"):
        path = tmp_path / "wrong.png"
        Image.new("RGB", (8, 8), (10, 200, 30)).save(path, icc_profile=profile)
        np.testing.assert_array_equal(pixels_of(path)[0, 0], (10, 200, 30))


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    path = tmp_path / "alpha.png"
    picture = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    picture.putpixel((0, 0), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 128))
    picture.save(path)
    pixels = pixels_of(path)
    np.testing.assert_array_equal(pixels[0, 0], (255, 255, 255))
    np.testing.assert_allclose(pixels[0, 1], 127, atol=1)
    np.testing.assert_array_equal(pixels[1, 3], (255, 0, 0))


def test_palette_with_transparent_index(tmp_path: Path) -> None:
    path = tmp_path / "palette.gif"
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 255, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    picture.save(path, transparency=0)
    np.testing.assert_array_equal(pixels_of(path)[0], [(255, 255, 255), (0, 255, 0)])


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("LA", (50, 255), (50, 50, 50)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 32896, (128, 128, 128)),
        ("F", 3.5, (0, 0, 0)),
    ],
)
def test_modes(tmp_path: Path, mode: str, colour: object, expected: tuple[int, ...]) -> None:
    path = tmp_path / "mode.tiff"
    Image.new(mode, (6, 4), colour).save(path)
    np.testing.assert_allclose(pixels_of(path), np.broadcast_to(expected, (4, 6, 3)), atol=1)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    first, second = Image.new("RGB", (5, 5), (255, 0, 0)), Image.new("RGB", (5, 5), (0, 0, 255))
    first.save(path, save_all=True, append_images=[second])
    np.testing.assert_array_equal(pixels_of(path)[2, 2], (255, 0, 0))


def test_the_format_is_detected_from_the_content_not_from_the_name(tmp_path: Path) -> None:
    picture = save_photo(tmp_path / "real.png")
    disguised = picture.rename(tmp_path / "notes.txt")
    assert load_photo(disguised).width == 96
    (tmp_path / "readme.md").write_text("words")
    with pytest.raises(NotAPictureError):
        load_photo(tmp_path / "readme.md")
    (tmp_path / "broken.jpg").write_text("words")
    with pytest.raises(PhotoError, match=r"broken\.jpg"):
        load_photo(tmp_path / "broken.jpg")


def test_files_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    # Formats that Pillow reads and Waldo does not are not broken pictures.
    for name in ("paper.pdf", "drawing.eps", "film.mpg", "table.h5"):
        (tmp_path / name).write_bytes(b"%PDF-1.4 words")
        assert not is_picture(tmp_path / name)
        with pytest.raises(NotAPictureError):
            load_photo(tmp_path / name)
    assert is_picture(save_photo(tmp_path / "photo.png").rename(tmp_path / "photo"))


def test_truncated_picture_is_an_error(tmp_path: Path) -> None:
    whole = save_photo(tmp_path / "whole.jpg", 200, 150).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PhotoError, match=r"cut\.jpg: broken picture"):
        load_photo(tmp_path / "cut.jpg")


def test_a_file_that_the_system_cannot_read_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails says nothing about the photo: it is not broken."""
    for path, reason in ((tmp_path / "gone.jpg", "No such file"), (tmp_path, "directory")):
        with pytest.raises(UnreadableError, match=f"{path}: cannot be read.*{reason}"):
            load_photo(path)
    path = save_photo(tmp_path / "photo.jpg", 300, 200)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("PIL.ImageFile.ImageFile.load", fail)
        with pytest.raises(UnreadableError, match=r"photo\.jpg: cannot be read \(Input/output"):
            load_photo(path)
    assert load_photo(path).width == 300


def test_a_huge_jpeg_is_judged_as_it_is_decoded(tmp_path: Path) -> None:
    """Of more pixels than are decoded, an eighth of the sides is; all of them are refused."""
    path = tmp_path / "panorama.jpg"
    picture = Image.fromarray(smooth_pixels(60, 12).mean(axis=2).astype(np.uint8))
    picture.resize((30_000, 6_000), Image.Resampling.NEAREST).save(path, quality=50)
    assert MOST_PIXELS < 30_000 * 6_000

    photo = load_photo(path, at_least=448)

    assert (photo.width, photo.height) == (30_000, 6_000)
    assert photo.image.size == (3_750, 750)
    small = np.asarray(photo.image.resize((60, 12), Image.Resampling.BOX)).astype(int)
    assert np.abs(small[..., 0] - np.asarray(picture)).mean() < 3.0
    with pytest.raises(PhotoError, match=r"panorama\.jpg: too many pixels"):
        load_photo(path)


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u2"), (10, "u2"), (12, "u2"), (16, "u2")])
def test_grey_of_fewer_bits_than_its_numbers(tmp_path: Path, bits: int, dtype: str) -> None:
    grey = smooth_pixels(48, 32)[..., 0]
    for stretched in (grey, grey // 2 + 127):  # also where nothing is black
        most = 2**bits - 1
        values = np.round(stretched / 255.0 * most).astype(dtype)
        values[0, 0] = most  # so that all its bits are in use
        Image.fromarray(values).save(tmp_path / "grey.tiff")
        difference = pixels_of(tmp_path / "grey.tiff")[..., 0].astype(int) - stretched
        assert np.abs(difference).reshape(-1)[1:].max() <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("scale", [2**23, 1000, -3])
def test_numbers_without_a_white_of_their_own(tmp_path: Path, dtype: type, scale: int) -> None:
    """Beyond 16 bits and below zero, the range in use becomes black to white."""
    grey = smooth_pixels(48, 32)[..., 0].astype(np.float64)
    Image.fromarray((grey * scale).astype(dtype)).save(tmp_path / "grey.tiff")
    rising = (grey - grey.min()) / (grey.max() - grey.min()) * 255
    expected = rising if scale > 0 else 255 - rising
    np.testing.assert_allclose(pixels_of(tmp_path / "grey.tiff")[..., 0], expected, atol=1)


def test_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (14_000, 14_000)).save(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(PhotoError, match="too many pixels"):
        load_photo(path)


def test_heic_where_the_reader_is_installed(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC is an optional extra")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(smooth_pixels(64, 48))).save(buffer, quality=90)
    (tmp_path / "phone.heic").write_bytes(buffer.getvalue())
    difference = pixels_of(tmp_path / "phone.heic").astype(int) - smooth_pixels(64, 48)
    assert np.abs(difference).mean() < 4.0


@pytest.mark.parametrize(("width", "height"), [(96, 64), (50, 100), (300, 4), (7, 7)])
def test_model_input_holds_the_whole_photo(tmp_path: Path, width: int, height: int) -> None:
    path = save_photo(tmp_path / "photo.png", width, height)
    prepared = load_model_input(path, 64, 8)
    assert prepared.pixels.shape == (64, 64, 3)
    content_width, content_height = prepared.frame.content
    assert max(content_width, content_height) == 64
    corner = prepared.pixels[content_height - 1, content_width - 1].astype(int)
    block = -max(1, max(width, height) // 64)
    source_corner = smooth_pixels(width, height)[block:, block:].mean(axis=(0, 1))
    assert np.abs(corner - source_corner).max() < 30
    assert (prepared.pixels[content_height:] == 128).all()
    assert (prepared.pixels[:, content_width:] == 128).all()
