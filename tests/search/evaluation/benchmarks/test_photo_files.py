"""Galleries of a million photos: their paths in little memory, and the order in which they lie."""

import os
from pathlib import Path

import pytest

from features.errors import WaldoError
from indexer.tar_photos import files_in_tar
from search.evaluation.benchmarks.published.photo_files import PhotoFiles, files_below
from tests.helpers.tars import save_tar


def test_paths_are_those_of_a_list() -> None:
    paths = [Path("/a/ä/0.jpg"), Path("b.jpg"), Path(os.fsdecode(b"/c/\xff.jpg")), Path("/d")]
    files = PhotoFiles(iter(paths))
    assert len(files) == 4
    assert files == paths
    assert files != paths[:3]
    assert [files[place] for place in range(-4, 4)] == paths * 2
    assert files[1:] == paths[1:]
    assert files[::-2] == paths[::-2]
    assert files.index(paths[2]) == 2
    with pytest.raises(IndexError):
        files[4]
    assert not PhotoFiles(())


def test_photos_in_tars_stay_what_they_are(tmp_path: Path) -> None:
    tar = save_tar(tmp_path / "0.tar", ["deep/a.jpg"])
    files = files_in_tar(tar)
    assert [file.read_bytes() for file in PhotoFiles(files)] == [
        file.read_bytes() for file in files
    ]


def test_files_are_listed_as_pathlib_sorts_them(tmp_path: Path) -> None:
    names = [
        "b/1.jpg",
        "b/0/2.jpg",
        "b-c/3.jpg",
        "b.jpg",
        "a/x.png",
        "a/y.JPG",
        "a/é.jpg",
        "z/q.jpg",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = sorted(tmp_path.rglob("*.jpg"))
    assert len(expected) == 6
    assert list(map(Path, files_below(tmp_path, ".jpg"))) == expected


def test_linked_folders_are_listed_but_no_circle_of_links(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other" / "disk"
    for path in (root / "a" / "1.jpg", other / "2.jpg"):
        path.parent.mkdir(parents=True)
        path.touch()
    (root / "b").symlink_to(other)
    expected = [str(root / "a" / "1.jpg"), str(root / "b" / "2.jpg")]
    assert list(files_below(root)) == expected
    (root / "a" / "again").symlink_to(root)
    (other / "itself").symlink_to(other)
    (other / "above").symlink_to(other.parent)
    (other / "back").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "unplugged")
    assert list(files_below(root, ".jpg")) == expected


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    with pytest.raises(WaldoError, match="gone: cannot be listed"):
        list(files_below(tmp_path / "gone", ".jpg"))
