"""`waldo remove` and `waldo compact`: what they remove, what they print, what they refuse."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import indexer.store.shards as shards
from features.errors import WaldoError
from indexer.errors import IndexBusyError, IndexMissingError
from indexer.reader import IndexReader
from indexer.store.locks import writer_lock
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from indexer.upkeep.remove import remove
from tests.helpers.command_line import CommandLine
from tests.helpers.stores import PixelExtractor, ids_by_recall, make_photos, rows, run


@pytest.fixture(autouse=True, scope="module")
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 5 * 2 * (4 * 4 * 6 * 2))
        yield


@pytest.fixture(scope="module")
def made(small_shards: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos, four in `sub` below them, three in `sub2`, and their index."""
    folder = tmp_path_factory.mktemp("remove") / "work"
    photos = folder / "photos"
    make_photos(photos, 4)
    make_photos(photos / "sub", 4, first=10)
    make_photos(photos / "sub2", 3, first=20)
    run(photos, folder / "index")
    return folder


def names(index: Path) -> list[str]:
    return sorted(Path(path).name for path in rows(index))


class TestRemove:
    def test_a_photo_and_a_folder(self, photos: Path, index: Path) -> None:
        before = rows(index)
        report = remove(index, [photos / "photo-001.png", photos / "sub"])
        assert (report.removed, report.total) == (5, 6)
        after = rows(index)
        assert len(after) == 6
        assert after.items() < before.items()
        assert all("/sub/" not in path for path in after)
        manifest = read_manifest(index)
        assert (manifest.n_photos, manifest.tombstones) == (6, (1, 4, 5, 6, 7))
        with IndexReader.open(index) as reader:
            assert ids_by_recall(reader) == [0, 2, 3, 8, 9, 10]
        assert verify(index) == []

    def test_by_the_name_of_a_link_and_by_what_it_leads_to(
        self, tmp_path: Path, photos: Path, index: Path
    ) -> None:
        make_photos(tmp_path / "drive" / "2024", 2, first=30)
        make_photos(photos / "Cafe\N{COMBINING ACUTE ACCENT}", 1, first=40)
        (photos / "nas").symlink_to(tmp_path / "drive")
        (photos / "favourites").symlink_to("sub")
        run(photos, index)
        assert remove(index, [photos / "favourites" / "photo-010.png"]).removed == 1
        assert remove(index, [tmp_path / "drive" / "2024" / "photo-030.png"]).removed == 1
        assert remove(index, [photos / "nas"]).removed == 1
        assert remove(index, [photos / "Caf\N{LATIN SMALL LETTER E WITH ACUTE}"]).removed == 1
        assert remove(index, [photos / "favourites"]).removed == 3

    def test_in_one_commit(self, photos: Path, index: Path) -> None:
        generation = read_manifest(index).generation
        remove(index, [photos / "photo-001.png", photos / "sub", photos / "sub" / "photo-010.png"])
        assert read_manifest(index).generation == generation + 1

    def test_photos_that_are_gone(self, photos: Path, index: Path) -> None:
        photos.rename(photos.with_name("elsewhere"))
        assert remove(index, [photos / "sub", photos / "photo-000.png"]).removed == 5

    def test_paths_from_the_working_directory(
        self, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos / "sub")
        assert remove(index, [Path("photo-010.png")]).removed == 1
        assert remove(index, [Path("../photo-000.png")]).removed == 1
        assert remove(index, [Path("../sub2/")]).removed == 3
        assert remove(index, [Path()]).removed == 3
        assert names(index) == ["photo-001.png", "photo-002.png", "photo-003.png"]

    def test_through_symbolic_links(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The index knows a source by its real name, and what lies below by the links' names."""
        make_photos(tmp_path / "far", 2, first=40)
        (photos / "linked").symlink_to(tmp_path / "far")
        (tmp_path / "way").symlink_to(photos)
        index = tmp_path / "index"
        run(tmp_path / "way", index)
        assert remove(index, [tmp_path / "way" / "linked" / "photo-040.png"]).removed == 1
        assert remove(index, [photos / "linked"]).removed == 1
        monkeypatch.chdir(tmp_path / "way" / "sub")
        assert remove(index, [Path("photo-010.png"), Path("../sub2")]).removed == 4
        with pytest.raises(WaldoError):
            remove(index, [tmp_path / "far"])  # no photo is in the index by this name

    def test_everything(self, photos: Path, index: Path) -> None:
        assert remove(index, [Path("/")]).total == 0
        with pytest.raises(IndexMissingError, match="no photo in this index"):
            IndexReader.open(index)
        assert verify(index) == []

    def test_what_matches_nothing_removes_nothing(self, photos: Path, index: Path) -> None:
        manifest = read_manifest(index)
        for wrong in (photos / "photo-099.png", photos / "su", photos / "sub" / "photo-000.png"):
            with pytest.raises(WaldoError, match=f"{wrong}: no photo .*nothing was removed"):
                remove(index, [photos / "photo-000.png", wrong])
        assert read_manifest(index) == manifest
        remove(index, [photos / "photo-000.png"])
        with pytest.raises(WaldoError, match="nothing was removed"):
            remove(index, [photos / "photo-000.png"])  # once is enough

    def test_what_is_still_there_comes_back_when_it_is_indexed(
        self, photos: Path, index: Path
    ) -> None:
        before = rows(index)
        remove(index, [photos / "sub"])
        extractor = PixelExtractor()
        report = run(photos, index, extractor)
        assert (report.new, report.unchanged, extractor.batches) == (4, 7, [])
        after = rows(index)
        assert {path: row[1:] for path, row in after.items()} == {
            path: row[1:] for path, row in before.items()
        }
        assert {row[0] for row in after.values()} == {0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14}

    def test_no_index_and_another_writer(self, photos: Path, index: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(IndexMissingError, match="no index here"):
            remove(tmp_path / "empty", [photos])
        assert list((tmp_path / "empty").iterdir()) == []
        with writer_lock(index), pytest.raises(IndexBusyError):
            remove(index, [photos])


class TestCommands:
    def test_remove(self, waldo: CommandLine, photos: Path, index: Path) -> None:
        said = waldo("remove", photos / "sub", photos / "photo-000.png", "--index", index)
        assert (said.code, said.out) == (0, f"6 photos in {index}: 5 removed\n")
        assert "come back when their SOURCE is indexed again" in said.err
        said = waldo("remove", photos / "sub2", "--index", index, "--json")
        assert json.loads(said.out) == {"index_dir": str(index), "removed": 3, "total": 3}

    def test_bad_paths(self, waldo: CommandLine, photos: Path, index: Path, tmp_path: Path) -> None:
        before = rows(index)
        line = waldo.refusal("remove", photos, photos / "nothing", "--index", index, "--json")
        assert str(photos / "nothing") in line
        assert "nothing was removed" in line
        assert rows(index) == before
        for command in (["remove", photos], ["compact"]):
            line = waldo.refusal(*command, "--index", tmp_path / "nowhere")
            assert "no index here" in line
        assert not (tmp_path / "nowhere").exists()

    def test_compact(self, waldo: CommandLine, photos: Path, index: Path) -> None:
        waldo("remove", photos / "sub", "--index", index)
        assert json.loads(waldo("info", "--index", index, "--json").out)["dead_map_rows"] == 4
        before = rows(index)
        with IndexReader.open(index):
            said = waldo("compact", "--index", index)
        assert said.code == 0
        assert f"7 photos in {index}: compacted" in said.out
        assert "3 map shards before, 2 now" in said.out
        assert "somebody has it open" in said.out
        said = waldo("compact", "--index", index)
        assert (said.code, said.out) == (0, f"7 photos in {index}: nothing to do\n")
        assert rows(index) == before
        assert json.loads(waldo("info", "--index", index, "--json").out)["dead_map_rows"] == 0

    def test_compact_json_and_lost_maps(
        self, waldo: CommandLine, photos: Path, index: Path
    ) -> None:
        (index / read_manifest(index).shards[2].name).unlink()
        said = waldo("compact", "--index", index, "--json")
        report = json.loads(said.out)
        assert report["changed"]
        assert report["lost"] == [str(photos / "sub2" / "photo-022.png")]
        assert "photo-022.png: its maps are damaged or lost; run `waldo index` again" in said.err
        assert waldo("verify", "--index", index).code == 1
        run(photos, index)
        assert waldo("verify", "--index", index).code == 0

    def test_compact_stopped_by_ctrl_c(
        self,
        waldo: CommandLine,
        photos: Path,
        index: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        remove(index, [photos / "sub"])
        before = read_manifest(index)
        files = {path for path in index.rglob("*") if path.is_file()}

        def interrupt(*arguments: object, **named: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("indexer.upkeep.compact.refresh_recall", interrupt)
        said = waldo("compact", "--index", index)
        assert (said.code, said.out) == (130, "")
        assert "run the same command again" in said.err
        assert read_manifest(index) == before
        assert {path for path in index.rglob("*") if path.is_file()} == files
        monkeypatch.undo()
        assert waldo("compact", "--index", index).code == 0
        assert verify(index) == []
