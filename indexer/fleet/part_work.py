"""Work that is done to every part of a fleet, and who does it: this process, one part after the
other, or the workers of a pool.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from indexer.bucket.object_store import ConflictError
from indexer.fleet.fleet_progress import FleetProgress
from indexer.fleet.new_fleet import NewFleet
from indexer.parts import Fleet
from indexer.protocols import Extractor

# A part that another run has written meanwhile is done again. Each time that run has got on; only a
# server that refuses without a reason would do so for ever.
MOST_CONFLICTS = 100

# Is told how far a piece of work is.
OnStep = Callable[[Any], None]
# Gives what the work needs for one part alone, by the part's number.
Given = Callable[[int], Any]


class PartWork(Protocol):
    """What is done to a part, in any process that sees the folder or the bucket of the fleet.

    fleet: by its absolute path. url: of a fleet in a bucket, of which only the machine of the run
    has the folder.
    """

    @property
    def fleet(self) -> Fleet: ...

    @property
    def url(self) -> str | None: ...

    def check_machine(self) -> None:
        """Raise WaldoError where a worker's machine lacks what the work needs beside the fleet."""

    def run(self, number: int, given: Any, on_step: OnStep) -> Any:
        """Do the work to the part of this number.

        Raises ConflictError where another run has written the part meanwhile, IndexBusyError while
        another process has it, KeyboardInterrupt where on_step raises that; and what else is wrong.
        """


def nothing(number: int) -> None:
    """For work that needs the same for all parts (`Given`)."""


class PartWorkers(Protocol):
    """Who makes a fleet, and does work to its parts."""

    def fit(self, new: NewFleet, extractor: Extractor, on_progress: Callable[[int], None]) -> Fleet:
        """As `NewFleet.fit`."""

    def work(
        self, work: PartWork, parts: Sequence[int], progress: FleetProgress, given: Given = nothing
    ) -> dict[int, Any]:
        """Do some work to parts; returns what it makes of each, by number.

        Raises what the work raises.
        """


class PartQueue:
    """The parts, by number, that wait for somebody to work on them."""

    def __init__(self, parts: Sequence[int], progress: FleetProgress) -> None:
        self._waiting = deque(parts)
        self._conflicts: Counter[int] = Counter()
        self._progress = progress

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> int:
        """The next part."""
        return self._waiting.popleft()

    def put_first(self, number: int) -> None:
        """Take back a part whose worker is gone."""
        self._waiting.appendleft(number)
        self._progress.queue_again(number)

    def put_last(self, number: int, error: ConflictError) -> None:
        """Take back a part that another run has written meanwhile, and may still be writing.

        Raises the error where that has happened too often.
        """
        self._conflicts[number] += 1
        if self._conflicts[number] >= MOST_CONFLICTS:
            raise error
        self._waiting.append(number)
        self._progress.queue_again(number)


class ThisProcess:
    """Does everything itself (`PartWorkers`)."""

    def fit(self, new: NewFleet, extractor: Extractor, on_progress: Callable[[int], None]) -> Fleet:
        return new.fit(extractor, on_progress)

    def work(
        self, work: PartWork, parts: Sequence[int], progress: FleetProgress, given: Given = nothing
    ) -> dict[int, Any]:
        queue, results = PartQueue(parts, progress), dict[int, Any]()
        while queue:
            number = queue.take()
            try:
                report = partial(progress.report, number)
                results[number] = work.run(number, given(number), report)
                progress.finish(number)
            except ConflictError as error:
                queue.put_last(number, error)
        return results
