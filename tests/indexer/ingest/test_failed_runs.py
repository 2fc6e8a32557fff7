"""Indexing runs in which photos cannot be read, or which are refused or interrupted."""

import json
import os
import time
from pathlib import Path

import pytest

import indexer.ingest.sample as sample
import indexer.store.shards as shards
from indexer.errors import (
    FingerprintError,
    IndexBusyError,
    IndexFormatError,
    IndexMissingError,
    IndexWriteError,
    SourceError,
)
from indexer.reader import IndexReader
from indexer.store.locks import writer_lock
from indexer.store.manifest import Manifest, read_manifest
from indexer.upkeep.check import verify
from tests.helpers.pictures import save_photo
from tests.helpers.stores import (
    PixelExtractor,
    failures,
    ids_by_name,
    make_photos,
    rows,
    run,
    set_later,
)

pytestmark = pytest.mark.usefixtures("small_shards")


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

        before = set(threading.enumerate())  # also of readers that other tests have left open
        with pytest.raises(KeyboardInterrupt):
            run(photos, index, PixelExtractor(before=interrupt))
        names = ("decode", "commit", "maps")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            alive = [
                thread
                for thread in set(threading.enumerate()) - before
                if thread.name.startswith(names)
            ]
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
