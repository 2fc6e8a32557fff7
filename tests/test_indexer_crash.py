"""Kill -9 at any instant: the index opens at its last commit, and the same run finishes the work.

A process is killed by the kernel just before its n-th step towards the disk (an fsync, a rename or
an unlink), for several n, so that every kind of file is caught unwritten, unnamed and superseded.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import indexer.shards as shards
from indexer.check import verify
from indexer.errors import IndexBusyError, IndexMissingError
from indexer.manifest import read_manifest
from indexer.reader import IndexReader
from tests.indexer_helpers import PixelExtractor, make_photos, rows, run
from tests.pictures import save_photo

ROOT = Path(__file__).parent.parent
SHARD_BYTES = 3 * 2 * (4 * 4 * 6 * 2)
# Steps of a first run and of an update that lie in and between all their commits.
FIRST_STEPS = (2, 5, 14, 20, 29, 36, 43, 46, 52)
UPDATE_STEPS = (1, 5, 9, 13, 17, 21, 25, 29, 33)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", SHARD_BYTES)


def die_before_step(step: int) -> None:
    """From now on count the steps towards the disk, and be killed before the given one."""
    count = 0

    def counted(function: Callable) -> Callable:
        def wrapper(*args: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **named)

        return wrapper

    os.fsync = counted(os.fsync)
    for name in ("replace", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))


def drive(source: Path, indexes: list[Path], steps: list[int]) -> None:
    """Run in a process of its own: index `source` into each folder, killed at its step."""
    import faiss  # noqa: F401 (imported once, before the forks)
    import pyarrow.parquet  # noqa: F401

    shards.SHARD_BYTES = SHARD_BYTES
    for index, step in zip(indexes, steps, strict=True):
        child = os.fork()
        if child == 0:
            die_before_step(step)
            run(source, index, batch_size=2)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def killed_runs(source: Path, indexes: list[Path], steps: Sequence[int]) -> list[int]:
    """`drive` in its process; returns the exit codes, -9 where the step was reached."""
    code = (
        "import sys; from pathlib import Path; from tests.test_indexer_crash import drive; "
        f"drive(Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]], {list(steps)})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), *map(str, indexes)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


def test_a_first_run_killed_anywhere(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 10)
    (photos / "photo-004a.jpg").write_bytes(b"")
    run(photos, tmp_path / "whole", batch_size=2)
    expected = rows(tmp_path / "whole")
    indexes = [tmp_path / f"index-{step}" for step in FIRST_STEPS]
    codes = killed_runs(photos, indexes, FIRST_STEPS)
    assert codes == [-9] * len(FIRST_STEPS)
    kept = set()
    for index in indexes:
        if (index / "manifest.json").exists():
            assert verify(index) == []
            kept.add(len(read_manifest(index).photos))
        try:
            with IndexReader.open(index) as reader:
                assert len(reader.recall) == reader.n_photos
        except IndexMissingError:
            pass
        report = run(photos, index, batch_size=3)
        assert rows(index) == expected
        assert report.total == 10
        assert verify(index) == []
        named = {index / file.name for file in read_manifest(index).files()}
        kinds = ("*.parquet", "*.faiss", "*.safetensors", "*.tmp")
        assert {path for kind in kinds for path in index.rglob(kind)} == named
    # The instants lie between all the commits, else this test would show little.
    assert kept == {0, 1, 2, 3, 4}


def test_an_update_killed_anywhere(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 8)
    run(photos, tmp_path / "before")
    make_photos(photos, 5, first=20)
    save_photo(photos / "photo-002.png", 50, 50, seed=90)
    (photos / "photo-003.png").unlink()
    (photos / "photo-005.png").rename(photos / "photo-030.png")
    shutil.copy(photos / "photo-006.png", photos / "photo-031.png")
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "before", whole)
    report = run(photos, whole)
    assert (report.new, report.changed, report.moved, report.removed) == (6, 1, 1, 1)
    expected = rows(whole)
    indexes = [tmp_path / f"index-{step}" for step in UPDATE_STEPS]
    for index in indexes:
        shutil.copytree(tmp_path / "before", index)
    codes = killed_runs(photos, indexes, UPDATE_STEPS)
    assert codes == [-9] * len(UPDATE_STEPS)
    for index in indexes:
        assert verify(index) == []
        with IndexReader.open(index) as reader:
            # What the last commit named is all there, and found by recall.
            assert reader.read_maps(reader.ids).damaged == []
            found, _ = reader.recall.search(reader.mean_pooled, 100)
            assert sorted(found.tolist()) == reader.ids.tolist()
        run(photos, index)
        assert rows(index) == expected
        assert verify(index) == []


@pytest.mark.parametrize(("number", "kept"), [(signal.SIGKILL, 6), (signal.SIGINT, 8)])
def test_a_signal_from_outside(tmp_path: Path, number: signal.Signals, kept: int) -> None:
    """Kill -9 leaves the last commit, and no lock; Ctrl-C commits what is extracted first."""
    photos, index, reached = tmp_path / "photos", tmp_path / "index", tmp_path / "reached"
    make_photos(photos, 10)
    code = (
        "import sys, time, indexer.shards; from pathlib import Path\n"
        "from tests.indexer_helpers import PixelExtractor, run\n"
        f"indexer.shards.SHARD_BYTES = {SHARD_BYTES}\n"
        "def wait(count):\n"
        "    if count >= 8:\n"
        "        Path(sys.argv[3]).touch()\n"
        "        time.sleep(600)\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2]), PixelExtractor(before=wait), batch_size=2)"
    )
    arguments = [sys.executable, "-c", code, str(photos), str(index), str(reached)]
    writer = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (reached.exists() and read_manifest(index).generation >= 2):
            assert writer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(IndexBusyError, match=str(writer.pid)):
            run(photos, index)
        with IndexReader.open(index) as reader:  # readers are not kept out
            assert reader.n_photos == 6
        writer.send_signal(number)
        writer.wait(60)
    finally:
        writer.kill()
        writer.wait()
    assert verify(index) == []
    extractor = PixelExtractor()
    report = run(photos, index, extractor)
    assert (report.new, report.unchanged) == (10 - kept, kept)
    assert sum(extractor.batches) == 10 - kept
    run(photos, tmp_path / "whole")
    assert rows(index) == rows(tmp_path / "whole")
