"""A manifest says what an index holds, and an index of another format is refused in one line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import IndexFormatError
from indexer.reader import IndexReader
from indexer.store import shards
from indexer.store.manifest import StoredFile, read_manifest, write_manifest
from indexer.upkeep.check import describe, verify
from indexer.upkeep.compact import compact
from tests.helpers.stores import files_of, make_photos, run

ACTIONS: list[Callable[[Path, Path], object]] = [
    lambda index, photos: IndexReader.open(index),
    lambda index, photos: describe(index),
    lambda index, photos: verify(index),
    lambda index, photos: compact(index),
    lambda index, photos: run(photos, index),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos and their index of two shards."""
    folder = tmp_path_factory.mktemp("manifest")
    make_photos(folder / "photos", 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 5 * 2 * (4 * 4 * 6 * 2))
        run(folder / "photos", folder / "index")
    return folder


def test_what_is_written_is_what_is_read(folder: Path) -> None:
    index, manifest = folder / "index", read_manifest(folder / "index")
    assert len(manifest.shards) == 2
    assert all(file.layout is not None for file in manifest.shards)
    text = (index / "manifest.json").read_text()
    write_manifest(index, manifest)
    assert (index / "manifest.json").read_text() == text
    assert read_manifest(index) == manifest


def test_layouts_are_recorded_beside_the_shards(folder: Path) -> None:
    """A Waldo that knows no layouts expects these values of a shard, and no others."""
    raw = json.loads((folder / "index" / "manifest.json").read_text())
    assert {frozenset(shard) for shard in raw["shards"]} == {
        frozenset([*StoredFile.__dataclass_fields__, "codec"])
    }
    assert list(raw["layouts"]) == [str(shard["number"]) for shard in raw["shards"]]


def test_an_index_without_layouts_is_read_checked_and_continued(
    folder: Path, tmp_path: Path
) -> None:
    """As an earlier Waldo wrote it."""
    index, photos = tmp_path / "index", tmp_path / "photos"
    shutil.copytree(folder / "index", index)
    path = index / "manifest.json"
    raw = json.loads(path.read_text())
    del raw["layouts"]
    path.write_text(json.dumps(raw))
    with IndexReader.open(folder / "index") as whole, IndexReader.open(index) as reader:
        expected, found = whole.read_maps(whole.ids), reader.read_maps(reader.ids)
        assert found.damaged == []
        np.testing.assert_array_equal(found.encoded, expected.encoded)
    assert verify(index) == []
    make_photos(photos, 1, first=20)
    assert run(photos, index).new == 1
    assert [file.layout is None for file in read_manifest(index).shards] == [True, True, False]
    assert verify(index) == []
    assert compact(index).changed
    assert all(file.layout is not None for file in read_manifest(index).shards)
    assert verify(index) == []


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
    before = files_of(index)
    try:
        words = f"{index}: the index has format {version}, this waldo reads format 2; {mend}"
        with pytest.raises(IndexFormatError, match=re.escape(words)) as caught:
            action(index, folder / "photos")
        assert "\n" not in str(caught.value)
        assert files_of(index) == before
    finally:
        path.write_text(text)
