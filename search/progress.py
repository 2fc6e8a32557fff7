"""Progress of long work on standard error: a live bar, or a line now and then in a file."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from indexer.build import Progress

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
        self.show(doing, progress.done, progress.total, rate_and_time_left(progress))

    def show(self, doing: str, done: int, total: int | None, note: str = "") -> None:
        """What is being done, and how much of it is; total: None while unknown."""
        if self._bar is not None:
            self._bar.update(self._task, description=doing, completed=done, total=total, note=note)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _INTERVAL
            parts = (f"{doing}: {done} of {total}", note)
            print(", ".join(part for part in parts if part), file=sys.stderr)


def rate_and_time_left(progress: Progress) -> str:
    """E.g. '12.5 photos/s, 1:40 left'; only photos that took work count for the rate."""
    worked = progress.new + progress.failed
    if worked == 0 or progress.seconds <= 0:
        return ""
    rate = worked / progress.seconds
    if progress.total is None:
        return f"{rate:.1f} photos/s"
    left = round((progress.total - progress.done) / rate)
    hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
    time_left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{rate:.1f} photos/s, {time_left} left"
