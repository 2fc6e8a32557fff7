"""One writer an index."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.errors import IndexBusyError
from indexer.store.folder import LOCK_NAME, writing


@contextmanager
def writer_lock(index_dir: Path) -> Iterator[None]:
    """Hold the index for writing; the kernel frees it when the process ends, however it ends.

    Raises IndexBusyError while another process (or thread) holds it, IndexWriteError.
    """
    import fcntl

    with writing(index_dir):
        descriptor = os.open(index_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise IndexBusyError(
                f"{index_dir}: another run (process {holder or 'unknown'}) is writing this index; "
                "wait until it is done, or stop it"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)
