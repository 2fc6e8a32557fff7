"""A manifest says what an index holds, and an index of another format is refused in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.errors import IndexFormatError
from indexer.reader import IndexReader
from indexer.upkeep.check import describe, verify
from indexer.upkeep.compact import compact
from tests.helpers.stores import make_photos, run

ACTIONS: list[Callable[[Path, Path], object]] = [
    lambda index, photos: IndexReader.open(index),
    lambda index, photos: describe(index),
    lambda index, photos: verify(index),
    lambda index, photos: compact(index),
    lambda index, photos: run(photos, index),
]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos and their index."""
    folder = tmp_path_factory.mktemp("manifest")
    make_photos(folder / "photos", 3)
    run(folder / "photos", folder / "index")
    return folder


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("version", "mend"),
    [(0, "index the photos again into a new folder"), (1, "index the photos"), (3, "update waldo")],
)
def test_other_formats_are_refused_and_left_alone(
    folder: Path, action: Callable[[Path, Path], object], version: int, mend: str
) -> None:
    index = folder / "index"
    path = index / "manifest.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"format": version}))
    before = content(index)
    try:
        words = f"{index}: the index has format {version}, this waldo reads format 2; {mend}"
        with pytest.raises(IndexFormatError, match=re.escape(words)) as caught:
            action(index, folder / "photos")
        assert "\n" not in str(caught.value)
        assert content(index) == before
    finally:
        path.write_text(text)
