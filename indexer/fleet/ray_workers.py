"""Work is done to the parts of a fleet by workers on a Ray cluster.

This process owns the queue of parts. Where a worker dies, alone or with its machine, its part is
queued again, and another worker is hired as soon as there is room. So a run goes on with the
machines that are left.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexer.bucket.object_store import ConflictError
from indexer.fleet.fleet_progress import FleetProgress
from indexer.fleet.new_fleet import NewFleet
from indexer.fleet.part_work import (
    Given,
    PartQueue,
    PartWork,
    PartWorkers,
    ThisProcess,
    nothing,
)
from indexer.fleet.part_worker import CodecWorker, PartWorker
from indexer.parts import Fleet
from indexer.protocols import Extractor
from indexer.ray_cluster import (
    ClusterError,
    RayCluster,
    RayWorkers,
    WorkerLostError,
    ray_on_stderr,
)

# A part that has cost so many workers their lives would cost others too.
_MOST_DEATHS = 5
# Seconds.
_BETWEEN_LOOKS = 0.5
_TO_STOP = 120.0


@dataclass
class _Hired:
    """A hired worker.

    answer: the coming answer to what it was last asked to do. part: the part it works on; None
    until it has started. told: the coming answer to how far it is; None where it was not asked.
    """

    actor: Any
    answer: Any
    part: int | None = None
    told: Any = None


@contextlib.contextmanager
def part_workers(cluster: RayCluster | None) -> Iterator[PartWorkers]:
    """The workers of a cluster, or this process where there is none. Raises ClusterError."""
    if cluster is None:
        yield ThisProcess()
        return
    with cluster.connect() as workers:
        yield PartPool(workers)


class PartPool:
    """The workers that make, update and look after a fleet (`PartWorkers`). workers: of a cluster
    that is connected.
    """

    def __init__(self, workers: RayWorkers) -> None:
        self._workers = workers

    @ray_on_stderr()
    def fit(self, new: NewFleet, extractor: Extractor, on_progress: Callable[[int], None]) -> Fleet:
        """Have a worker fit the codec of a new fleet: it has the workers' device, and what it finds
        out of the model, such as the precision there, holds for all.

        extractor: the worker loads its model by name. Raises what the worker raised, and
        ClusterError.
        """
        model = str(extractor.fingerprint()["model"])
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
    def work(
        self,
        work: PartWork,
        parts: Sequence[int],
        progress: FleetProgress,
        given: Given = nothing,
    ) -> dict[int, Any]:
        """As `PartWorkers.work`.

        On KeyboardInterrupt, and where a worker fails, the others commit what they have done.
        Raises what a worker raised, and ClusterError.
        """
        return _Run(self._workers, work, PartQueue(parts, progress), progress, given).results()


@dataclass
class _Run:
    """One piece of work, and the workers that do it."""

    workers: RayWorkers
    work: PartWork
    queue: PartQueue
    progress: FleetProgress
    given: Given
    hired: list[_Hired] = field(default_factory=list)
    done: dict[int, Any] = field(default_factory=dict)
    deaths: Counter[int | None] = field(default_factory=Counter)

    def results(self) -> dict[int, Any]:
        """Do all of it."""
        parts = len(self.queue)
        try:
            while len(self.done) < parts:
                self._hire()
                self._take_answers()
                self._take_progress()
        except BaseException:
            self._stop()
            raise
        finally:
            for hired in self.hired[:]:
                self._dismiss(hired)
        return self.done

    def _hire(self) -> None:
        """Ask for as many workers as there is work and room for.

        A worker gets its part once it has started, so no part waits for a worker that never comes.
        """
        at_work = sum(hired.part is not None for hired in self.hired)
        room = self.workers.room()
        wanted = min(room.workers, at_work + len(self.queue))
        while len(self.hired) < wanted:
            worker = self.workers.hire(PartWorker, room, self.work, room.cores)
            self.hired.append(_Hired(worker, worker.start.remote()))

    def _take_answers(self) -> None:
        """Wait a moment for answers; give whoever has answered the next part."""
        by_answer = {hired.answer: hired for hired in self.hired}
        for answer in self.workers.come(list(by_answer), _BETWEEN_LOOKS):
            hired = by_answer[answer]
            try:
                self._settle(hired, self.workers.answer(answer))
            except ConflictError as error:
                assert hired.part is not None
                self.queue.put_last(hired.part, error)
            except WorkerLostError as error:
                self._replace(hired, error)
                continue
            if self.queue:
                hired.part = self.queue.take()
                hired.answer = hired.actor.do.remote(hired.part, self.given(hired.part))
            else:
                self._dismiss(hired)
        self.progress.workers(sum(hired.part is not None for hired in self.hired))

    def _settle(self, hired: _Hired, answer: Any) -> None:
        """Note that a worker has started, or that it is done with its part."""
        if hired.part is None:
            del self.deaths[None]  # workers can be started
            return
        self.done[hired.part], last = answer
        if last is not None and last[0] == hired.part:
            self.progress.report(*last)
        self.progress.finish(hired.part)

    def _replace(self, dead: _Hired, error: Exception) -> None:
        """Queue the part of a lost worker again.

        Raises ClusterError where the part, or the start of workers, has cost too many workers.
        """
        self._dismiss(dead)
        self.deaths[dead.part] += 1
        if self.deaths[dead.part] >= _MOST_DEATHS:
            of_what = "as they started" if dead.part is None else f"at part {dead.part:05d}"
            raise _too_many_deaths(of_what, error)
        if dead.part is not None:
            self.queue.put_first(dead.part)

    def _take_progress(self) -> None:
        """Ask every worker how far it is, and report the answers that have come."""
        asked = {hired.told: hired for hired in self.hired if hired.told is not None}
        told = self.workers.come([*asked], 0, len(asked)) if asked else []
        for answer in told:
            asked[answer].told = None
            with contextlib.suppress(WorkerLostError):  # `_take_answers` deals with it
                found = self.workers.answer(answer)
                if found is not None and found[0] == asked[answer].part:
                    self.progress.report(*found)
        for hired in self.hired:
            if hired.part is not None and hired.told is None:
                hired.told = hired.actor.progress.remote()

    def _stop(self) -> None:
        """Have all workers commit what they have, and wait for it."""
        at_work = [hired for hired in self.hired if hired.part is not None]
        for hired in at_work:
            hired.actor.stop.remote()
        if at_work:
            answers = [hired.answer for hired in at_work]
            self.workers.come(answers, _TO_STOP, len(answers))

    def _dismiss(self, hired: _Hired) -> None:
        """Let go of a worker, dead or alive."""
        self.hired.remove(hired)
        self.workers.dismiss(hired.actor)


def _too_many_deaths(when: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"{_MOST_DEATHS} workers died {when}, perhaps because memory was full; what is done is "
        f"kept. Ray says of the last: {error}"
    )
