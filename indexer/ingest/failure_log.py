"""The photos that could not be read: by this run, and by earlier runs over other sources."""

from pathlib import Path

from indexer.ingest.sources import Coverage, Source
from indexer.store.failures import Failure, printable, read_failures, write_failures


class FailureLog:
    """The failures that the index records, brought up to date by a run.

    count: failures of this run.
    """

    def __init__(self, index_dir: Path) -> None:
        self._index_dir = index_dir
        self._failures = {failure.path: failure for failure in read_failures(index_dir)}
        self._of_this_run: set[str] = set()
        self.count = 0

    def add(self, path: str, reason: str, source: Source | None = None) -> None:
        """Record that a photo or folder could not be read, in place of what was said of it before.

        source: that led to it, if it was one.
        """
        self.count += 1
        path = printable(path)
        list_path = printable(str(source.path)) if source and source.kind == "list" else None
        self._failures[path] = Failure(path, printable(reason), list_path)
        self._of_this_run.add(path)

    def forget(self, path: str) -> None:
        """Drop the failure of a path that could be read now, if there is one."""
        self._failures.pop(printable(path), None)

    def forget_outdated(self, coverage: Coverage) -> None:
        """Drop earlier failures that this run, now that it is over, would have met again."""
        for path, failure in list(self._failures.items()):
            if path not in self._of_this_run and coverage.includes(path, failure.list_path):
                del self._failures[path]

    def write(self) -> None:
        """Write the record if it has changed. Raises OSError."""
        current = sorted(self._failures.values(), key=lambda failure: failure.path)
        if current != read_failures(self._index_dir):
            write_failures(self._index_dir, current)
