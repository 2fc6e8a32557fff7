"""Progress of long work on standard error: a live bar, or a line now and then in a file."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from indexer.ingest.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

# Seconds between lines where standard error is a file or a pipe.
_INTERVAL = 10.0


class ProgressDisplay:
    """Shows how far work is: a context manager, called with an indexing run's `Progress`, and
    `show` for all else.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._next_line = time.monotonic() + _INTERVAL

    def __enter__(self) -> "ProgressDisplay":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("indexing", total=None, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        doing = "indexing" if progress.stage == "index" else "looking at a sample"
        left = None if progress.total is None else progress.total - progress.done
        worked = progress.new + progress.failed
        note = rate_and_time_left(worked, left, progress.seconds, "photos")
        self.show(doing, progress.done, progress.total, note)

    def show(self, doing: str, done: int, total: int | None, note: str = "") -> None:
        """What is being done, and how much of it is; total: None while unknown."""
        if self._bar is not None:
            self._bar.update(self._task, description=doing, completed=done, total=total, note=note)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _INTERVAL
            parts = (f"{doing}: {done}" + ("" if total is None else f" of {total}"), note)
            print(", ".join(part for part in parts if part), file=sys.stderr)


def rate_and_time_left(worked: int, left: int | None, seconds: float, things: str) -> str:
    """E.g. '12.5 photos/s, 1:40 left'; worked: those that took work, so count for the rate. left:
    how many are to come, None while unknown.
    """
    if worked == 0 or seconds <= 0:
        return ""
    rate = worked / seconds
    if left is None:
        return f"{rate:.1f} {things}/s"
    whole = round(left / rate)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    time_left = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    return f"{rate:.1f} {things}/s, {time_left} left"
