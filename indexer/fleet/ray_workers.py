"""Parts of a fleet are brought up to date by workers on a Ray cluster. Of all modules, this alone
imports ray.

This process owns the queue of parts. A worker is an actor that Ray never restarts: where one dies,
alone or with its machine, its part is queued again, and another worker is hired as soon as there is
room. So a run goes on with the machines that are left. Pixels and maps do not pass through Ray.
"""

import contextlib
import logging
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.errors import WaldoError
from indexer.errors import one_line
from indexer.fleet.fleet_progress import FleetProgress
from indexer.fleet.new_fleet import NewFleet
from indexer.fleet.part_update import PartUpdate
from indexer.fleet.part_worker import CodecWorker, PartWork, PartWorker
from indexer.fleet.parts import Fleet
from indexer.ingest.progress import IndexReport

# Cores of a worker where there is no GPU, and at most for one GPU.
_CORES_PER_WORKER = 4
_MOST_CORES_PER_GPU = 8
# A part that has cost so many workers their lives would cost others too.
_MOST_DEATHS = 5
# Seconds.
_TO_CONNECT = 5.0
_BETWEEN_LOOKS = 0.5
_TO_STOP = 120.0


class ClusterError(WaldoError):
    """Ray is not installed, or its cluster cannot be reached, or loses one worker after another."""


@dataclass(frozen=True)
class RayCluster:
    """Where the parts of a fleet are brought up to date.

    address: HOST:PORT of a cluster's head; "auto" for the cluster that this machine belongs to, or,
    if there is none, for one of this machine alone, which is started. device: where the workers'
    models run. workers: how many there are at most; None for one per GPU of the cluster, or for one
    per four cores where it has no GPU.
    """

    address: str = "auto"
    device: str = "auto"
    workers: int | None = None

    def check(self) -> None:
        """Raise ClusterError where ray is missing, or where nobody answers at the address."""
        _import_ray()
        if self.address != "auto":
            _check_reachable(self.address)

    @contextlib.contextmanager
    def connect(self) -> Iterator["RayPool"]:
        """Connect to the cluster, or start one, until the context ends. Raises ClusterError."""
        self.check()
        ray = _import_ray()
        try:
            ray.init(
                None if self.address == "auto" else self.address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterError(
                f"the Ray cluster {self.address} cannot be used: {one_line(error)}"
            ) from error
        try:
            # Ray prints what happens to its machines, where results would be expected.
            with contextlib.redirect_stdout(sys.stderr):
                yield RayPool(self, ray)
        finally:
            ray.shutdown()


@dataclass
class _Hired:
    """A worker. answer: to what it was asked to do last. part: that it is at; None until it is
    ready. told: the answer to how far it is.
    """

    actor: Any
    answer: Any
    part: int | None = None
    told: Any = None


class RayPool:
    """The workers on a cluster; made by `RayCluster.connect`."""

    def __init__(self, cluster: RayCluster, ray: Any) -> None:
        self._cluster = cluster
        self._ray = ray
        self._hired: list[_Hired] = []
        self._waiting: deque[int] = deque()
        self._reports: dict[int, IndexReport] = {}
        self._deaths: Counter[int | None] = Counter()

    def fit(self, new: NewFleet, model: str, on_progress: Callable[[int], None]) -> Fleet:
        """Have a worker fit the codec of a new fleet: it has the workers' device, and what it finds
        out of the model, such as the precision there, holds for all.

        model: its name. Raises what the worker raised, and ClusterError.
        """
        exceptions = self._ray.exceptions
        for _ in range(_MOST_DEATHS):
            cores, gpus, _room = self._room()
            actor_class = self._actor_class(CodecWorker, cores, gpus)
            actor = actor_class.remote(new, model, self._cluster.device, cores)
            try:
                fleet = actor.fit.remote()
                while not self._ray.wait([fleet], timeout=_BETWEEN_LOOKS)[0]:
                    with contextlib.suppress(exceptions.GetTimeoutError):
                        told = actor.progress.remote()
                        on_progress(self._ray.get(told, timeout=_BETWEEN_LOOKS))
                found: Fleet = self._ray.get(fleet)
                return found
            except exceptions.RayTaskError as error:
                raise error.cause from error
            except exceptions.RayError as error:
                last = error
            finally:
                self._ray.kill(actor, no_restart=True)
        raise _too_many_deaths("as they fitted the codec", last)

    def update_parts(
        self,
        update: PartUpdate,
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
                self._take_answers(progress)
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
        cores, gpus, room = self._room()
        wanted = min(self._cluster.workers or room, at_work + len(self._waiting))
        actor_class = self._actor_class(PartWorker, cores, gpus)
        while len(self._hired) < wanted:
            work = PartWork(update, tuple(descriptors), self._cluster.device, cores)
            actor = actor_class.remote(work)
            self._hired.append(_Hired(actor, actor.start.remote()))

    def _actor_class(self, worker: type, cores: int, gpus: int) -> Any:
        return self._ray.remote(
            num_cpus=cores,
            num_gpus=gpus,
            max_restarts=0,
            max_concurrency=2,  # one thread works, the other one answers
        )(worker)

    def _room(self) -> tuple[int, int, int]:
        """Cores and GPUs of a worker, and for how many workers the cluster has room now."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
        if with_gpus and self._cluster.device != "cpu":
            fair = min(int(node.get("CPU", 1) // node["GPU"]) for node in with_gpus)
            room = sum(int(node["GPU"]) for node in with_gpus)
            return max(1, min(fair, _MOST_CORES_PER_GPU)), 1, room
        cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        each = min([_CORES_PER_WORKER, *cores])
        return each, 0, max(1, sum(count // each for count in cores))

    def _take_answers(self, progress: FleetProgress) -> None:
        """Wait a moment for answers; give whoever has answered the next part."""
        by_answer = {hired.answer: hired for hired in self._hired}
        answered, _ = self._ray.wait(list(by_answer), timeout=_BETWEEN_LOOKS)
        exceptions = self._ray.exceptions
        for answer in answered:
            hired = by_answer[answer]
            try:
                done = self._ray.get(answer)
            except exceptions.RayTaskError as error:
                raise error.cause from error
            except exceptions.RayError as error:
                self._replace(hired, error, progress)
                continue
            if hired.part is not None:
                self._reports[hired.part], last = done
                progress.report(hired.part, last)
                progress.finish(hired.part)
            if self._waiting:
                hired.part = self._waiting.popleft()
                hired.answer = hired.actor.update.remote(hired.part)
            else:
                self._dismiss(hired)
        progress.workers(sum(hired.part is not None for hired in self._hired))

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
        told = self._ray.wait([*asked], num_returns=len(asked), timeout=0)[0] if asked else []
        for answer in told:
            asked[answer].told = None
            with contextlib.suppress(
                self._ray.exceptions.RayError
            ):  # `_take_answers` deals with it
                found = self._ray.get(answer)
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
            self._ray.wait(answers, num_returns=len(answers), timeout=_TO_STOP)

    def _dismiss(self, hired: _Hired) -> None:
        """Let go of a worker, dead or alive."""
        self._hired.remove(hired)
        self._ray.kill(hired.actor, no_restart=True)


def _too_many_deaths(when: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"{_MOST_DEATHS} workers died {when}, perhaps because memory was full; what is done is "
        f"kept. Ray says of the last: {one_line(error)}"
    )


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError:
        raise ClusterError(
            "workers on a cluster need ray; run `pip install 'waldo-search[ray]'`"
        ) from None
    return ray


def _check_reachable(address: str) -> None:
    """Raise ClusterError for an address that nobody answers at, for which Ray would wait minutes.

    Ray takes a loopback address for this machine's outer one.
    """
    import ipaddress

    from ray.util import get_node_ip_address

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise ClusterError(
            f"the Ray cluster {address}: must be auto, or HOST:PORT of the cluster's head, such as "
            "10.0.0.5:6379"
        )
    host = host.strip("[]")
    is_loopback = host == "localhost"
    with contextlib.suppress(ValueError):
        is_loopback = is_loopback or ipaddress.ip_address(host).is_loopback
    reached = get_node_ip_address() if is_loopback else host
    try:
        socket.create_connection((reached, int(port)), timeout=_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"the Ray cluster {address}: nobody answers there ({error}); `ray start --head` prints "
            "the address"
        ) from error
