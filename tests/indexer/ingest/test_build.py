"""Indexing runs: what they extract and keep, and that each photo has its own maps."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import indexer.ingest.progress as progress
from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.errors import (
    SourceError,
)
from indexer.ingest.build import index_photos
from indexer.ingest.progress import Progress
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from tests.helpers.pictures import save_photo
from tests.helpers.stores import (
    PixelExtractor,
    failures,
    ids_by_name,
    make_photos,
    maps_of,
    rows,
    run,
    set_later,
)

pytestmark = pytest.mark.usefixtures("small_shards")


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
        monkeypatch.setattr("indexer.store.photos._path_key", lambda path: 7)
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
