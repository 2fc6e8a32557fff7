"""A Ray cluster, and workers on it. Of all modules, this alone imports ray.

A worker is an actor that Ray never restarts: whoever hires one hears of its death, and decides what
becomes of its work. Pixels and maps do not pass through Ray.
"""

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from features.errors import WaldoError
from indexer.errors import IndexMissingError, one_line

# Cores of a worker where there is no GPU, and at most for one GPU.
_CORES_PER_WORKER = 4
_MOST_CORES_PER_GPU = 8
# Seconds.
_TO_CONNECT = 5.0


class ClusterError(WaldoError):
    """Ray is not installed, or its cluster cannot be reached, or loses one worker after another."""


class WorkerLostError(Exception):
    """A worker is gone, alone or with its machine; its message says what Ray knows."""


@dataclass(frozen=True)
class Room:
    """What each worker gets, and how many workers to hire.

    cores, gpus: of each worker; 0 or 1 GPU. workers: `RayCluster.workers` where somebody set that,
    even where there is no room for them yet: clusters that grow add machines for those that wait.
    Else as many as there is room for now.
    """

    cores: int
    gpus: int
    workers: int


@dataclass(frozen=True)
class RayCluster:
    """Where workers are hired.

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
    def connect(self) -> Iterator["RayWorkers"]:
        """Connect to the cluster, or start one, until the context ends. Raises ClusterError.

        A process has one connection: where it has one already, that is used, and stays.
        """
        ray = _import_ray()
        if ray.is_initialized():
            yield RayWorkers(self, ray)
            return
        self.check()  # also after an earlier check: for a cluster that is gone Ray waits minutes
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
            yield RayWorkers(self, ray)
        finally:
            with ray_on_stderr():  # what Ray has held back it says now
                ray.shutdown()


class RayWorkers:
    """Hires workers and waits for their answers; made by `RayCluster.connect`.

    A worker is hired by its class. Its methods are called with `.remote`, as Ray has it, which
    gives a reference to an answer that is to come.
    """

    def __init__(self, cluster: RayCluster, ray: Any) -> None:
        self.cluster = cluster
        self._ray = ray

    def room(self) -> Room:
        """What to hire on the cluster as it is now, at least one worker."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
        if with_gpus and self.cluster.device != "cpu":
            fair = min(int(node.get("CPU", 1) // node["GPU"]) for node in with_gpus)
            room = sum(int(node["GPU"]) for node in with_gpus)
            return Room(max(1, min(fair, _MOST_CORES_PER_GPU)), 1, self.cluster.workers or room)
        cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        each = min([_CORES_PER_WORKER, *cores])
        room = max(1, sum(count // each for count in cores))
        return Room(each, 0, self.cluster.workers or room)

    def hire(self, worker: type, room: Room, *given: Any) -> Any:
        """A worker of this class, made with what is given. It comes when there is room for it."""
        actor_class = self._ray.remote(
            num_cpus=room.cores,
            num_gpus=room.gpus,
            max_restarts=0,
            max_concurrency=2,  # one thread works, the other one answers
        )(worker)
        return actor_class.remote(*given)

    def share(self, value: Any) -> Any:
        """A reference to a value for several workers: Ray sends the value to each machine once."""
        return self._ray.put(value)

    def dismiss(self, worker: Any) -> None:
        """Let go of a worker, dead or alive."""
        self._ray.kill(worker, no_restart=True)

    def come(self, answers: Sequence[Any], seconds: float, count: int = 1) -> list[Any]:
        """The answers that have come, as soon as there are `count` of them or the time is up."""
        found: list[Any] = self._ray.wait([*answers], num_returns=count, timeout=seconds)[0]
        return found

    def answer(self, coming: Any, seconds: float | None = None) -> Any:
        """What a worker answers. coming: what calling its method by `.remote` gave.

        Raises what the worker raised, WorkerLostError, and TimeoutError after so many seconds.
        """
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(coming, timeout=seconds)
        except exceptions.GetTimeoutError:
            raise
        except exceptions.RayTaskError as error:
            raise error.cause from error
        except exceptions.RayError as error:
            raise WorkerLostError(one_line(error)) from error


@contextlib.contextmanager
def ray_on_stderr() -> Iterator[None]:
    """Have Ray print on stderr what happens to its machines: on stdout are the results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def not_seen(place: str) -> IndexMissingError:
    """The error where this machine, a worker's, does not see a fleet. place: folder or address."""
    return IndexMissingError(
        f"{place}: is not this fleet on the machine {socket.gethostname()}; every machine of the "
        "cluster must see the same there"
    )


def set_threads(count: int) -> None:
    """Compute with as many threads as a worker has cores: more of them wait for each other.

    To be called in a worker before it computes anything.
    """
    # Read when torch and FAISS are first imported: not here, for work that needs neither.
    os.environ.update(OMP_NUM_THREADS=str(count), OMP_WAIT_POLICY="PASSIVE")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(count)


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
