"""Reading the maps of many photos at once, wherever they lie."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError
from indexer.shards import Shard, open_shard

# Reading by offset is bound by the disk's latency, not by cores.
_THREADS = 16
_ROWS_PER_TASK = 32
MEND = "delete that file and run `waldo index` again over the same photos"


@dataclass(frozen=True)
class Place:
    """Where a photo's maps lie: shard number, row in it, and the id written in that row.

    Copies of a photo share its maps, so maps_id need not be the photo's own id.
    """

    shard: int
    row: int
    maps_id: int


class MapStore:
    """The map shards of one snapshot of an index; safe to use from several threads.

    names: shard number -> file name below index_dir. map_bytes: size of one map.
    """

    def __init__(self, index_dir: Path, names: dict[int, str], map_bytes: int) -> None:
        self._index_dir = index_dir
        self._names = names
        self._map_bytes = map_bytes
        self._shards: dict[int, Shard] = {}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="maps")

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def read(
        self, places: Sequence[Place]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], dict[int, str]]:
        """The bytes of some photos' maps.

        Returns appearance and semantic, (len(places), map_bytes) uint8 each, and the places that
        could not be read or failed their checksum as {index in places: what is wrong and the
        mend}; their rows in the arrays mean nothing.
        """
        shape = (len(places), self._map_bytes)
        appearance, semantic = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        by_shard: dict[int, list[int]] = defaultdict(list)
        for index in sorted(range(len(places)), key=lambda i: (places[i].shard, places[i].row)):
            by_shard[places[index].shard].append(index)
        tasks = [
            (number, indices[at : at + _ROWS_PER_TASK])
            for number, indices in by_shard.items()
            for at in range(0, len(indices), _ROWS_PER_TASK)
        ]
        damaged: dict[int, str] = {}
        for problems in self._pool.map(
            lambda task: self._read_rows(task[0], task[1], places, appearance, semantic), tasks
        ):
            damaged.update(problems)
        return appearance, semantic, damaged

    def shard(self, number: int) -> Shard:
        """An opened shard. Raises IndexDamagedError where it is missing or no such shard."""
        with self._lock:
            known = self._shards.get(number)
        if known is None:
            if number not in self._names:
                raise IndexDamagedError("is missing")
            known = open_shard(self._index_dir / self._names[number], self._map_bytes)
            with self._lock:
                self._shards[number] = known
        return known

    def _read_rows(
        self,
        number: int,
        indices: list[int],
        places: Sequence[Place],
        appearance: NDArray[np.uint8],
        semantic: NDArray[np.uint8],
    ) -> dict[int, str]:
        """Read rows of one shard into their places; returns the problems."""
        name = self._names.get(number, shard_name(number))
        try:
            shard = self.shard(number)
        except IndexDamagedError as error:
            return {i: f"{name} row {places[i].row}: the file {error}; {MEND}" for i in indices}
        problems: dict[int, str] = {}
        wanted = []
        for i in indices:
            place = places[i]
            if place.row < len(shard.ids) and shard.ids[place.row] == place.maps_id:
                wanted.append(i)
            else:
                problems[i] = f"{name} row {place.row}: holds another photo's maps; {MEND}"
        rows = [places[i].row for i in wanted]
        try:
            shard.read(rows, [appearance[i] for i in wanted], [semantic[i] for i in wanted])
        except IndexDamagedError as error:
            return problems | {i: f"{name} row {places[i].row}: {error}; {MEND}" for i in wanted}
        for i, row in zip(wanted, rows, strict=True):
            if not shard.is_sound(row, appearance[i].data, semantic[i].data):
                problems[i] = f"{name} row {row}: its checksum differs; {MEND}"
        return problems


def shard_name(number: int) -> str:
    """File name of a map shard below the index folder."""
    return f"shards/{number:06d}.parquet"
