"""Albums that fill themselves: the same whatever the order in which photos come and go."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import search.albums.comparing as comparing
from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.named_objects import NamedObject
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest, write_manifest
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from indexer.upkeep.naming import forget_object, name_object, rename_object
from indexer.upkeep.remove import remove
from search import Query, SearchOptions, open_index
from search.albums.album import Album, read_album, read_albums
from search.albums.contents import Contents
from search.albums.filling import fill_albums
from tests.conftest import DEMO
from tests.helpers.names import keep_name, named_view
from tests.helpers.pictures import save_photo
from tests.helpers.stores import PixelExtractor, make_photos

NAMES = ("Rex", "Max", "Tom")


def albums_of(index: Path) -> dict[str, Album]:
    with IndexReader.open(index) as reader:
        return read_albums(reader)


def afresh(index: Path) -> dict[str, Album]:
    """The albums of a copy of an index that had none."""
    copy = index.with_name("afresh")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(index, copy)
    write_manifest(copy, replace(read_manifest(copy), albums=None))
    fill_albums(copy)
    return albums_of(copy)


def assert_same(found: dict[str, Album], expected: dict[str, Album]) -> None:
    """The same photos, decisions and boxes; numbers but for what the order of sums changes."""
    assert found.keys() == expected.keys()
    for name, album in found.items():
        others = expected[name].photos
        numbers = [(one.score, one.probability or 0.0) for one in album.photos]
        np.testing.assert_allclose(
            numbers, [(one.score, one.probability or 0.0) for one in others], atol=1e-5
        )
        assert [replace(one, score=0, probability=None) for one in album.photos] == [
            replace(one, score=0, probability=None) for one in others
        ]
        assert (album.waiting, album.threshold) == (0, None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    make_photos(folder, 30)
    return folder


@pytest.fixture
def index(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of 30 photos that knows three names; most photos are compared by their maps."""
    monkeypatch.setattr(comparing, "_NEAR", 0.1)
    directory = tmp_path / "index"
    index_photos([photos], directory, PixelExtractor(), batch_size=8)
    for number, name in enumerate(NAMES):
        views = (named_view(photos / f"photo-{number:03}.png"),)
        keep_name(directory, NamedObject(name, views, (named_view(photos / "photo-009.png", 0),)))
    fill_albums(directory)
    return directory


def test_photos_that_come_and_go_in_ten_runs_give_what_one_run_gives(
    index: Path, photos: Path
) -> None:
    rng = np.random.default_rng(3)
    for turn in range(10):
        make_photos(photos, 6, first=40 + 6 * turn)
        shutil.copy(photos / f"photo-{40 + 6 * turn:03}.png", photos / f"copy-{turn}.png")
        victims = rng.choice(sorted(photos.iterdir()), 3, replace=False)
        Path(victims[0]).unlink()
        Path(victims[1]).rename(photos / f"moved-{turn}.png")
        save_photo(Path(victims[2]), 50, 40, seed=1000 + turn)
        index_photos([photos], index, PixelExtractor(), batch_size=8)
        fill_albums(index)
        if turn == 5:
            remove(index, [photos / f"copy-{turn}.png"])
            compact(index)
            index_photos([photos], index, PixelExtractor(), batch_size=8)
            fill_albums(index)
        assert_same(albums_of(index), afresh(index))
    assert verify(index) == []
    assert sum(len(album.photos) for album in albums_of(index).values()) > 10


def test_nothing_is_done_twice_and_nothing_without_names(
    index: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_manifest(index)
    assert fill_albums(index) == 0
    assert read_manifest(index) == before
    make_photos(photos, 1, first=50)
    index_photos([photos], index, PixelExtractor(), batch_size=8)
    with IndexReader.open(index) as reader:
        assert read_album(reader, "Rex").waiting == 1
    assert fill_albums(index) == len(NAMES)
    for name in NAMES:
        forget_object(index, name)
    assert read_manifest(index).albums is None
    monkeypatch.setattr(Contents, "of", None)
    assert fill_albums(index) == 0
    assert list(index.glob("albums-*")) == []


def test_an_album_is_lost_with_its_name_and_moves_with_it(index: Path) -> None:
    before = albums_of(index)
    rename_object(index, "Rex", "Roy")
    after = albums_of(index)
    assert after["Roy"].photos == before["Rex"].photos
    assert fill_albums(index) == 0
    forget_object(index, "Roy")
    assert sorted(albums_of(index)) == ["Max", "Tom"]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"x" * 5000)])
def test_a_lost_file_of_albums_is_made_again(index: Path, photos: Path, harm: object) -> None:
    before, record = albums_of(index), read_manifest(index).albums
    assert record is not None
    harm(index / record.name)  # type: ignore[operator]
    [problem] = verify(index)
    assert "run `waldo index` again" in problem
    for name, album in albums_of(index).items():
        assert [photo.id for photo in album.photos] == [NAMES.index(name)]  # as it was named
    index_photos([photos], index, PixelExtractor(), batch_size=8)
    fill_albums(index)
    assert albums_of(index) == before
    assert verify(index) == []


def test_albums_hold_what_a_search_by_the_name_finds(
    small_tiny: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fewer than 20 photos no match asks with, so that a search scores by the name alone."""
    index_photos(
        sorted((DEMO / "photos").iterdir())[:19], tmp_path / "index", small_tiny, batch_size=4
    )
    with open_index(tmp_path / "index", device="cpu") as opened:
        [record] = opened.reader.photos([9])
        asked = Query(
            DEMO / "query" / "cat.jpg",
            box=(172.0, 31.0, 333.0, 164.0),
            also=(Query(DEMO / "photos" / "050.jpg", box=(20.0, 20.0, 180.0, 180.0)),),
            unlike=(Query(record.path, box=(30.0, 30.0, 120.0, 150.0)),),
        )
        named = opened.object_named("Tom", asked)
        name_object(tmp_path / "index", named, opened.reader.fingerprint)
    monkeypatch.setattr(comparing, "_NEAR", 0.0)
    monkeypatch.setattr(FeatureExtractor, "extract", None)
    # Albums open no photo, so their boxes are those of cells.
    monkeypatch.setattr("search.index.fit_boxes", lambda *given: given[-1])
    fill_albums(tmp_path / "index", "cpu")
    with open_index(tmp_path / "index", device="cpu") as opened:
        matches = {m.id: m for m in opened.search(Query(Path("@Tom")), SearchOptions()).matches}
        album = read_album(opened.reader, "Tom")
    assert len(album.photos) == 19
    for photo in album.photos:
        if photo.id == 9:
            continue  # it is not told apart from itself
        assert photo.score == pytest.approx(matches[photo.id].score, abs=1e-6)
        assert photo.box == matches[photo.id].box
        assert photo.probability is None
    assert read_albums_is_sorted(album)


def read_albums_is_sorted(album: Album) -> bool:
    scores = [photo.score for photo in album.photos]
    return scores == sorted(scores, reverse=True)
