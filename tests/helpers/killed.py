"""Work that is killed on the way, in a process of its own."""

import os
import shutil
import signal
import stat
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from indexer.upkeep.check import verify

# Seconds after which a process that was to be killed counts as stuck.
_PATIENCE = 120.0


def run_until_killed(work: Callable[[], object]) -> None:
    """Run some work in a fork of this process, in which it must send SIGKILL to itself."""
    status = os.waitstatus_to_exitcode(_status_of(work))
    assert status == -signal.SIGKILL, f"not killed, but ended with {status}"


def run_forked(work: Callable[[], object]) -> int:
    """Run some work in a fork of this process; returns its exit code, 0 where nothing is raised."""
    return os.waitstatus_to_exitcode(_status_of(work))


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at_every_step(work: Callable[[Path], object], before: Path, results: Path) -> list[Path]:
    """Do some work on copies of an index, killed just before its n-th step that changes the disk,
    for every n: an fsync, a rename or an unlink. Returns the copies as they were left, in the order
    of n. before: the index, or a path where there is none yet. results: a folder for the copies.
    """
    results.mkdir()
    assert run_forked(lambda: _kill_at_every_step(work, before, results)) == 0
    return sorted(results.iterdir(), key=lambda path: int(path.name))


def copy_of(before: Path, index: Path) -> Path:
    """A copy of an index, or just the path where there is none to be copied."""
    if before.exists():
        shutil.copytree(before, index)
    return index


def undisturbed(work: Callable[[Path], object], before: Path, index: Path) -> Path:
    """A copy of an index, at `index`, on which some work is done to its end."""
    work(copy_of(before, index))
    assert verify(index) == []
    return index


def _kill_at_every_step(work: Callable[[Path], object], before: Path, results: Path) -> None:
    # Once without being killed: every library is imported and warm before the forks.
    work(copy_of(before, results / "warm"))
    shutil.rmtree(results / "warm")
    status, step = -9, 0
    while status == -9:
        step += 1
        index = copy_of(before, results / str(step))
        child = os.fork()
        if child == 0:
            _die_before_step(step)
            work(index)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shutil.rmtree(results / str(step))
    assert status == 0


def _die_before_step(step: int) -> None:
    """From now on count the steps that change the disk, and be killed before the given one.

    If this step would make a file durable, half of the file is lost, as in a power cut.
    """
    count = 0

    def counted(function: Callable) -> Callable:
        def wrapper(*args: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                if function is fsync and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.truncate(args[0], os.fstat(args[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **named)

        return wrapper

    fsync = os.fsync
    os.fsync = counted(fsync)
    for name in ("replace", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))


def _status_of(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _use_one_thread()
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    waited_until = time.monotonic() + _PATIENCE
    while time.monotonic() < waited_until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"still running after {_PATIENCE:.0f} s")


def _use_one_thread() -> None:
    """The threads that compute do not survive a fork, so the new process does without."""
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
