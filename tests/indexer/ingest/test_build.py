"""Indexing runs: what they extract and keep, and that each photo has its own maps."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import indexer.ingest.progress as progress
import indexer.ingest.sample as sample
import indexer.store.shards as shards
from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.errors import (
    FingerprintError,
    IndexBusyError,
    IndexFormatError,
    IndexMissingError,
    IndexWriteError,
    SourceError,
)
from indexer.ingest.build import index_photos
from indexer.ingest.progress import Progress
from indexer.reader import IndexReader
from indexer.store.locks import writer_lock
from indexer.store.manifest import Manifest, read_manifest
from indexer.upkeep.check import verify
from tests.helpers.pictures import save_photo
from tests.helpers.stores import PixelExtractor, make_photos, maps_of, rows, run


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five photos fill a shard, so that the runs here commit several times."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * 2 * (4 * 4 * 6 * 2))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", 13)
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"


def failures(index: Path) -> dict[str, str]:
    lines = (index / "failures.jsonl").read_text().splitlines()
    return {Path(r["path"]).name: r["reason"] for r in map(json.loads, lines)}


def ids_by_name(index: Path) -> dict[str, int]:
    return {Path(path).name: row[0] for path, row in rows(index).items()}


def set_later(path: Path) -> None:
    """Give a file another modification time, without waiting for the clock."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def assert_own_maps(index: Path, expected: Sequence[Path]) -> None:
    """The index holds exactly these photos, each with the maps of its own file."""
    held = rows(index)
    assert sorted(held) == sorted(map(str, expected))
    for path in expected:
        maps = maps_of(path, PixelExtractor())
        _, appearance, semantic, pooled = held[str(path)]
        assert appearance == maps.appearance.tobytes()
        assert semantic == maps.semantic.tobytes()
        assert pooled == maps.pooled().tobytes()


class TestFirstRun:
    def test_every_photo_has_the_maps_of_its_own_file(self, photos: Path, index: Path) -> None:
        report = run(photos, index)
        assert (report.new, report.total, report.failed, report.unchanged) == (13, 13, 0, 0)
        assert_own_maps(index, sorted(photos.iterdir()))
        assert list(ids_by_name(index).values()) == list(range(13))
        assert [file.rows for file in read_manifest(index).shards] == [5, 5, 3]
        assert verify(index) == []

    def test_records_and_valid_cells(self, photos: Path, index: Path) -> None:
        run(photos, index)
        with IndexReader.open(index) as reader:
            assert (reader.n_photos, reader.grid, reader.dim, reader.image_size) == (13, 4, 6, 32)
            assert reader.fingerprint == PixelExtractor().fingerprint()
            records = reader.photos([3, 0])
            assert [r.path for r in records] == [photos / "photo-003.png", photos / "photo-000.png"]
            assert [(r.width, r.height) for r in records] == [(64, 20), (40, 30)]
            batch = reader.read_maps([3, 0])
            assert (batch.encoded.shape, batch.encoded.dtype) == ((2, 384), np.uint8)
            assert [tuple(maps.shape) for maps in reader.decode(batch)] == [(2, 16, 6)] * 2
            assert batch.ids.tolist() == [3, 0]
            # 64 x 20 fills one row of cells of four, 40 x 30 three.
            assert batch.valid.reshape(2, 4, 4).all(axis=2).sum(axis=1).tolist() == [1, 3]
            with pytest.raises(KeyError, match="99"):
                reader.photos([0, 99])

    @pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
    def test_batches_do_not_matter(self, photos: Path, index: Path, batch_size: int) -> None:
        run(photos, index, batch_size=3)
        other = index.with_name("other")
        extractor = PixelExtractor()
        run(photos, other, extractor, batch_size)
        assert rows(other) == rows(index)
        assert max(extractor.batches) == min(batch_size, 13)

    def test_broken_photos_do_not_shift_the_rows_of_others(self, photos: Path, index: Path) -> None:
        save_photo(photos / "photo-004b.jpg", 200, 150)
        whole = (photos / "photo-004b.jpg").read_bytes()
        (photos / "photo-004b.jpg").write_bytes(whole[: len(whole) // 2])
        (photos / "photo-000a.jpg").write_bytes(b"")
        (photos / "photo-099.webp").write_bytes(b"RIFF and then nonsense")
        (photos / "notes.txt").write_text("no picture")
        good = sorted(p for p in photos.iterdir() if p.suffix == ".png")
        report = run(photos, index, batch_size=2)
        assert (report.new, report.failed, report.passed_over) == (13, 3, 1)
        assert_own_maps(index, good)
        assert set(failures(index)) == {"photo-000a.jpg", "photo-004b.jpg", "photo-099.webp"}
        assert all(reason and str(photos) not in reason for reason in failures(index).values())

    def test_copies_share_maps_and_each_is_found(self, photos: Path, index: Path) -> None:
        shutil.copy(photos / "photo-002.png", photos / "photo-002-copy.png")
        shutil.copy(photos / "photo-000.png", photos / "zz.png")  # its maps are committed by then
        extractor = PixelExtractor()
        report = run(photos, index, extractor)
        assert (report.new, report.total, sum(extractor.batches)) == (15, 15, 13)
        assert_own_maps(index, sorted(photos.iterdir()))
        assert sum(file.rows for file in read_manifest(index).shards) == 13
        assert verify(index) == []

    def test_a_photo_without_finite_features_is_a_failure(self, photos: Path, index: Path) -> None:
        class Overflowing(PixelExtractor):
            def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
                made = super().extract(inputs)
                for maps in made:
                    if maps.content_hash == bad:
                        maps.appearance[0, 0, 0] = np.inf
                return made

        bad = maps_of(photos / "photo-006.png", PixelExtractor()).content_hash
        assert run(photos, index, Overflowing()).failed == 1
        assert list(failures(index)) == ["photo-006.png"]
        assert "photo-006.png" not in ids_by_name(index)
        assert_own_maps(index, [p for p in sorted(photos.iterdir()) if p.name != "photo-006.png"])

    def test_names_that_are_not_utf8_are_failures(self, photos: Path, index: Path) -> None:
        odd = os.fsencode(photos) + b"/caf\xe9.png"
        try:
            shutil.copy(os.fsencode(photos / "photo-000.png"), odd)
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        report = run(photos, index)
        assert (report.new, report.failed) == (13, 1)
        assert "rename" in failures(index)["caf\\udce9.png"]

    def test_mixed_sources_keep_their_roots(self, photos: Path, index: Path) -> None:
        make_photos(photos.parent / "more", 2, first=50)
        (photos.parent / "list.txt").write_text("more/photo-050.png\n")
        run([photos.parent / "list.txt", photos / "photo-001.png", photos], index)
        with IndexReader.open(index) as reader:
            paths = [record.relative_path for record in reader.photos(reader.ids[:3])]
        assert paths == ["more/photo-050.png", "photo-001.png", "photo-000.png"]

    def test_seconds_are_counted_for_each_stage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise the rate of indexing would include the time that the sample took."""
        told: list[Progress] = []
        reporter = progress.ProgressReporter(told.append, 500, 100.0)
        for now, tell in [
            (110.0, lambda: reporter.report_fit(128)),
            (120.0, lambda: reporter.report_fit(256)),
            (125.0, lambda: reporter.report(50, 50, 0, 0)),
            (125.05, lambda: reporter.report(51, 51, 0, 0)),
            (130.0, lambda: reporter.report(100, 99, 0, 1)),
        ]:
            monkeypatch.setattr("indexer.ingest.progress.time.monotonic", lambda now=now: now)
            tell()
        assert [(p.stage, p.done, p.seconds) for p in told] == [
            ("fit", 128, 10.0),
            ("fit", 256, 20.0),
            ("index", 50, 5.0),
            ("index", 100, 10.0),
        ]
        assert reporter.seconds() == 30.0

    def test_progress_counts_up_to_the_total(
        self, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress, "_SECONDS_BETWEEN_REPORTS", 0.0)
        (photos / "bad.jpg").write_bytes(b"")
        (photos / "notes.txt").write_text("no picture")
        told: list[Progress] = []
        index_photos([photos], index, PixelExtractor(), batch_size=4, on_progress=told.append)
        stages = [p.stage for p in told]
        assert stages == sorted(stages)  # "fit", then "index"
        for stage in ("fit", "index"):
            done = [p.done for p in told if p.stage == stage]
            assert done == sorted(done)
            assert len(done) > 3
        assert {p.total for p in told} == {15}
        last = told[-1]
        assert (last.done, last.new, last.failed, last.skipped) == (15, 13, 1, 1)
        assert len(told) > 3
        # Photos of the sample wait until they are recorded, and none is counted twice.
        worked = [p.waiting + (p.new + p.failed if p.stage == "index" else 0) for p in told]
        assert worked == sorted(worked)
        assert (max(p.waiting for p in told), last.waiting, worked[-1]) == (13, 0, 14)


class TestRunningAgain:
    def test_nothing_changed_means_nothing_done(self, photos: Path, index: Path) -> None:
        run(photos, index)
        before = {p: p.stat().st_mtime_ns for p in index.rglob("*") if p.is_file()}
        del before[index / ".lock"]
        for path in photos.iterdir():
            path.chmod(0o000)  # not opened; root could, so the extractor's count is checked too
        extractor = PixelExtractor()
        report = run([photos], index, extractor)
        assert (report.new, report.unchanged, report.total) == (0, 13, 13)
        assert extractor.batches == []
        after = {p: p.stat().st_mtime_ns for p in index.rglob("*") if p.is_file()}
        del after[index / ".lock"]
        assert after == before

    def test_paths_whose_keys_collide_are_told_apart(
        self, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("indexer.ingest.known._path_key", lambda path: 7)
        run(photos, index)
        save_photo(photos / "photo-003b.png", seed=98)
        report = run(photos, index)
        assert (report.new, report.unchanged, report.changed) == (1, 13, 0)
        assert_own_maps(index, sorted(photos.iterdir()))

    def test_only_what_is_new_is_extracted(self, photos: Path, index: Path) -> None:
        run(photos, index)
        before = rows(index)
        make_photos(photos, 2, first=20)
        save_photo(photos / "photo-005b.png", seed=99)
        extractor = PixelExtractor()
        report = run(photos, index, extractor)
        assert (report.new, report.unchanged, report.total) == (3, 13, 16)
        assert sum(extractor.batches) == 3
        after = rows(index)
        assert {path: after[path] for path in before} == before
        for kind in ("recall-*", "codec-*"):
            assert len(list(index.glob(kind))) == 1
        assert_own_maps(index, sorted(photos.iterdir()))

    def test_changed_content_gets_a_new_id(self, photos: Path, index: Path) -> None:
        run(photos, index)
        save_photo(photos / "photo-004.png", 40, 40, seed=77)
        set_later(photos / "photo-004.png")
        report = run(photos, index)
        assert (report.changed, report.unchanged, report.removed, report.total) == (1, 12, 0, 13)
        assert ids_by_name(index)["photo-004.png"] == 13
        assert read_manifest(index).tombstones == (4,)
        assert_own_maps(index, sorted(photos.iterdir()))

    def test_a_touched_photo_is_the_same_photo(self, photos: Path, index: Path) -> None:
        run(photos, index)
        before = rows(index)
        set_later(photos / "photo-004.png")
        extractor = PixelExtractor()
        report = run(photos, index, extractor)
        assert (report.unchanged, report.changed, extractor.batches) == (13, 0, [])
        assert rows(index) == before
        generation = read_manifest(index).generation
        run(photos, index)
        assert read_manifest(index).generation == generation  # its new time is on record

    def test_a_moved_photo_keeps_its_id(self, photos: Path, index: Path) -> None:
        run(photos, index)
        (photos / "sub").mkdir()
        (photos / "photo-004.png").rename(photos / "sub" / "renamed.png")
        extractor = PixelExtractor()
        report = run(photos, index, extractor)
        assert (report.moved, report.removed, report.new, report.total) == (1, 0, 0, 13)
        assert extractor.batches == []
        assert ids_by_name(index)["renamed.png"] == 4
        assert_own_maps(index, sorted(p for p in photos.rglob("*.png")))
        assert verify(index) == []

    def test_a_copy_is_a_photo_of_its_own(self, photos: Path, index: Path) -> None:
        run(photos, index)
        shutil.copy(photos / "photo-004.png", photos / "a-copy.png")
        extractor = PixelExtractor()
        report = run(photos, index, extractor)
        assert (report.moved, report.new, report.total, extractor.batches) == (0, 1, 14, [])
        assert ids_by_name(index)["a-copy.png"] == 13
        assert ids_by_name(index)["photo-004.png"] == 4
        (photos / "photo-004.png").unlink()  # its maps stay, for the copy
        assert run(photos, index).removed == 1
        assert_own_maps(index, sorted(photos.iterdir()))

    def test_photos_that_trade_names(self, photos: Path, index: Path) -> None:
        run(photos, index)
        one, two = photos / "photo-001.png", photos / "photo-009.png"
        one.rename(photos / "held")
        two.rename(one)
        (photos / "held").rename(two)
        set_later(one)
        set_later(two)
        extractor = PixelExtractor()
        assert run(photos, index, extractor).changed == 2
        assert extractor.batches == []
        assert_own_maps(index, sorted(photos.iterdir()))

    def test_a_photo_that_comes_back(self, photos: Path, index: Path) -> None:
        run(photos, index)
        content = (photos / "photo-004.png").read_bytes()
        (photos / "photo-004.png").unlink()
        assert run(photos, index).removed == 1
        (photos / "photo-004.png").write_bytes(content)
        extractor = PixelExtractor()
        assert run(photos, index, extractor).new == 1
        assert extractor.batches == []
        assert_own_maps(index, sorted(photos.iterdir()))

    def test_a_photo_that_became_no_picture_is_dropped(self, photos: Path, index: Path) -> None:
        (photos / "photo-004.png").rename(photos / "plain")
        run(photos, index)
        (photos / "plain").write_text("now a text")
        report = run(photos, index)
        assert (report.passed_over, report.removed, report.total) == (1, 1, 12)

    def test_rows_of_maps_that_were_lost_are_made_again(self, photos: Path, index: Path) -> None:
        run(photos, index)
        before = rows(index)
        lost = index / read_manifest(index).shards[1].name
        lost.unlink()
        with IndexReader.open(index) as reader:
            batch = reader.read_maps(reader.ids)
        assert (len(batch.damaged), len(batch.ids)) == (5, 8)
        assert len(verify(index)) >= 1
        report = run(photos, index)
        assert (report.changed, report.unchanged, report.total) == (5, 8, 13)
        assert rows(index) == before
        assert verify(index) == []


class TestRemoval:
    def test_photos_that_are_gone_are_not_found(self, photos: Path, index: Path) -> None:
        run(photos, index)
        with IndexReader.open(index) as before:
            for name in ("photo-003.png", "photo-007.png"):
                (photos / name).unlink()
            recall = read_manifest(index).recall
            report = run(photos, index)
            assert (report.removed, report.unchanged, report.total) == (2, 11, 11)
            assert read_manifest(index).recall == recall  # tombstones need no new recall index
            # A reader keeps the state it opened.
            assert before.n_photos == 13
            assert len(before.recall.search(np.ones(12, np.float32), 20)[0]) == 13
            assert len(before.read_maps(before.ids).ids) == 13
        with IndexReader.open(index) as reader:
            found, _ = reader.recall.search(np.ones(12, np.float32), 20)
            assert sorted(found.tolist()) == [i for i in range(13) if i not in (3, 7)]
            with pytest.raises(KeyError):
                reader.read_maps([3])
        assert verify(index) == []

    def test_only_photos_beneath_the_sources_of_the_run_are_removed(
        self, photos: Path, index: Path
    ) -> None:
        other = photos.parent / "photos2"  # a name that begins as the other's does
        make_photos(other, 3, first=40)
        run([photos, other], index)
        (other / "photo-040.png").unlink()
        (photos / "photo-000.png").unlink()
        assert run(photos, index).removed == 1
        assert "photo-040.png" in ids_by_name(index)
        assert run([other], index).removed == 1

    @pytest.mark.parametrize("state", ["missing", "empty"])
    def test_a_missing_source_removes_nothing(self, photos: Path, index: Path, state: str) -> None:
        other = photos.parent / "other"
        make_photos(other, 3, first=40)
        run([photos, other], index)
        shutil.rmtree(photos)
        if state == "empty":
            photos.mkdir()
        (other / "photo-041.png").unlink()
        for sources in ([photos], [other, photos]):
            with pytest.raises(SourceError, match="photos: "):
                run(sources, index)
        with IndexReader.open(index) as reader:
            assert reader.n_photos == 16
        assert run([other], index).total == 15

    def test_a_folder_that_cannot_be_listed_removes_nothing(
        self, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_photos(photos / "sub", 3, first=40)
        run(photos, index)
        (photos / "photo-000.png").unlink()
        scandir = os.scandir

        def refuse(folder: Path) -> object:
            if Path(folder).name == "sub":
                raise PermissionError(13, "Permission denied")
            return scandir(folder)

        monkeypatch.setattr("indexer.ingest.sources.os.scandir", refuse)
        report = run(photos, index)
        assert (report.removed, report.failed, report.total) == (1, 1, 15)
        assert "cannot be listed" in failures(index)["sub"]

    def test_indexing_a_single_photo_removes_no_other(self, photos: Path, index: Path) -> None:
        run(photos, index)
        (photos / "photo-000.png").unlink()
        assert run(photos / "photo-001.png", index).removed == 0

    def test_a_list_removes_what_it_no_longer_names(self, photos: Path, index: Path) -> None:
        names = [f"photos/photo-00{i}.png" for i in range(4)]
        listing = photos.parent / "list.txt"
        listing.write_text("\n".join(names))
        run([listing, photos / "photo-009.png"], index)
        (photos / "photo-003.png").unlink()
        listing.write_text("\n".join(names[1:]))
        report = run(listing, index)
        assert (report.removed, report.failed, report.unchanged) == (2, 1, 2)
        assert sorted(ids_by_name(index)) == ["photo-001.png", "photo-002.png", "photo-009.png"]
        assert failures(index) == {"photo-003.png": "no such file"}
        listing.write_text("\n".join(names[1:3]))
        run(listing, index)
        assert failures(index) == {}

    def test_a_photo_given_from_a_hidden_folder_stays(self, photos: Path, index: Path) -> None:
        (photos / ".kept").mkdir()
        save_photo(photos / ".kept" / "one.png", seed=70)
        run([photos, photos / ".kept" / "one.png"], index)
        assert run(photos, index).removed == 0


class TestFailures:
    def test_they_are_tried_again_and_forgotten_when_repaired(
        self, photos: Path, index: Path
    ) -> None:
        good = (photos / "photo-004.png").read_bytes()
        stamp = (photos / "photo-004.png").stat()
        (photos / "photo-004.png").write_bytes(good[:60].ljust(len(good), b"\0"))
        os.utime(photos / "photo-004.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert run(photos, index).failed == 1
        assert run(photos, index).failed == 1
        (photos / "photo-004.png").write_bytes(good)  # the same size and time as when it failed
        os.utime(photos / "photo-004.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        report = run(photos, index)
        assert (report.new, report.failed, failures(index)) == (1, 0, {})

    def test_one_that_is_indexed_by_itself_is_forgotten(self, photos: Path, index: Path) -> None:
        good = (photos / "photo-004.png").read_bytes()
        (photos / "photo-004.png").write_bytes(b"")
        run(photos, index)
        (photos / "photo-004.png").write_bytes(good)
        assert run(photos / "photo-004.png", index).new == 1
        assert failures(index) == {}

    def test_those_of_other_sources_are_kept(self, photos: Path, index: Path) -> None:
        other = photos.parent / "other"
        make_photos(other, 2, first=40)
        (other / "bad.jpg").write_bytes(b"")
        (photos / "worse.jpg").write_bytes(b"")
        run([photos, other], index)
        (photos / "worse.jpg").unlink()
        run(photos, index)
        assert list(failures(index)) == ["bad.jpg"]
        (other / "bad.jpg").unlink()
        run(other, index)
        assert failures(index) == {}

    def test_odd_names_are_one_line_each(self, photos: Path, index: Path) -> None:
        names = ["line\u2028end.jpg", "new\nline.jpg", "next\x85.jpg"]
        for name in names:
            (photos / name).write_bytes(b"")
        assert run(photos, index).failed == 3
        lines = (index / "failures.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        assert sorted(Path(json.loads(line)["path"]).name for line in lines) == sorted(names)
        assert verify(index) == []
        for name in names:
            (photos / name).unlink()
        run(photos, index)
        assert (index / "failures.jsonl").read_text() == ""

    def test_a_photo_that_is_damaged_later_is_no_longer_found(
        self, photos: Path, index: Path
    ) -> None:
        run(photos, index)
        (photos / "photo-004.png").write_bytes(b"\x89PNG broken")
        report = run(photos, index)
        assert (report.failed, report.total) == (1, 12)
        assert "photo-004.png" not in ids_by_name(index)

    def test_a_photo_that_cannot_be_read_just_now_stays(
        self, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(photos, index)
        set_later(photos / "photo-004.png")
        opened = Path.open

        def fail(path: Path, *args: object, **named: object) -> object:
            if path.name == "photo-004.png":
                raise OSError(5, "Input/output error")
            return opened(path, *args, **named)

        monkeypatch.setattr(Path, "open", fail)
        report = run(photos, index)
        monkeypatch.undo()
        assert (report.failed, report.total) == (1, 13)
        assert failures(index) == {"photo-004.png": "cannot be read (Input/output error)"}

    def test_an_index_of_failures_only_is_empty(self, tmp_path: Path, index: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
        report = run(tmp_path / "photos", index)
        assert (report.failed, report.total) == (1, 0)
        assert verify(index) == []
        with pytest.raises(IndexMissingError, match="waldo index PHOTOS"):
            IndexReader.open(index)


class TestRefusals:
    def test_a_folder_with_other_things_in_it(self, photos: Path, index: Path) -> None:
        index.mkdir()
        (index / "thesis.tex").write_text("precious")
        with pytest.raises(IndexMissingError, match="holds other files"):
            run(photos, index)
        assert [p.name for p in index.iterdir()] == ["thesis.tex"]

    def test_another_model(self, photos: Path, index: Path) -> None:
        run(photos, index)
        with pytest.raises(FingerprintError, match=r"pixels.*voxels.*another folder") as caught:
            run(photos, index, PixelExtractor(model="voxels"))
        assert "\n" not in str(caught.value)

    def test_a_newer_format(self, photos: Path, index: Path) -> None:
        run(photos, index)
        raw = json.loads((index / "manifest.json").read_text())
        (index / "manifest.json").write_text(json.dumps({**raw, "format": 3}))
        for action in (lambda: run(photos, index), lambda: IndexReader.open(index)):
            with pytest.raises(IndexFormatError, match=r"format 3.*format 2; update waldo"):
                action()

    def test_no_index(self, index: Path) -> None:
        assert Manifest.load_if_present(index) is None
        with pytest.raises(IndexMissingError, match="waldo index PHOTOS --index"):
            IndexReader.open(index)

    def test_a_second_writer(self, photos: Path, index: Path) -> None:
        run(photos, index)
        with writer_lock(index), pytest.raises(IndexBusyError, match=str(os.getpid())):
            run(photos, index)
        assert run(photos, index).unchanged == 13

    def test_an_index_that_cannot_be_written(self, photos: Path, index: Path) -> None:
        index.parent.joinpath("file").write_text("")
        with pytest.raises(IndexWriteError, match="choose another folder"):
            run(photos, index.parent / "file")
        (index / ".lock").mkdir(parents=True)
        with pytest.raises(IndexWriteError, match="same command again"):
            run(photos, index)

    def test_bad_sources_before_anything_is_written(self, tmp_path: Path, index: Path) -> None:
        with pytest.raises(SourceError):
            run(tmp_path / "nowhere", index)
        assert not index.exists()


class TestInterrupts:
    @pytest.mark.parametrize("after", [0, 3, 6, 12])
    def test_what_is_extracted_is_kept(self, photos: Path, index: Path, after: int) -> None:
        whole = index.with_name("whole")
        run(photos, whole)

        def interrupt(count: int) -> None:
            if count >= after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(photos, index, PixelExtractor(before=interrupt), batch_size=3)
        assert verify(index) == []
        again = PixelExtractor()
        report = run(photos, index, again)
        assert (report.new + report.unchanged, sum(again.batches)) == (13, 13 - after)
        assert rows(index) == rows(whole)
        assert verify(index) == []

    def test_an_interrupt_commits_what_is_extracted(
        self, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(count: int) -> None:
            if count >= 8:
                raise KeyboardInterrupt

        monkeypatch.setattr(sample, "_MOST_PHOTOS", 2)
        first = PixelExtractor(before=interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(photos, index, first, batch_size=3)
        # A photo that the codec was fitted on may still wait for its turn.
        committed, extracted = read_manifest(index).n_photos, sum(first.batches)
        assert extracted - 2 <= committed <= extracted < 13
        with IndexReader.open(index) as reader:
            assert reader.n_photos == committed == len(reader.recall)
        again = PixelExtractor()
        report = run(photos, index, again)
        assert (report.new, report.unchanged) == (13 - committed, committed)
        assert sum(again.batches) == 13 - extracted
        assert verify(index) == []

    def test_the_error_of_a_model_is_raised_and_keeps_what_was_done(
        self, photos: Path, index: Path
    ) -> None:
        def fail(count: int) -> None:
            if count >= 8:
                raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            run(photos, index, PixelExtractor(before=fail))
        again = PixelExtractor()
        assert run(photos, index, again).total == 13
        assert sum(again.batches) == 5

    def test_it_removes_nothing_and_forgets_no_failure(self, photos: Path, index: Path) -> None:
        (photos / "zz-bad.jpg").write_bytes(b"")
        run(photos, index)
        (photos / "photo-000.png").unlink()
        save_photo(photos / "photo-001b.png", seed=71)

        def interrupt(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(photos, index, PixelExtractor(before=interrupt))
        with IndexReader.open(index) as reader:
            assert reader.n_photos == 13
        assert list(failures(index)) == ["zz-bad.jpg"]

    def test_decoding_threads_do_not_outlive_it(self, photos: Path, index: Path) -> None:
        import threading

        def interrupt(count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(photos, index, PixelExtractor(before=interrupt))
        names = ("decode", "commit", "maps")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            alive = [t for t in threading.enumerate() if t.name.startswith(names)]
            if not alive:
                break
            time.sleep(0.01)
        assert alive == []


def test_a_full_disk_is_reported_and_loses_only_what_is_not_committed(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = shards._write_shard, []

    def full(path: Path, *arrays: object) -> None:
        written.append(path)
        if len(written) > 1:
            path.write_bytes(b"as much as fits")
            raise OSError(28, "No space left on device")
        write(path, *arrays)

    monkeypatch.setattr(shards, "_write_shard", full)
    with pytest.raises(IndexWriteError, match=r"No space left on device.*same command again"):
        run(photos, index)
    monkeypatch.undo()
    assert verify(index) == []
    assert not list(index.rglob("*.tmp"))
    report = run(photos, index)
    assert (report.new, report.unchanged) == (8, 5)


def test_an_index_can_be_moved(photos: Path, index: Path) -> None:
    run(photos, index)
    before = rows(index)
    moved = index.parent / "elsewhere" / "moved"
    moved.parent.mkdir()
    index.rename(moved)
    assert rows(moved) == before
    assert run(photos, moved).unchanged == 13


def test_an_index_inside_its_source(photos: Path) -> None:
    index = photos / "waldo"
    assert run(photos, index).new == 13
    report = run(photos, index)
    assert (report.unchanged, report.passed_over, report.failed) == (13, 0, 0)
