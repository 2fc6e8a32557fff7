"""Reading a fleet whose parts are held by workers on a Ray cluster.

Recall and re-ranking are done by the workers, each on the parts that it holds. What they find goes
through Ray, maps do not: this process reads those of the few photos that are shown.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, Self

import numpy as np
from numpy.typing import NDArray

from indexer.bucket.remote_index import bucket_of
from indexer.codec.kernels import Float32, forced_kernel
from indexer.collection import Collection, Result
from indexer.errors import IndexMissingError
from indexer.fleet.fleet_reader import FleetReader
from indexer.fleet.part_holder import PartHolder, Work, pack
from indexer.parts import CODEC_NUMBER, Fleet, part_of_id, read_fleet
from indexer.ray_cluster import (
    ClusterError,
    RayCluster,
    RayWorkers,
    WorkerLostError,
    ray_on_stderr,
)
from indexer.recall.searching import (
    Asked,
    Found,
    Recall,
    VectorRecall,
    WordsIn,
    WordsRecall,
    best_of,
    by_id,
)

# Workers at most, however many parts there are; each search asks all of them.
_MOST_HOLDERS = 64
# Seconds to wait for the first worker, and then for the others.
_TO_COME = 120.0
_TO_FOLLOW = 15.0


class HiredHolders:
    """Workers that hold parts of every fleet that is opened on them; use `hire_holders`.

    workers: of the cluster. hired: those that came.
    """

    def __init__(self, workers: RayWorkers) -> None:
        self.workers = workers
        self.hired: list[Any] = []

    @ray_on_stderr()
    def hire(self, most: int) -> None:
        """Hire workers, as many as there is room for, and keep those that come soon."""
        room = self.workers.room()
        # A photo's score must not depend on the machine that holds it.
        kernel = forced_kernel() or Float32.name
        given = self.workers.cluster.device, room.cores, kernel
        for _ in range(min(room.workers, most, _MOST_HOLDERS)):
            self.hired.append(self.workers.hire(PartHolder, room, *given))
        coming = [worker.come.remote() for worker in self.hired]
        self.workers.come(coming, _TO_COME)
        there = self.workers.come(coming, _TO_FOLLOW, len(coming))
        for worker, answer in zip([*self.hired], coming, strict=True):
            if answer not in there:
                self.hired.remove(worker)
                self.workers.dismiss(worker)
        if not self.hired:
            raise ClusterError(
                f"the Ray cluster {self.workers.cluster.address}: has no room for a worker with "
                f"{room.cores} cores; search without it, or try again later"
            )

    def dismiss(self) -> None:
        """Let go of all workers."""
        for worker in self.hired:
            self.workers.dismiss(worker)


@contextlib.contextmanager
def hire_holders(cluster: RayCluster, most: int) -> Iterator[HiredHolders]:
    """Connect to a cluster and hire workers that hold parts of fleets, until the context ends.

    They are hired once for all fleets that are open together: were each fleet to hire its own, the
    second would wait for the room that those of the first take. most: how many there are at most,
    such as a fleet has parts. Raises ClusterError.
    """
    with cluster.connect() as workers:
        holders = HiredHolders(workers)
        try:
            holders.hire(most)
            yield holders
        finally:
            holders.dismiss()


class ClusterReader(FleetReader):
    """A fleet of which workers hold the parts. Use `open_on`."""

    _holders: "_Holders"
    _opened: contextlib.ExitStack

    @classmethod
    def open_on(cls, index_dir: Path, workers: RayCluster | HiredHolders) -> Self:
        """Open a fleet, in a folder or in the cache for one in a bucket.

        workers: of a cluster, who are hired for this fleet alone, until it is closed; or some who
        are hired already, and stay. Raises IndexMissingError where there is no fleet, ClusterError,
        and as `open_collection`.
        """
        fleet, bucket = fleet_in(index_dir), bucket_of(index_dir)
        address = str(index_dir.absolute()) if bucket is None else bucket.url
        with contextlib.ExitStack() as opened:
            if isinstance(workers, RayCluster):
                workers = opened.enter_context(hire_holders(workers, fleet.parts))
            reader = cls.open(fleet)
            opened.callback(FleetReader.close, reader)
            reader._holders = _Holders(workers, address, reader.generations)
            reader._opened = opened.pop_all()
        return reader

    def close(self) -> None:
        self._opened.close()

    @cached_property
    def recall(self) -> VectorRecall:
        return _HeldRecall(self._holders, self.n_photos, _by_vector)

    @cached_property
    def word_recall(self) -> WordsRecall | None:
        if self._codecs[CODEC_NUMBER].words is None:
            return None
        return _HeldWords(self._holders, self.n_photos, _by_words)

    def descriptor_recall(self, name: str) -> VectorRecall:
        if name not in self.descriptors:
            raise KeyError(f"no descriptor {name}")
        count = sum(self._holders.do(partial(_count_described, name), None))
        return _HeldRecall(self._holders, count, partial(_by_descriptor, name))

    def near_maps(
        self, ids: NDArray[np.int64], work: Callable[[Collection, NDArray[np.int64]], Result]
    ) -> list[Result]:
        return self._holders.do(work, ids)


@dataclass(eq=False)
class _Holder:
    """A worker, and the state of each part that it holds, by the parts' numbers."""

    worker: Any
    generations: dict[int, int] = field(default_factory=dict)

    def own(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some photos that are in its parts."""
        own: NDArray[np.int64] = ids[np.isin(part_of_id(ids), [*self.generations])]
        return own


class _Holders:
    """The workers that hold the parts of one fleet.

    Where one dies, the others take its parts.
    """

    def __init__(self, hired: HiredHolders, address: str, generations: Mapping[int, int]) -> None:
        """generations: the state of each part, by the parts' numbers. Raises ClusterError, and as
        `PartHolder.hold`.
        """
        self._workers, self._address = hired.workers, address
        self._holders = [_Holder(worker) for worker in hired.hired]
        self._hand_out(generations)

    @ray_on_stderr()
    def do(self, work: Work, ids: NDArray[np.int64] | None) -> list[Any]:
        """What each worker makes of those of some photos that are in its parts, where there are
        any; None stands for all photos. Raises what a worker raised, ClusterError.
        """
        packed = self._workers.share(pack(work))
        while True:
            asked = []
            for holder in self._holders:
                own = None if ids is None else holder.own(ids)
                if holder.generations and (own is None or len(own)):
                    asked.append((holder, holder.worker.do.remote(self._address, packed, own)))
            results = self._answers(asked)
            if results is not None:
                return results

    @ray_on_stderr()
    def _hand_out(self, generations: Mapping[int, int]) -> None:
        """Have the workers hold these parts too."""
        for turn, (number, generation) in enumerate(generations.items()):
            self._holders[turn % len(self._holders)].generations[number] = generation
        changed = self._holders[: len(generations)]
        self._answers(
            [(one, one.worker.hold.remote(self._address, one.generations)) for one in changed]
        )

    def _answers(self, asked: Sequence[tuple[_Holder, Any]]) -> list[Any] | None:
        """What workers answer; None where one is gone, whose parts others then hold.

        All are waited for, because a worker answers one question at a time.
        """
        results, lost, failures = [], [], list[Exception]()
        for holder, answer in asked:
            try:
                results.append(self._workers.answer(answer))
            except WorkerLostError as error:
                lost.append((holder, error))
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]
        if not lost:
            return results
        for holder, _ in lost:
            self._dismiss(holder)
        if not self._holders:
            raise ClusterError(
                "all workers that held parts of the fleet are gone, perhaps because memory was "
                f"full; search again. Ray says of the last: {lost[-1][1]}"
            )
        self._hand_out({n: at for holder, _ in lost for n, at in holder.generations.items()})
        return None

    def _dismiss(self, holder: _Holder) -> None:
        self._holders.remove(holder)
        self._workers.dismiss(holder.worker)


def fleet_in(index_dir: Path) -> Fleet:
    """The fleet in a folder. Raises IndexMissingError, and as `read_fleet`."""
    fleet = read_fleet(index_dir)
    if fleet is None:
        raise IndexMissingError(
            f"{index_dir}: is no fleet, of which workers could hold the parts; search it without a "
            "cluster"
        )
    return fleet


class _HeldRecall(Generic[Asked]):
    """Recall of the parts that workers hold, as one."""

    def __init__(
        self,
        holders: _Holders,
        length: int,
        recall_of: Callable[[Collection], Recall[Any] | None],
    ) -> None:
        """recall_of: gives the recall of the parts of a worker; None where they have none."""
        self._holders = holders
        self._length = length
        self._recall_of = recall_of

    def __len__(self) -> int:
        return self._length

    def search(self, asked: Asked, k: int, allowed: NDArray[np.int64] | None = None) -> Found:
        """As `Recall.search`."""
        work = partial(_search, self._recall_of, self._to_send(asked), k)
        return best_of(*_together(self._holders.do(work, allowed)), k)

    def score_all(self, asked: Asked) -> Found:
        """As `Recall.score_all`."""
        work = partial(_score_all, self._recall_of, self._to_send(asked))
        return by_id(*_together(self._holders.do(work, None)))

    def _to_send(self, asked: Asked) -> Any:
        """A question as it is pickled."""
        return asked


class _HeldWords(_HeldRecall[WordsIn]):
    """Recall by visual words of the parts that workers hold."""

    def _to_send(self, asked: WordsIn) -> WordsIn:
        return partial(_given, asked(CODEC_NUMBER))  # the parts have one codec


def _given(
    words: tuple[NDArray[np.uint16], NDArray[np.float32]], _: int
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    return words


def _together(found: Sequence[Found]) -> Found:
    """What workers found, one after the other."""
    ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in found)])
    scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in found)])
    return ids, scores


def _search(
    recall_of: Callable[[Collection], Recall[Any] | None],
    asked: Any,
    k: int,
    reader: Collection,
    allowed: NDArray[np.int64] | None,
) -> Found:
    recall = recall_of(reader)
    return _together([]) if recall is None else recall.search(asked, k, allowed)


def _score_all(
    recall_of: Callable[[Collection], Recall[Any] | None],
    asked: Any,
    reader: Collection,
    _: NDArray[np.int64] | None,
) -> Found:
    recall = recall_of(reader)
    return _together([]) if recall is None else recall.score_all(asked)


def _by_vector(reader: Collection) -> VectorRecall:
    return reader.recall


def _by_words(reader: Collection) -> WordsRecall | None:
    return reader.word_recall


def _by_descriptor(name: str, reader: Collection) -> VectorRecall | None:
    return reader.descriptor_recall(name) if name in reader.descriptors else None


def _count_described(name: str, reader: Collection, _: NDArray[np.int64] | None) -> int:
    return len(reader.descriptor_recall(name)) if name in reader.descriptors else 0
