"""After kill -9, a power cut or a full disk, the index opens at its last commit, and the same
command finishes the work.

The kernel kills a process just before its n-th step that changes the disk (an fsync, a rename or an
unlink), for every n. So every file is caught before it is written, half written, without its name,
and no longer in use. What happens between two of these steps makes no difference to the next run.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import indexer.ingest.sample as sample
from indexer.errors import IndexBusyError
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from indexer.upkeep.remove import remove
from tests.helpers.killed import killed_at_every_step, run_forked, undisturbed
from tests.helpers.stores import (
    PixelExtractor,
    assert_nothing_left_over,
    assert_usable,
    described,
    files_of,
    generation,
    make_photos,
    rows,
    run,
)
from tests.indexer.crash.conftest import SHARD_BYTES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("action", ["index", "describe", "update", "update on a device", "compact"])
def test_killed_at_every_step(
    action: str, work: Callable[[Path], object], before: Path, tmp_path: Path
) -> None:
    whole = undisturbed(work, before, tmp_path / "whole")
    expected = rows(whole), described(whole)
    assert {name: set(vectors) for name, vectors in expected[1].items()} == {
        "colours": set(expected[0])
    }
    left = killed_at_every_step(work, before, tmp_path / "left")
    assert len(left) > 20  # otherwise nothing was disturbed
    states = set()
    for index in left:
        assert_usable(index)
        states.add(generation(index))
        work(index)
        assert (rows(index), described(index)) == expected
        assert verify(index) == []
        assert [record.name for record in read_manifest(index).names] == [
            record.name for record in read_manifest(whole).names
        ]
        assert_nothing_left_over(index)
        if action == "compact":
            assert files_of(index) == files_of(whole)
    # The kills lie between all the commits; otherwise this test would show little.
    commits = {"index": 6, "describe": 3, "update": 3, "compact": 2}
    assert len(states) >= commits[action.split()[0]]


def work_until_killed(photos: Path, index: Path) -> None:
    """Index, remove, update and compact, over and over."""
    names = sorted(path for path in photos.iterdir() if path.suffix == ".png")
    turn = 0
    while True:
        run(photos, index, batch_size=2)
        remove(index, [names[turn % len(names)]])
        run(photos, index, batch_size=2)
        compact(index)
        turn += 1


def drive_at_random(photos: Path, index: Path, results: Path) -> None:
    """Kill ten processes that work on one index, each after some time.

    results: where the index is copied to after each kill.
    """
    run(photos, results / "warm", batch_size=2)
    shutil.rmtree(results / "warm")
    chance = random.Random(7)
    for turn in range(10):
        child = os.fork()
        if child == 0:
            work_until_killed(photos, index)
        time.sleep(chance.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -9
        if index.exists():
            shutil.copytree(index, results / str(turn))


def test_killed_at_random(photos: Path, tmp_path: Path) -> None:
    results, index = tmp_path / "left", tmp_path / "index"
    results.mkdir()
    assert run_forked(partial(drive_at_random, photos, index, results)) == 0
    run(photos, tmp_path / "whole")
    # Removed photos come back with new ids, and an undisturbed run has none of that.
    expected = {path: row[1:] for path, row in rows(tmp_path / "whole").items()}
    left = sorted(results.iterdir())
    assert len(left) > 5
    for copy in left:
        assert_usable(copy)
        run(photos, copy)
        compact(copy)
        assert {path: row[1:] for path, row in rows(copy).items()} == expected
        assert verify(copy) == []
        assert_nothing_left_over(copy)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(("number", "kept"), [(signal.SIGKILL, 6), (signal.SIGINT, 8)])
def test_a_signal_from_outside(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    kept: int,
    on_device: bool,
) -> None:
    """Kill -9 leaves the last commit and no lock. Ctrl-C first commits what is extracted."""
    monkeypatch.setattr(sample, "_MOST_PHOTOS", 2)  # or all were extracted before any is stored
    photos, index, reached = tmp_path / "photos", tmp_path / "index", tmp_path / "reached"
    make_photos(photos, 10)
    code = (
        "import sys, time, indexer.ingest.sample, indexer.store.shards\n"
        "from pathlib import Path\n"
        "from tests.helpers.stores import PixelExtractor, run\n"
        f"indexer.store.shards.SHARD_BYTES = {SHARD_BYTES}\n"
        "indexer.ingest.sample._MOST_PHOTOS = 2\n"
        "def wait(count):\n"
        "    if count >= 8:\n"
        "        Path(sys.argv[3]).touch()\n"
        "        time.sleep(600)\n"
        f"extractor = PixelExtractor(before=wait, is_asynchronous={on_device})\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2]), extractor, batch_size=2)"
    )
    arguments = [sys.executable, "-c", code, str(photos), str(index), str(reached)]
    writer = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (reached.exists() and read_manifest(index).generation >= 3):
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
