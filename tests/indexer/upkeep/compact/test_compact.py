"""Compacting gives back what deletions and small runs left, and changes nothing that is found."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from indexer.errors import (
    IndexBusyError,
    IndexDamagedError,
    IndexFormatError,
    IndexMissingError,
)
from indexer.reader import IndexReader
from indexer.store.locks import writer_lock
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import describe, verify
from indexer.upkeep.compact import compact
from tests.helpers.pictures import save_photo
from tests.helpers.stores import (
    PixelExtractor,
    files_of,
    flip,
    make_photos,
    rows,
    run,
)


def places(index: Path) -> dict[int, tuple[int, int, int]]:
    """Shard, row and maps_id by id, of every row of the photo table."""
    found = {}
    for file in read_manifest(index).photos:
        table = pq.read_table(index / file.name).to_pydict()
        columns = (table[name] for name in ("shard", "row", "maps_id"))
        found.update(zip(table["id"], zip(*columns, strict=True), strict=True))
    return found


def flip_maps(index: Path, photo_id: int) -> Path:
    """Change a bit in the maps of one photo; returns its shard."""
    number, row, _ = places(index)[photo_id]
    [file] = [file for file in read_manifest(index).shards if file.number == number]
    maps = pq.read_table(index / file.name).column("maps")[row].as_py()
    path = index / file.name
    flip(path, path.read_bytes().index(maps) + 7)
    return path


class TestWhatItDoes:
    def test_all_that_is_found_stays(self, index: Path, photos: Path) -> None:
        before, old = rows(index), read_manifest(index)
        assert [file.rows for file in old.shards] == [5, 5, 3, 2]
        described = describe(index)
        assert (described["dead_map_rows"], described["small_shards"]) == (3, 2)
        assert described["compact_has_work"]
        report = compact(index)
        assert rows(index) == before
        assert verify(index) == []
        new = read_manifest(index)
        assert [file.rows for file in new.shards] == [5, 5, 2]
        assert [file.rows for file in new.photos] == [8, 5]
        assert (new.tombstones, new.next_id, new.n_photos) == ((), old.next_id, 13)
        assert new.recall is not None
        assert (new.recall.file.rows, new.recall.covers) == (13, new.last_photos)
        assert (report.photos, report.changed) == (13, True)
        assert (report.shards_before, report.shards_after, report.dropped) == (4, 3, 3)
        assert report.bytes_after == sum(f.bytes for f in new.files()) < report.bytes_before
        assert (report.lost, report.in_use) == ((), False)
        named = {file.name for file in new.files()}
        assert set(files_of(index)) == {*named, "manifest.json"}
        described = describe(index)
        assert (described["dead_map_rows"], described["deleted"]) == (0, 0)
        assert not described["compact_has_work"]
        assert described["bytes"] == described["bytes_on_disk"]

    def test_nothing_to_do_writes_nothing(self, index: Path) -> None:
        compact(index)
        before = {path: path.stat().st_mtime_ns for path in index.rglob("*")}
        held = files_of(index)
        report = compact(index)
        assert (report.changed, report.dropped, report.deleted) == (False, 0, 0)
        assert files_of(index) == held
        after = {path: path.stat().st_mtime_ns for path in index.rglob("*")}
        assert after.pop(index / ".lock") >= before.pop(index / ".lock")
        assert after == before

    def test_full_shards_without_dead_rows_are_kept(self, photos: Path, index: Path) -> None:
        """Photo 1, 3, 5 and 6 lie in the first two shards; the second lost none, for a copy of 6
        still needs its maps.
        """
        first, second = (index / file.name for file in read_manifest(index).shards[:2])
        status = second.stat()
        compact(index)
        assert not first.exists()
        assert (second.stat().st_ino, second.stat().st_mtime_ns) == (
            status.st_ino,
            status.st_mtime_ns,
        )

    def test_one_small_shard_is_left_alone(self, tmp_path: Path) -> None:
        index = tmp_path / "small"
        make_photos(tmp_path / "three", 3)
        run(tmp_path / "three", index)
        assert not compact(index).changed

    def test_two_shards_that_would_still_be_two_are_left_alone(self, tmp_path: Path) -> None:
        index = tmp_path / "small"
        make_photos(tmp_path / "some", 4)
        run(tmp_path / "some", index)
        make_photos(tmp_path / "some", 3, first=10)
        run(tmp_path / "some", index)
        shards_before = read_manifest(index).shards
        assert [file.rows for file in shards_before] == [4, 3]
        assert compact(index).changed  # the photo table's two shards become one
        assert read_manifest(index).shards == shards_before
        assert not compact(index).changed

    def test_copies_go_on_sharing_maps(self, index: Path) -> None:
        before = places(index)
        compact(index)
        after = places(index)
        with IndexReader.open(index) as reader:
            ids = {record.path.name: record.id for record in reader.photos(reader.ids)}
        kept, copy = after[ids["photo-007.png"]], after[ids["photo-031.png"]]
        assert kept == copy
        lone = after[ids["photo-030.png"]]
        assert lone[2] == before[ids["photo-030.png"]][2] == 6  # the id of the deleted original
        names = {file.number: file.name for file in read_manifest(index).shards}
        for number, row, maps_id in after.values():
            assert pq.read_table(index / names[number]).column("id")[row].as_py() == maps_id

    def test_dates_are_kept(self, tmp_path: Path) -> None:
        from PIL import Image

        folder, index = tmp_path / "dated", tmp_path / "dated.waldo"
        for at, path in enumerate(make_photos(folder, 4)):
            exif = Image.Exif()
            exif.get_ifd(0x8769)[0x9003] = f"2020:01:0{at + 1} 10:00:00"
            with Image.open(path) as picture:
                picture.save(path.with_suffix(".jpg"), exif=exif)
            path.unlink()
        run(folder, index)

        def dates() -> list[int | None]:
            files = read_manifest(index).photos
            tables = [pq.read_table(index / file.name) for file in files]
            return [value for t in tables for value in t.column("taken_ns").to_pylist()]

        known = dates()
        assert len(set(known)) == 4
        (folder / "photo-001.jpg").unlink()
        run(folder, index)
        assert compact(index).changed
        assert dates() == [known[0], known[2], known[3]]

    def test_each_codec_has_its_own_shards_and_goes_with_the_last(self, tmp_path: Path) -> None:
        folder, index = tmp_path / "growing", tmp_path / "growing.waldo"
        make_photos(folder, 2)
        run(folder, index)
        make_photos(folder, 9, first=10)
        run(folder, index)
        old = read_manifest(index)
        assert len(old.codecs) == 2
        (folder / "photo-001.png").unlink()
        run(folder, index)
        before = rows(index)
        compact(index)
        assert rows(index) == before
        assert [(f.rows, f.codec) for f in read_manifest(index).shards] == [
            (5, old.codecs[1].number),
            (4, old.codecs[1].number),
            (1, old.codecs[0].number),
        ]
        (folder / "photo-000.png").unlink()
        run(folder, index)
        compact(index)
        assert read_manifest(index).codecs == old.codecs[1:]
        assert verify(index) == []

    def test_ids_are_never_given_again(self, index: Path, photos: Path) -> None:
        last = read_manifest(index).next_id - 1
        with IndexReader.open(index) as reader:
            [record] = reader.photos([last])
        record.path.unlink()
        run(photos, index)
        compact(index)
        make_photos(photos, 1, first=60)
        run(photos, index)
        with IndexReader.open(index) as reader:
            assert int(reader.ids[-1]) == last + 1

    def test_an_index_without_photos(self, tmp_path: Path) -> None:
        folder, index = tmp_path / "few", tmp_path / "few.waldo"
        keep, *others = make_photos(folder, 4)
        run(folder, index)
        for path in others:
            path.unlink()
        keep.rename(folder / "kept.txt")
        (folder / "kept.txt").write_text("no picture")
        (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
        run(folder, index)
        compact(index)
        manifest = read_manifest(index)
        assert (manifest.shards, manifest.photos, manifest.recall) == ((), (), None)
        assert verify(index) == []
        with pytest.raises(IndexMissingError, match="no photo in this index"):
            IndexReader.open(index)
        make_photos(folder, 2)
        assert run(folder, index).new == 2
        assert verify(index) == []

    def test_the_same_bytes_every_time(self, index: Path, tmp_path: Path) -> None:
        twin = Path(shutil.copytree(index, tmp_path / "twin"))
        compact(index)
        compact(twin)
        assert files_of(twin) == files_of(index)

    def test_indexing_goes_on_afterwards(self, index: Path, photos: Path) -> None:
        compact(index)
        extractor = PixelExtractor()
        report = run(photos, index, extractor)
        assert (report.unchanged, report.total, extractor.batches) == (13, 13, [])
        make_photos(photos, 2, first=70)
        assert run(photos, index).new == 2
        assert verify(index) == []


class TestDamage:
    def test_a_damaged_row_is_reported_and_made_again(self, index: Path, photos: Path) -> None:
        before = rows(index)
        flip_maps(index, 2)
        report = compact(index)
        assert report.lost == (str(photos / "photo-002.png"),)
        assert report.dropped == 4
        [problem] = verify(index)
        assert "the maps of photo-002.png are lost" in problem
        with IndexReader.open(index) as reader:
            assert len(reader.read_maps(reader.ids).damaged) == 1
        extractor = PixelExtractor()
        assert run(photos, index, extractor).changed == 1
        assert sum(extractor.batches) == 1
        assert rows(index) == before
        assert verify(index) == []
        assert compact(index).lost == ()

    def test_copies_of_a_damaged_row_are_made_again_together(
        self, index: Path, photos: Path
    ) -> None:
        before = rows(index)
        flip_maps(index, 7)
        save_photo(photos / "photo-008.png", seed=91)  # leaves a dead row beside it
        run(photos, index)
        names = {Path(path).name for path in compact(index).lost}
        assert names == {"photo-007.png", "photo-031.png"}
        extractor = PixelExtractor()
        run(photos, index, extractor)
        assert sum(extractor.batches) == 1
        after = rows(index)
        changed = str(photos / "photo-008.png")
        assert {p: r for p, r in after.items() if p != changed} == {
            p: r for p, r in before.items() if p != changed
        }
        assert verify(index) == []

    @pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
    def test_a_lost_shard_costs_its_own_photos(
        self, index: Path, photos: Path, damage: str
    ) -> None:
        before = rows(index)
        path = index / read_manifest(index).shards[0].name
        if damage == "gone":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-9])
        else:
            path.write_bytes(b"x" * path.stat().st_size)
        report = compact(index)
        assert {Path(name).name for name in report.lost} == {
            "photo-000.png",
            "photo-002.png",
            "photo-004.png",
        }
        assert run(photos, index).changed == 3
        assert rows(index) == before
        assert verify(index) == []

    @pytest.mark.parametrize("damage", ["gone", "flipped"])
    def test_a_damaged_photo_table_is_refused(self, index: Path, damage: str) -> None:
        """With a part of it missing, the maps of the photos in that part would seem dead."""
        path = index / read_manifest(index).photos[1].name
        if damage == "gone":
            path.unlink()
        else:
            flip(path, path.stat().st_size - 40)
        before = files_of(index)
        with pytest.raises(IndexDamagedError, match=f"{path}.*waldo index"):
            compact(index)
        assert files_of(index) == before


class TestRefusals:
    def test_no_index(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for folder in (tmp_path / "nowhere", tmp_path / "empty"):
            with pytest.raises(IndexMissingError, match="waldo index PHOTOS"):
                compact(folder)
        assert list((tmp_path / "empty").iterdir()) == []
        assert not (tmp_path / "nowhere").exists()

    def test_while_another_run_writes(self, index: Path) -> None:
        with writer_lock(index), pytest.raises(IndexBusyError):
            compact(index)

    def test_a_newer_format(self, index: Path) -> None:
        raw = json.loads((index / "manifest.json").read_text())
        (index / "manifest.json").write_text(json.dumps({**raw, "format": 99}))
        before = files_of(index)
        with pytest.raises(IndexFormatError, match=r"format 99.*update waldo"):
            compact(index)
        assert files_of(index) == before
