"""Parts of a fleet are brought up to date by workers on a Ray cluster.

This process owns the queue of parts. Where a worker dies, alone or with its machine, its part is
queued again, and another worker is hired as soon as there is room. So a run goes on with the
machines that are left.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexer.bucket.object_store import ConflictError
from indexer.fleet.fleet_progress import FleetProgress
from indexer.fleet.new_fleet import NewFleet
from indexer.fleet.part_update import MOST_CONFLICTS, PartUpdate
from indexer.fleet.part_worker import CodecWorker, PartWork, PartWorker
from indexer.fleet.shares import Shares
from indexer.ingest.progress import IndexReport
from indexer.parts import Fleet
from indexer.ray_cluster import ClusterError, RayWorkers, WorkerLostError, ray_on_stderr

# A part that has cost so many workers their lives would cost others too.
_MOST_DEATHS = 5
# Seconds.
_BETWEEN_LOOKS = 0.5
_TO_STOP = 120.0


@dataclass
class _Hired:
    """A worker. answer: to what it was asked to do last. part: that it is at; None until it is
    ready. told: the answer to how far it is.
    """

    actor: Any
    answer: Any
    part: int | None = None
    told: Any = None


class PartPool:
    """The workers that make and update a fleet. workers: of a cluster that is connected."""

    def __init__(self, workers: RayWorkers) -> None:
        self._workers = workers
        self._hired: list[_Hired] = []
        self._waiting: deque[int] = deque()
        self._reports: dict[int, IndexReport] = {}
        self._deaths: Counter[int | None] = Counter()
        self._conflicts: Counter[int] = Counter()

    @ray_on_stderr()
    def fit(self, new: NewFleet, model: str, on_progress: Callable[[int], None]) -> Fleet:
        """Have a worker fit the codec of a new fleet: it has the workers' device, and what it finds
        out of the model, such as the precision there, holds for all.

        model: its name. Raises what the worker raised, and ClusterError.
        """
        for _ in range(_MOST_DEATHS):
            room, device = self._workers.room(), self._workers.cluster.device
            worker = self._workers.hire(CodecWorker, room, new, model, device, room.cores)
            try:
                fleet = worker.fit.remote()
                while not self._workers.come([fleet], _BETWEEN_LOOKS):
                    with contextlib.suppress(TimeoutError):
                        told = worker.progress.remote()
                        on_progress(self._workers.answer(told, _BETWEEN_LOOKS))
                found: Fleet = self._workers.answer(fleet)
                return found
            except WorkerLostError as error:
                last = error
            finally:
                self._workers.dismiss(worker)
        raise _too_many_deaths("as they fitted the codec", last)

    @ray_on_stderr()
    def update_parts(
        self,
        update: PartUpdate,
        shares: Shares,
        descriptors: Sequence[Mapping[str, Any]],
        progress: FleetProgress,
    ) -> list[IndexReport]:
        """Bring every part of a fleet up to date; returns their reports in order.

        descriptors: their fingerprints. On KeyboardInterrupt, and where a worker fails, the others
        commit what they have extracted. Raises what a worker raised, and ClusterError.
        """
        parts = range(update.fleet.parts)
        self._waiting.extend(parts)
        try:
            while len(self._reports) < len(parts):
                self._hire(update, descriptors)
                self._take_answers(shares, progress)
                self._take_progress(progress)
        except BaseException:
            self._stop()
            raise
        finally:
            for hired in self._hired[:]:
                self._dismiss(hired)
        return [self._reports[number] for number in parts]

    def _hire(self, update: PartUpdate, descriptors: Sequence[Mapping[str, Any]]) -> None:
        """Ask for as many workers as there is work and room for. Each gets a part when it is there,
        so none is kept for a worker that may never come.
        """
        at_work = sum(hired.part is not None for hired in self._hired)
        room = self._workers.room()
        wanted = min(room.workers, at_work + len(self._waiting))
        while len(self._hired) < wanted:
            device = self._workers.cluster.device
            work = PartWork(update, tuple(descriptors), device, room.cores)
            worker = self._workers.hire(PartWorker, room, work)
            self._hired.append(_Hired(worker, worker.start.remote()))

    def _take_answers(self, shares: Shares, progress: FleetProgress) -> None:
        """Wait a moment for answers; give whoever has answered the next part."""
        by_answer = {hired.answer: hired for hired in self._hired}
        for answer in self._workers.come(list(by_answer), _BETWEEN_LOOKS):
            hired = by_answer[answer]
            try:
                self._settle(hired, self._workers.answer(answer), progress)
            except ConflictError as error:
                self._queue_last(hired, error, progress)
            except WorkerLostError as error:
                self._replace(hired, error, progress)
                continue
            if self._waiting:
                hired.part = self._waiting.popleft()
                hired.answer = hired.actor.update.remote(hired.part, shares.of(hired.part))
            else:
                self._dismiss(hired)
        progress.workers(sum(hired.part is not None for hired in self._hired))

    def _settle(self, hired: _Hired, done: Any, progress: FleetProgress) -> None:
        """Note that a worker has started, or has brought its part up to date."""
        if hired.part is None:
            del self._deaths[None]  # workers can be started
            return
        self._reports[hired.part], last = done
        progress.report(hired.part, last)
        progress.finish(hired.part)

    def _queue_last(self, hired: _Hired, error: ConflictError, progress: FleetProgress) -> None:
        """Queue a part again, behind the others, which another run has written meanwhile. Raises
        the error where that has happened too often.
        """
        assert hired.part is not None
        self._conflicts[hired.part] += 1
        if self._conflicts[hired.part] >= MOST_CONFLICTS:
            raise error
        self._waiting.append(hired.part)
        progress.queue_again(hired.part)

    def _replace(self, dead: _Hired, error: Exception, progress: FleetProgress) -> None:
        """Queue the part of a worker again that is gone. Raises ClusterError where that has
        happened too often.
        """
        self._dismiss(dead)
        self._deaths[dead.part] += 1
        if self._deaths[dead.part] >= _MOST_DEATHS:
            of_what = "as they started" if dead.part is None else f"at part {dead.part:05d}"
            raise _too_many_deaths(of_what, error)
        if dead.part is not None:
            self._waiting.appendleft(dead.part)
            progress.queue_again(dead.part)

    def _take_progress(self, progress: FleetProgress) -> None:
        """Ask every worker how far it is, and report what those say who have answered."""
        asked = {hired.told: hired for hired in self._hired if hired.told is not None}
        told = self._workers.come([*asked], 0, len(asked)) if asked else []
        for answer in told:
            asked[answer].told = None
            with contextlib.suppress(WorkerLostError):  # `_take_answers` deals with it
                found = self._workers.answer(answer)
                if found is not None and found[0] == asked[answer].part:
                    progress.report(*found)
        for hired in self._hired:
            if hired.part is not None and hired.told is None:
                hired.told = hired.actor.progress.remote()

    def _stop(self) -> None:
        """Have all workers commit what they have, and wait for it."""
        at_work = [hired for hired in self._hired if hired.part is not None]
        for hired in at_work:
            hired.actor.stop.remote()
        if at_work:
            answers = [hired.answer for hired in at_work]
            self._workers.come(answers, _TO_STOP, len(answers))

    def _dismiss(self, hired: _Hired) -> None:
        """Let go of a worker, dead or alive."""
        self._hired.remove(hired)
        self._workers.dismiss(hired.actor)


def _too_many_deaths(when: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"{_MOST_DEATHS} workers died {when}, perhaps because memory was full; what is done is "
        f"kept. Ray says of the last: {error}"
    )
