"""Progress of long work on standard error: a bar on a terminal, some lines in a file or pipe."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from indexer.ingest.progress import PartsProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Task, TaskID

# Seconds between lines where standard error is a file or a pipe.
_INTERVAL = 10.0

# The rate is the mean over this many seconds. A batch of a large model can take minutes on a CPU.
_RATE_OVER = 600.0

# Parts of a fleet that are named at a time.
_MOST_SHOWN = 5


class ProgressDisplay:
    """Shows how far work is: a context manager with `show`.

    It can be called with the `Progress` of an indexing run.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar
        from rich.text import Text

        class RateColumn(ProgressColumn):
            def render(self, task: "Task") -> Text:
                return Text("" if task.speed is None else f"{task.speed:.1f}/s")

        self._is_terminal = sys.stderr.isatty()
        self._columns = (MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            BarColumn(),
            *self._columns,
            console=Console(stderr=True),
            transient=True,
            get_time=time.monotonic,
            speed_estimate_period=_RATE_OVER,
            disable=not self._is_terminal,
        )
        self._task: TaskID | None = None
        self._next_line = time.monotonic() + _INTERVAL
        self._again: tuple[int, ...] = ()

    def __enter__(self) -> "ProgressDisplay":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """One bar from the first photo to the last: those of the codec's sample are extracted
        early, and each counts once. Photos that need no work are left out, so that the rate is that
        of the others.
        """
        finished = progress.done if progress.stage == "index" else 0
        worked = progress.new + progress.failed if progress.stage == "index" else 0
        total = None if progress.total is None else worked + progress.total - finished
        note = self._parts_note(progress.parts)
        self.show("indexing", worked + progress.waiting, total, note)

    def show(self, doing: str, done: int, total: int | None, note: str = "") -> None:
        """What is being done, and how much of it is done. total: None while unknown. note: what
        else there is to say.

        The rate is measured anew whenever `doing` changes.
        """
        if self._task is None or self._bar.tasks[0].description != doing:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(doing, total=total, completed=done, note=note)
        else:
            # Set directly: `update` would forget the rate whenever the total changes.
            self._bar.tasks[0].total = total
            self._bar.update(self._task, completed=done, note=note)
        if not self._is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _INTERVAL
            print(f"{doing}: {self._line()}", file=sys.stderr)

    def show_bytes(
        self, doing: str, done: int, total: int, parts: PartsProgress | None = None
    ) -> None:
        """As `show`, of bytes, those of a fleet with what there is to say of its parts."""
        self.show(f"{doing}, MiB", done >> 20, total >> 20, self._parts_note(parts))

    def show_parts(self, doing: str, _: object, parts: PartsProgress) -> None:
        """As `show`, of the parts of a fleet."""
        self.show(f"{doing} parts", parts.done, parts.total, self._parts_note(parts))

    def _line(self) -> str:
        """The columns of the bar as text, e.g. '40/100, 12.5/s, 0:00:05 left'."""
        [task] = self._bar.tasks
        done, rate, left = (column.render(task).plain.strip() for column in self._columns)
        left = f"{left} left" if task.time_remaining is not None else ""
        known = [done, rate, left, task.fields["note"]]
        return ", ".join(part for part in known if part)

    def _parts_note(self, parts: PartsProgress | None) -> str:
        """What there is to say of a fleet, e.g. '3 of 16 parts, 4 workers, part 7 again'."""
        if parts is None:
            return ""
        if parts.again != self._again:
            self._again, self._next_line = parts.again, 0.0  # told at once
        notes = [f"{parts.done} of {parts.total} parts"]
        if parts.workers is not None:
            notes.append(f"{parts.workers} worker{'s' * (parts.workers != 1)}")
        if parts.again:
            shown = ", ".join(map(str, parts.again[:_MOST_SHOWN]))
            more = ", ..." if len(parts.again) > _MOST_SHOWN else ""
            notes.append(f"part{'s' * (len(parts.again) > 1)} {shown}{more} again")
        return ", ".join(notes)
