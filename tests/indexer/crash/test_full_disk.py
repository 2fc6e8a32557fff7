"""On a disk that is full or read-only there is one clear line, and nothing is lost."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.errors import IndexWriteError
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from indexer.upkeep.remove import remove
from tests.helpers.killed import copy_of, undisturbed
from tests.helpers.stores import (
    assert_nothing_left_over,
    assert_usable,
    described,
    files_of,
    generation,
    rows,
    run,
)

NO_ROOM = OSError(28, "No space left on device")


@pytest.mark.parametrize("action", ["index", "describe", "update", "compact"])
@pytest.mark.parametrize("how", ["fsync", "write"])
def test_no_room_at_every_write(
    action: str, how: str, work: Callable[[Path], object], before: Path, tmp_path: Path
) -> None:
    """If the disk is full at the n-th write, there is one clear line, and nothing is lost."""
    whole = undisturbed(work, before, tmp_path / "whole")
    expected = rows(whole), described(whole)
    failed, done = 0, False
    while not done:
        index = copy_of(before, tmp_path / f"{how}-{failed}")
        held = files_of(index)
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, how, failed)
            said = None
            try:
                work(index)
            except (IndexWriteError, OSError) as error:
                said = str(error)
        done = said is None
        if said is not None:
            assert "No space left on device" in said
            assert "\n" not in said
            failed += 1
        assert not list(index.rglob("*.tmp"))
        if action == "compact" and not done:
            # What was written is deleted again, unless the commit was already done.
            assert files_of(index) == held or generation(index) > generation(before)
        assert_usable(index)
        work(index)
        assert (rows(index), described(index)) == expected
        assert verify(index) == []
        assert_nothing_left_over(index)
    assert failed > (8 if how == "fsync" else 2)


def fail_at(patch: pytest.MonkeyPatch, how: str, at: int) -> None:
    """Make the n-th call that writes fail, counted from 0: an fsync, or the writing of a file."""
    import faiss
    import pyarrow.parquet as pq
    import safetensors.numpy

    count = 0

    def counted(function: Callable, error: Exception) -> Callable:
        def wrapper(*args: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count - 1 == at:
                raise error
            return function(*args, **named)

        return wrapper

    if how == "fsync":
        patch.setattr(os, "fsync", counted(os.fsync, NO_ROOM))
    else:
        patch.setattr(pq, "write_table", counted(pq.write_table, NO_ROOM))
        # The words of FAISS itself.
        words = RuntimeError("Error: 'ret == (1)' failed: write error: No space left on device")
        patch.setattr(faiss, "write_index", counted(faiss.write_index, words))
        refused = safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        save_file = safetensors.numpy.save_file
        patch.setattr(safetensors.numpy, "save_file", counted(save_file, refused))


def mount(*arguments: object) -> None:
    """Mount something, or skip the test where that is not permitted."""
    try:
        command = ["mount", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("mounting is not permitted here")


@contextlib.contextmanager
def small_disk(path: Path, kib: int) -> Iterator[Path]:
    path.mkdir()
    mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", path)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)


def free_bytes(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_bsize


def test_a_disk_that_fills_up_while_indexing(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "whole")
    with small_disk(tmp_path / "disk", 48) as disk:
        with pytest.raises((IndexWriteError, OSError), match="No space left on device"):
            run(photos, disk / "index")
        assert_usable(disk / "index")
        mount("-o", "remount,size=4096k", disk)
        run(photos, disk / "index")
        assert rows(disk / "index") == rows(tmp_path / "whole")
        assert verify(disk / "index") == []
        assert_nothing_left_over(disk / "index")


def test_a_disk_that_fills_up_while_compacting(photos: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        index = disk / "index"
        run(photos, index)
        (photos / "photo-000.png").unlink()
        run(photos, index)
        expected, held = rows(index), files_of(index)
        (disk / "filler").write_bytes(bytes(free_bytes(disk) - 3 * 4096))
        free = free_bytes(disk)
        with pytest.raises(IndexWriteError, match=r"No space left on device.*make room"):
            compact(index)
        assert files_of(index) == held
        assert free_bytes(disk) == free
        (disk / "filler").unlink()
        assert compact(index).changed
        assert rows(index) == expected
        assert verify(index) == []


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a folder read-only; for root by a mount, because root may ignore permissions."""
    if os.geteuid() != 0:
        path.chmod(0o555)
        yield
        path.chmod(0o755)
        return
    mount("--bind", path, path)
    try:
        mount("-o", "remount,ro,bind", path)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)


@pytest.mark.parametrize("lock", ["there", "missing"])
def test_a_read_only_index_is_read_and_not_written(photos: Path, tmp_path: Path, lock: str) -> None:
    index = tmp_path / "index"
    run(photos, index)
    expected = rows(index)
    (photos / "photo-000.png").unlink()
    if lock == "missing":
        (index / ".readers").unlink()
        (index / ".lock").unlink()
    with read_only(index):
        assert rows(index) == expected
        assert verify(index) == []
        actions = (
            lambda: run(photos, index),
            lambda: compact(index),
            lambda: remove(index, [photos]),
        )
        for action in actions:
            with pytest.raises(IndexWriteError, match=r"cannot be written.*same command again"):
                action()
        assert rows(index) == expected
    assert run(photos, index).removed == 1
