"""Open readers: the files of a state that is in use stay until nobody reads it.

A commit replaces the manifest, not the files that the one before it named; who has the index open
still reads those. So every reader holds a shared lock on a file beside the manifest, from before it
reads the manifest until it is closed, and a writer deletes replaced files only while it holds that
lock alone. The kernel frees a reader's lock when its process ends, however it ends.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from indexer.store.manifest import MANIFEST_NAME

READERS_NAME = ".readers"
# A reader may be another user than the writer: a shared lock needs no more than reading.
_PERMISSIONS = 0o644


class ReaderLock:
    """A reader's hold on an index.

    Where the lock file is missing and cannot be made (a read-only folder, in which no writer
    deletes anything either) there is none, and the index opens all the same.
    """

    def __init__(self, index_dir: Path) -> None:
        """May wait while a writer deletes replaced files."""
        import fcntl

        self._descriptor = _open_to_read(index_dir)
        if self._descriptor is not None:
            # Some network file systems know no locks.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go; nothing happens when that was done before."""
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
    if not (index_dir / MANIFEST_NAME).exists():
        return None
    for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
        with contextlib.suppress(OSError):
            return os.open(path, flags | os.O_CLOEXEC, _PERMISSIONS)
    return None
