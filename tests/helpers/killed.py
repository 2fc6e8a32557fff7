"""Work that is killed on the way, in a process of its own."""

import os
import signal
import time
import traceback
from collections.abc import Callable

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
