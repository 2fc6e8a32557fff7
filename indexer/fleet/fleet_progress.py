"""The progress of a fleet's parts as that of one run."""

import time
from collections.abc import Callable
from dataclasses import replace

from indexer.ingest.progress import PartsProgress, Progress

_COUNTS = ("done", "new", "skipped", "failed")


class FleetProgress:
    """Puts the progress of parts together.

    total: files of all parts. parts: how many there are.
    """

    def __init__(self, listener: Callable[[Progress], None] | None, total: int, parts: int) -> None:
        self._listener = listener
        self._total = total
        self._started = time.monotonic()
        self._last: dict[int, Progress] = {}
        self._finished: set[int] = set()
        self._again: set[int] = set()
        self._parts = PartsProgress(parts, 0)

    def report(self, part: int, progress: Progress) -> None:
        """A part, by its number, has come so far."""
        self._last[part] = progress
        self._notify()

    def finish(self, part: int) -> None:
        """A part is done."""
        self._finished.add(part)
        self._again.discard(part)
        self._notify()

    def workers(self, count: int) -> None:
        """So many workers are at it."""
        if count != self._parts.workers:
            self._parts = replace(self._parts, workers=count)
            self._notify()

    def queue_again(self, part: int) -> None:
        """The worker of a part is gone, and so may be what it had not committed."""
        self._last.pop(part, None)
        self._again.add(part)
        self._notify()

    def _notify(self) -> None:
        if self._listener is None:
            return
        self._parts = replace(
            self._parts, done=len(self._finished), again=tuple(sorted(self._again))
        )
        sums = {name: sum(getattr(one, name) for one in self._last.values()) for name in _COUNTS}
        seconds = time.monotonic() - self._started
        together = Progress("index", total=self._total, seconds=seconds, parts=self._parts, **sums)
        self._listener(together)
