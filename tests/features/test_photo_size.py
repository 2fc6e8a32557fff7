"""The size of a photo is read from its header, and is that of the decoded photo."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from features.errors import NotAPictureError, PhotoError, UnreadableError
from features.photo import load_photo, photo_size
from tests.helpers.pictures import smooth_pixels

# Formats that hold an EXIF orientation.
TURNED = ("jpg", "png", "webp", "tif", "avif")


def save(path: Path, orientation: int = 1, **more: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth_pixels(90, 60)).save(path, exif=exif, **more)
    return path


def decoded_size(path: Path) -> tuple[int, int]:
    photo = load_photo(path)
    return photo.width, photo.height


@pytest.fixture
def without_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[int, int]]:
    """The size, where no pixel may be decoded for it."""

    def size(path: Path) -> tuple[int, int]:
        with monkeypatch.context() as patched:
            patched.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("pixels decoded"))
            return photo_size(path)

    return size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", TURNED)
def test_it_is_the_size_of_the_upright_photo(
    tmp_path: Path,
    suffix: str,
    orientation: int,
    without_decoding: Callable[[Path], tuple[int, int]],
) -> None:
    path = save(tmp_path / f"photo.{suffix}", orientation)
    assert photo_size(path) == decoded_size(path)
    if suffix in ("jpg", "png"):
        assert without_decoding(path) == decoded_size(path)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "ppm", "jp2", "tga", "png", "jpg", "webp"])
def test_photos_without_orientation(
    tmp_path: Path, suffix: str, without_decoding: Callable[[Path], tuple[int, int]]
) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(smooth_pixels(90, 60)).save(path)
    assert without_decoding(path) == (90, 60) == decoded_size(path)


def test_metadata_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    """The eXIf chunk is moved to the end, where a PNG may have it too."""
    content = save(tmp_path / "before.png", 6).read_bytes()
    at = content.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(content[at : at + 4], "big")
    chunk, rest = content[at:end], content[:at] + content[end:]
    close = rest.index(b"IEND") - 4
    path = tmp_path / "behind.png"
    path.write_bytes(rest[:close] + chunk + rest[close:])
    assert photo_size(path) == (60, 90) == decoded_size(path)


def test_a_png_that_is_refused_for_its_texts_has_a_size(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("note", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    path = tmp_path / "long.png"
    Image.fromarray(smooth_pixels(90, 60)).save(path, pnginfo=texts)
    assert photo_size(path) == (90, 60) == decoded_size(path)


def test_broken_pixels_do_not_matter(tmp_path: Path) -> None:
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(content.getvalue()[:2000])
    assert photo_size(path) == (600, 400)
    with pytest.raises(PhotoError):
        load_photo(path)


def test_what_is_no_photo_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    with pytest.raises(NotAPictureError):
        photo_size(text)
    (tmp_path / "named.jpg").write_text("no picture")
    with pytest.raises(PhotoError, match="named like a picture"):
        photo_size(tmp_path / "named.jpg")
    with pytest.raises(UnreadableError):
        photo_size(tmp_path / "missing.jpg")
