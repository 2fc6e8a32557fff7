"""The two locks of an index: one writer at a time, and files that readers use are not deleted.

A commit replaces the manifest, not the files that the manifest before it named; whoever has the
index open still reads those. So every reader holds a shared lock on a file beside the manifest,
from before it reads the manifest until it is closed, and a writer deletes replaced files only while
it holds that lock alone. The kernel frees a lock when the process ends, however it ends.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from indexer.errors import IndexBusyError, IndexWriteError
from indexer.store.files import writing
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME

LOCK_NAME = ".lock"
READERS_NAME = ".readers"
# Says where the map shards are, in a folder that stands for an index in a bucket: in one that is
# only read, and in the working copy of a writer.
BUCKET_NAME = "bucket.json"
ORIGIN_NAME = "origin.json"
# A reader may be another user than the writer: a shared lock needs no more than read permission.
_PERMISSIONS = 0o644


@contextlib.contextmanager
def writer_lock(index_dir: Path) -> Iterator[None]:
    """Hold the index for writing.

    Raises IndexBusyError while another process (or thread) holds it, IndexWriteError, also where
    the folder only stands for an index in a bucket.
    """
    import fcntl

    if (index_dir / BUCKET_NAME).exists():
        raise IndexWriteError(
            f"{index_dir}: stands for an index in a bucket, and is only read; a command that is "
            "given the address of that index writes it"
        )

    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    with writing(index_dir):
        descriptor = os.open(index_dir / LOCK_NAME, flags, _PERMISSIONS)
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


class ReaderLock:
    """A reader's hold on an index.

    Where the lock file is missing and cannot be made (a read-only folder, in which no writer
    deletes anything either), there is no lock, and the index opens all the same.
    """

    def __init__(self, index_dir: Path) -> None:
        """May wait while a writer deletes replaced files."""
        import fcntl

        self._descriptor = _open_to_read(index_dir)
        if self._descriptor is not None:
            # Some network file systems have no locks.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


@contextlib.contextmanager
def without_readers(index_dir: Path) -> Iterator[bool]:
    """For a writer: yields whether nobody has the index open; nobody can open it meanwhile.

    Raises OSError where the lock file cannot be made.
    """
    import fcntl

    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(index_dir / READERS_NAME, flags, _PERMISSIONS)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def _open_to_read(index_dir: Path) -> int | None:
    path = index_dir / READERS_NAME
    if not any((index_dir / name).exists() for name in (MANIFEST_NAME, FLEET_NAME)):
        return None
    for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
        with contextlib.suppress(OSError):
            return os.open(path, flags | os.O_CLOEXEC, _PERMISSIONS)
    return None
