"""What the parts of a fleet tell of their progress, put together."""

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from indexer.ingest.progress import PartsProgress, Progress

_COUNTS = ("done", "new", "skipped", "failed")

# Is called with the last step that each part has reported, of the parts that have begun, and with
# how many parts are done.
OnParts = Callable[[Collection[Any], PartsProgress], None]


class FleetProgress:
    """Tells a listener of every step of the parts. parts: how many are to be done."""

    def __init__(self, parts: int, listener: OnParts | None) -> None:
        self._listener = listener
        self._last: dict[int, Any] = {}
        self._finished: set[int] = set()
        self._again: set[int] = set()
        self._parts = PartsProgress(parts, 0)

    def report(self, part: int, step: Any) -> None:
        """A part, by its number, has reached a step."""
        self._last[part] = step
        self._notify()

    def finish(self, part: int) -> None:
        """A part is done."""
        self._finished.add(part)
        self._again.discard(part)
        self._notify()

    def workers(self, count: int) -> None:
        """So many workers are at work."""
        if count != self._parts.workers:
            self._parts = replace(self._parts, workers=count)
            self._notify()

    def queue_again(self, part: int) -> None:
        """A part is queued again, so what was reported of it no longer counts."""
        self._last.pop(part, None)
        self._again.add(part)
        self._notify()

    def _notify(self) -> None:
        self._parts = replace(
            self._parts, done=len(self._finished), again=tuple(sorted(self._again))
        )
        if self._listener is not None:
            self._listener(self._last.values(), self._parts)


def as_one_run(listener: Callable[[Progress], None] | None, files: int) -> OnParts | None:
    """Reports the indexing runs of all parts to a listener as one run. files: of all parts."""
    if listener is None:
        return None
    started = time.monotonic()

    def tell(last: Collection[Progress], parts: PartsProgress) -> None:
        sums = {name: sum(getattr(one, name) for one in last) for name in _COUNTS}
        seconds = time.monotonic() - started
        listener(Progress("index", total=files, seconds=seconds, parts=parts, **sums))

    return tell
