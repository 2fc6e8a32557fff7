"""Galleries of a million photos: their paths in little memory, and the order in which they lie."""

import os
from pathlib import Path

import pytest

from features.errors import WaldoError
from search.evaluation.benchmarks.published.photo_files import PhotoFiles, files_below


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
    # A circle of links ends nothing.
    (tmp_path / "z" / "again").symlink_to(tmp_path)
    assert list(map(Path, files_below(tmp_path, ".jpg"))) == expected


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    with pytest.raises(WaldoError, match="gone: cannot be listed"):
        list(files_below(tmp_path / "gone", ".jpg"))
