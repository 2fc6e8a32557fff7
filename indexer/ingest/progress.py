"""What an indexing run says of itself: how far it is, and in the end what it did."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    stage: "fit" while photos are looked at that the codec is fitted on, else "index". done, total:
    files looked at, and found by the listing (None while unknown). new: photos extracted, described
    or given a row. skipped: unchanged photos and files that are no pictures. failed: photos that
    could not be read. seconds: since the stage began.
    """

    stage: Literal["fit", "index"]
    done: int
    total: int | None
    new: int
    skipped: int
    failed: int
    seconds: float


@dataclass(frozen=True)
class IndexReport:
    """What a run did, in photos.

    new: not known before (copies of known photos too). changed: other content at a known path, or
    maps that were lost and made again. moved: known content at another path. unchanged: left as
    they were. removed: no longer there. failed: could not be read. passed_over: files that are no
    pictures. described: given descriptors that the index lacked of their content. total: photos in
    the index now. seconds: the whole run.
    """

    index_dir: Path
    new: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    passed_over: int = 0
    described: int = 0
    total: int = 0
    seconds: float = 0.0


class ProgressTeller:
    """Tells a listener of a run's progress, ten times a second at most.

    total: files found by the listing, or None. started: `time.monotonic()` when the run began.
    """

    def __init__(
        self, listener: Callable[[Progress], None] | None, total: int | None, started: float
    ) -> None:
        self._listener = listener
        self._total = total
        self._started = self._fitted = self._last = started

    def tell_of_fit(self, done: int, total: int) -> None:
        """That `done` photos of the codec's sample have been looked at, of `total`."""
        self._tell(Progress("fit", done, total, done, 0, 0, self.seconds()))
        self._fitted = time.monotonic()

    def tell(self, done: int, new: int, skipped: int, failed: int, at_once: bool = False) -> None:
        """How far indexing is, in `Progress`'s terms. at_once: however short ago the last was."""
        seconds = time.monotonic() - self._fitted
        self._tell(Progress("index", done, self._total, new, skipped, failed, seconds), at_once)

    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def _tell(self, progress: Progress, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._listener and (at_once or now - self._last >= _SECONDS_BETWEEN_REPORTS):
            self._last = now
            self._listener(progress)
