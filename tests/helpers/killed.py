"""Work in another process, which is killed while it writes."""

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Content = TypeVar("Content", bytes, str)

# A process that runs for longer than this counts as stuck, seconds.
_PATIENCE = 60.0


def run_until_killed(work: Callable[[], object]) -> None:
    """Run some work in a fork of this process, which it must kill, see `dying_write`."""
    status = os.waitstatus_to_exitcode(_status_of(work))
    assert status == -signal.SIGKILL, f"not killed, but ended with {status}"


def run_forked(work: Callable[[], object]) -> int:
    """Run some work in a fork of this process; returns the exit code, 0 if nothing is raised."""
    return os.waitstatus_to_exitcode(_status_of(work))


def dying_write(
    write: Callable[[Path, Content], None], number: int, half: bool
) -> Callable[[Path, Content], None]:
    """A function that writes files, but kills the process at the call of this number.

    half: whether the temporary file is half written by then, or not begun.
    """
    calls = 0

    def write_or_die(path: Path, content: Content) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            if half:
                part = content[: len(content) // 2]
                temporary = path.with_name(f"{path.name}.tmp")
                temporary.write_bytes(part if isinstance(part, bytes) else part.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    return write_or_die


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
    """Compute in this thread alone: the other threads do not survive a fork."""
    import faiss
    import torch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
