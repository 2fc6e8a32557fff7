"""What a reader says of the index that it opened."""

from pathlib import Path

import pytest

from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from tests.helpers.pictures import save_photo
from tests.helpers.stores import PixelExtractor


@pytest.mark.parametrize("collide", [False, True])
def test_paths_are_in_the_order_of_the_ids_without_deleted_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collide: bool
) -> None:
    if collide:
        monkeypatch.setattr("indexer.store.photos._path_key", lambda path: 7)
    photos, index = tmp_path / "photos", tmp_path / "index"
    for folder in ("a", "b"):
        (photos / folder).mkdir(parents=True)
    for number, name in enumerate(("b/2.png", "a/1.png", "a/3.png", "c.png")):
        save_photo(photos / name, 40, 30, seed=number)
    index_photos([photos], index, PixelExtractor(), batch_size=2)
    (photos / "a/1.png").unlink()
    index_photos([photos], index, PixelExtractor(), batch_size=2)
    with IndexReader.open(index) as reader:
        paths = list(reader.paths())
        left = ("a/3.png", "b/2.png", "c.png")
        assert sorted(paths) == [str(photos / name) for name in left]
        records = reader.photos(reader.ids)
        assert paths == [str(record.path) for record in records]
        asked = [paths[2], str(photos / "a/1.png"), *paths]
        assert reader.with_paths(asked).tolist() == [reader.ids[2], -1, *reader.ids]
        assert len(reader.with_paths([])) == 0
        assert [record.taken_ns for record in records] == [None, None, None]


def test_a_reader_knows_whether_a_writer_has_committed_since(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    save_photo(photos / "1.png", 40, 30, seed=1)
    index_photos([photos], index, PixelExtractor(), batch_size=2)
    with IndexReader.open(index) as reader:
        assert reader.is_current()
        save_photo(photos / "2.png", 40, 30, seed=2)
        index_photos([photos], index, PixelExtractor(), batch_size=2)
        assert not reader.is_current()
