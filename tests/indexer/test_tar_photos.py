"""Photos in tars open as files do, and nothing is unpacked."""

import hashlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.photo import is_picture, load_photo
from indexer.bucket.object_path import path_of
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.tar_photos import TarPath, files_in_tar
from tests.helpers.pictures import save_photo
from tests.helpers.tars import save_tar


def test_a_photo_in_a_tar_is_the_photo_that_was_packed(tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "0.tar", ["a.jpg", "deep/b.x.jpg"])
    unpacked = tmp_path / "unpacked"
    with tarfile.open(tar) as packed:
        packed.extractall(unpacked, filter="data")
    files = files_in_tar(tar)
    names = ["a.jpg", "a.json", "deep/b.x.jpg", "deep/b.x.json"]
    assert list(map(str, files)) == [f"{tar}/{name}" for name in names]
    for file, name in zip(files, names, strict=True):
        path, twin = path_of(str(file)), unpacked / name
        assert isinstance(path, TarPath)
        with path.open("rb") as opened:
            assert opened.read() == twin.read_bytes()
        assert path.stat().st_size == twin.stat().st_size
        assert path.stat().st_mtime_ns == tar.stat().st_mtime_ns
        assert path.is_file()
        assert path.exists()
        assert not path.is_dir()
        assert not path.is_symlink()
        assert path.resolve() == path
        assert is_picture(path) == name.endswith(".jpg")
    pixels = np.asarray(load_photo(files[2]).image)
    np.testing.assert_array_equal(pixels, np.asarray(load_photo(unpacked / names[2]).image))


def test_what_is_not_in_the_tar_is_missing(tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "0.tar", ["a.jpg"])
    missing = path_of(f"{tar}/b.jpg")
    assert not missing.exists()
    with pytest.raises(FileNotFoundError, match="no such file in the tar"):
        missing.open("rb")
    with pytest.raises(OSError, match="only read"):
        path_of(f"{tar}/a.jpg").open("wb")
    tar.unlink()
    assert not path_of(f"{tar}/a.jpg").exists()


def test_a_folder_that_is_named_like_a_tar_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.tar").mkdir()
    photo = save_photo(tmp_path / "photos.tar" / "a.jpg", 32, 24, 0)
    assert not isinstance(path_of(photo), TarPath)
    tar = save_tar(photo.parent / "0.tar", ["a.jpg"])
    assert path_of(f"{tar}/a.jpg").is_file()


def test_a_tar_that_changed_is_read_anew(tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "0.tar", ["a.jpg"])
    assert len(files_in_tar(tar)) == 2
    save_tar(tar, ["a.jpg", "b.jpg"])
    assert path_of(f"{tar}/b.jpg").is_file()


def test_of_two_files_with_one_name_the_last_counts(tmp_path: Path) -> None:
    first, last = (save_photo(tmp_path / f"{seed}.jpg", 32, 24, seed) for seed in (1, 2))
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(first, "./a.jpg")
        tar.add(last, "a.jpg")
        tar.addfile(tarfile.TarInfo("folder"), None)
    found, empty = files_in_tar(tmp_path / "0.tar")
    assert found.open("rb").read() == last.read_bytes()
    assert empty.stat().st_size == 0


def test_an_index_of_packed_photos_equals_one_of_files(
    tiny: FeatureExtractor, tmp_path: Path
) -> None:
    tar = save_tar(tmp_path / "0.tar", ["a.jpg", "b.jpg"])
    with tarfile.open(tar) as packed:
        packed.extractall(tmp_path, filter="data")
    maps = []
    for number, folder in enumerate((tar, tmp_path)):
        listing = tmp_path / f"{number}.txt"
        listing.write_text(f"{folder}/a.jpg\n{folder}/b.jpg\n")
        index_photos([listing], tmp_path / f"{number}.waldo", tiny, quality="none")
        with IndexReader.open(tmp_path / f"{number}.waldo") as reader:
            assert list(reader.paths()) == listing.read_text().split()
            maps.append(np.asarray(reader.read_maps(reader.ids).encoded))
    np.testing.assert_array_equal(*maps)


def cut_in_a_photo(content: bytes) -> bytes:
    return content[:700]


def cut_between_photos(content: bytes) -> bytes:
    """The first photo is whole, and the header of its labels follows next."""
    size = int(content[124:135], 8)
    return content[: 512 + -(-size // 512) * 512]


def spoilt_header(content: bytes) -> bytes:
    whole = len(cut_between_photos(content))
    return content[:whole] + b"?" * 512 + content[whole + 512 :]


@pytest.mark.parametrize(
    "spoil",
    [
        cut_in_a_photo,
        cut_between_photos,
        spoilt_header,
        lambda content: b"",
        lambda content: b"no tar" * 200,
    ],
)
def test_a_broken_tar_is_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    tar = save_tar(tmp_path / "0.tar", ["a.jpg", "b.jpg"])
    inside = path_of(f"{tar}/a.jpg")
    tar.write_bytes(spoil(tar.read_bytes()))
    with pytest.raises(WaldoError, match=r"0\.tar: is broken, or no tar") as raised:
        files_in_tar(tar)
    assert "\n" not in str(raised.value)
    with pytest.raises(OSError, match="the tar is broken"):
        inside.open("rb")


def test_names_that_lead_out_are_refused(tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "0.tar", ["../../../outside.jpg"])
    with pytest.raises(WaldoError, match=r"0\.tar: .*leads out of it"):
        files_in_tar(tar)


def test_a_tar_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WaldoError, match=r"0\.tar: cannot be read \(No such file"):
        files_in_tar(tmp_path / "0.tar")
    (tmp_path / "1.tar").mkdir()
    with pytest.raises(WaldoError, match=r"1\.tar: cannot be read \(Is a directory"):
        files_in_tar(tmp_path / "1.tar")


def test_nothing_is_written(tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "0.tar", ["a.jpg"])
    before = hashlib.sha256(tar.read_bytes()).digest()
    for file in files_in_tar(tar):
        file.open("rb").read()
    assert os.listdir(tmp_path) == ["0.tar"]  # noqa: PTH208
    assert hashlib.sha256(tar.read_bytes()).digest() == before
