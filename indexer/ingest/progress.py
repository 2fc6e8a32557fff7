"""What an indexing run reports: how far it is, and in the end what it did."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True)
class PartsProgress:
    """How far the parts of a fleet are.

    total: how many there are. done: finished in this run. workers: of a cluster, how many are at
    work; None where there is no cluster. again: parts, by number, whose workers are gone, and that
    are done again.
    """

    total: int
    done: int
    workers: int | None = None
    again: tuple[int, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    stage: "fit" while photos are extracted that the codec is fitted on, then "index". done: files
    that are finished; in the stage "fit", photos that are extracted. total: files found by the
    listing, None while unknown. new: photos that were extracted, described or given a row. skipped:
    unchanged photos, and files that are no pictures. failed: photos that could not be read.
    seconds: since the stage began. waiting: photos that the stage "fit" has extracted, and that are
    not finished yet. parts: of a fleet.
    """

    stage: Literal["fit", "index"]
    done: int
    total: int | None
    new: int
    skipped: int
    failed: int
    seconds: float
    waiting: int = 0
    parts: PartsProgress | None = None


@dataclass(frozen=True)
class IndexReport:
    """What a run did, in photos.

    new: not known before, including copies of known photos. changed: other content at a known path,
    or maps that were lost and made again. moved: known content at another path. unchanged: left as
    they were. removed: no longer there. kept: not found, but perhaps on a drive that is away.
    failed: could not be read. passed_over: files that are no pictures; videos, raw_files: how many
    of them are videos, and raw files of cameras. described: given descriptors that the index lacked
    for their content. total: photos in the index now. seconds: of the whole run.
    """

    index_dir: Path
    new: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    kept: int = 0
    failed: int = 0
    passed_over: int = 0
    videos: int = 0
    raw_files: int = 0
    described: int = 0
    total: int = 0
    seconds: float = 0.0


class ProgressReporter:
    """Calls a listener with the progress of a run, at most ten times per second.

    total: files found by the listing, or None. started: `time.monotonic()` when the run began.
    """

    def __init__(
        self, listener: Callable[[Progress], None] | None, total: int | None, started: float
    ) -> None:
        self.total = total
        self._listener = listener
        self._run_started = self._stage_started = self._last_report = started

    def report_fit(self, done: int) -> None:
        """Report how many photos are extracted for the codec's sample."""
        self._report(Progress("fit", done, self.total, done, 0, 0, self.seconds(), done))
        self._stage_started = time.monotonic()  # the last of these calls ends the stage

    def report(
        self,
        done: int,
        new: int,
        skipped: int,
        failed: int,
        waiting: int = 0,
        at_once: bool = False,
    ) -> None:
        """Report how far indexing is, in the terms of `Progress`.

        at_once: also if the last report was less than a tenth of a second ago.
        """
        seconds = time.monotonic() - self._stage_started
        progress = Progress("index", done, self.total, new, skipped, failed, seconds, waiting)
        self._report(progress, at_once)

    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._run_started

    def _report(self, progress: Progress, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._listener and (at_once or now - self._last_report >= _SECONDS_BETWEEN_REPORTS):
            self._last_report = now
            self._listener(progress)
