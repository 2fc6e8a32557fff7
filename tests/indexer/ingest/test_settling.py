"""Where a device extracts by itself, a thread settles batches meanwhile; the index is the same."""

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import indexer.ingest.sample as sample
import indexer.store.shards as shards
from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.ingest.recording import PhotoRecorder
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from tests.helpers.stores import (
    PixelDescriptor,
    PixelExtractor,
    files_of,
    make_photos,
    rows,
    run,
)


@dataclass
class Device(PixelExtractor):
    """An extractor whose maps are made when they are waited for; a photo of no finite features.

    waits: the names of the threads that waited.
    """

    is_asynchronous: bool = True
    not_finite: str = ""
    waits: list[str] = field(default_factory=list)

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        found = super().extract(inputs)
        for maps in found:
            if maps.content_hash.startswith(self.not_finite or "none"):
                maps.semantic[:] = np.nan
        return found

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        if not self.is_asynchronous:
            return super().begin(inputs)

        def wait() -> list[FeatureMaps]:
            self.waits.append(threading.current_thread().name)
            return self.extract(inputs)

        return wait


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most photos are extracted after the codec is fitted, and there are many commits."""
    monkeypatch.setattr(sample, "_MOST_PHOTOS", 2)
    monkeypatch.setattr(shards, "SHARD_BYTES", 3 * 2 * (4 * 4 * 6 * 2))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos with copies, near and far, and files that are none."""
    folder = tmp_path / "photos"
    make_photos(folder, 14)
    for name, copy in (("004", "004a"), ("005", "006a"), ("000", "zz"), ("012", "012a")):
        shutil.copy(folder / f"photo-{name}.png", folder / f"photo-{copy}.png")
    (folder / "photo-002a.jpg").write_bytes(b"")
    (folder / "photo-007.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_index_is_the_same_byte_for_byte(photos: Path, tmp_path: Path, batch_size: int) -> None:
    twins = {name: Device(is_asynchronous=name == "device") for name in ("host", "device")}

    def run_both() -> None:
        for name, extractor in twins.items():
            descriptors = [PixelDescriptor()]
            run(photos, tmp_path / name, extractor, batch_size, "standard", descriptors)
        assert verify(tmp_path / "device") == []
        assert files_of(tmp_path / "device") == files_of(tmp_path / "host")

    run_both()
    (photos / "photo-001.png").rename(photos / "photo-090.png")
    make_photos(photos, 4, first=30)
    run_both()
    assert len(read_manifest(tmp_path / "device").shards) == 3
    assert set(twins["host"].waits) == set()
    assert set(twins["device"].waits) == {"MainThread", "settle_0"}  # the sample, and the others


def test_a_batch_is_extracted_while_the_one_before_is_settled(photos: Path, tmp_path: Path) -> None:
    begun = [threading.Event() for _ in range(20)]

    class Slow(Device):
        def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
            at = sum(event.is_set() for event in begun)
            begun[at].set()
            wait = super().begin(inputs)

            def wait_for_the_next() -> list[FeatureMaps]:
                # The first call is for the codec's sample; the third is one of two after it.
                assert at != 1 or begun[2].wait(30)
                return wait()

            return wait_for_the_next

    assert run(photos, tmp_path / "index", Slow(), batch_size=3).new == 18


def test_a_content_in_work_is_not_extracted_again(photos: Path, tmp_path: Path) -> None:
    extractor = Device()
    assert run(photos, tmp_path / "index", extractor, batch_size=1).new == 18
    assert sum(extractor.batches) == 14


def test_a_copy_of_a_photo_without_finite_features_is_a_failure_too(
    photos: Path, tmp_path: Path
) -> None:
    import hashlib

    bad = hashlib.sha256((photos / "photo-012.png").read_bytes()).hexdigest()
    report = run(photos, tmp_path / "index", Device(not_finite=bad), batch_size=1)
    assert (report.new, report.failed) == (16, 3)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_recorded_after_a_batch_that_failed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    run(photos, tmp_path / "whole")
    record, count = PhotoRecorder.record, 0

    def fail(self: PhotoRecorder, *arguments: object) -> None:
        nonlocal count
        count += 1
        if count == 8:
            raise error
        record(self, *arguments)

    monkeypatch.setattr(PhotoRecorder, "record", fail)
    with pytest.raises(error):
        run(photos, tmp_path / "index", Device(), batch_size=3)
    assert count == 8
    monkeypatch.undo()
    assert verify(tmp_path / "index") == []
    names = {Path(path).name for path in rows(tmp_path / "index")}
    expected = sorted(path.name for path in photos.iterdir())[:7]
    assert names == {*expected} - {"photo-002a.jpg"}
    run(photos, tmp_path / "index")
    assert rows(tmp_path / "index") == rows(tmp_path / "whole")


def test_an_interrupt_commits_what_is_begun(photos: Path, tmp_path: Path) -> None:
    calls = 0

    class Interrupted(Device):
        def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
            nonlocal calls
            calls += 1
            if calls == 4:  # the sample, and two batches
                raise KeyboardInterrupt
            return super().begin(inputs)

    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "index", Interrupted(), batch_size=3)
    assert verify(tmp_path / "index") == []
    extractor = Device()
    report = run(photos, tmp_path / "index", extractor, batch_size=3)
    assert report.unchanged >= 6
    assert sum(extractor.batches) == 14 - 2 - 6
    assert [t for t in threading.enumerate() if t.name.startswith("settle")] == []
