"""Reading the maps of many photos at once, wherever they lie."""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from indexer.errors import REPAIR_HINT, IndexDamagedError
from indexer.store.manifest import MapShard
from indexer.store.shards import READS_AHEAD, Shard, open_shard, read_heads_ahead, shard_name

# Reading ahead keeps the disk busy, so threads only have to copy and to check. Where the system
# does not read ahead, they wait for the disk, and there must be many.
_WAITING_THREADS = 16
_THREADS = max(2, min(8, os.cpu_count() or 1)) if READS_AHEAD else _WAITING_THREADS
_ROWS_PER_TASK = 100

OpenShard = Callable[[Path, MapShard, int], Shard]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a photo's maps lie: shard number, row in it, and the id written in that row.

    Copies of a photo share its maps, so maps_id need not be the photo's own id.
    """

    shard: int
    row: int
    maps_id: int


class MapStore:
    """The map shards of one snapshot of an index; safe to use from several threads.

    shards: as the manifest names them. photo_bytes: size of a photo's maps. open_one: opens a
    shard that lies elsewhere than in the folder; reading it means waiting.
    """

    def __init__(
        self,
        index_dir: Path,
        shards: Iterable[MapShard],
        photo_bytes: int,
        open_one: OpenShard = open_shard,
    ) -> None:
        self._index_dir = index_dir
        self._files = {file.number: file for file in shards}
        self.photo_bytes = photo_bytes
        self._shards: dict[int, Shard] = {}
        self._lock = Lock()
        self._open_one = open_one
        threads = _THREADS if open_one is open_shard else _WAITING_THREADS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="maps")

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def include(self, shards: Iterable[MapShard]) -> None:
        """Read from these shards too, which were written after the store was made."""
        self._files.update({file.number: file for file in shards})

    def read(self, places: Sequence[Place]) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """The bytes of some photos' encoded maps.

        Returns (len(places), photo_bytes) uint8, and the places that could not be read or whose
        checksum differs as {index in places: what is wrong and what to do}; their rows in the
        array are undefined.
        """
        maps = np.empty((len(places), self.photo_bytes), np.uint8)
        keys = [(place.shard, place.row) for place in places]
        order = sorted(range(len(places)), key=keys.__getitem__)
        self._open({place.shard for place in places})
        tasks = [order[at : at + _ROWS_PER_TASK] for at in range(0, len(order), _ROWS_PER_TASK)]
        damaged: dict[int, str] = {}
        for problems in self._pool.map(lambda task: self._read_rows(task, places, maps), tasks):
            damaged.update(problems)
        return maps, damaged

    def shard(self, number: int) -> Shard:
        """An opened shard. Raises IndexDamagedError where it is missing or damaged."""
        with self._lock:
            known = self._shards.get(number)
        if known is None:
            if number not in self._files:
                raise IndexDamagedError("is missing")
            known = self._open_one(self._index_dir, self._files[number], self.photo_bytes)
            with self._lock:
                self._shards[number] = known
        return known

    def _open(self, numbers: set[int]) -> None:
        """Open some shards, all at once; what is wrong with one is reported when it is read."""
        closed = [n for n in sorted(numbers) if n in self._files and n not in self._shards]
        if self._open_one is open_shard:
            read_heads_ahead(self._index_dir, [self._files[number] for number in closed])

        def open_quietly(number: int) -> None:
            with contextlib.suppress(IndexDamagedError):
                self.shard(number)

        for _ in self._pool.map(open_quietly, closed):
            pass

    def _read_rows(
        self, indices: list[int], places: Sequence[Place], maps: NDArray[np.uint8]
    ) -> dict[int, str]:
        """Read some places, sorted by shard, into their rows of maps; returns the problems."""
        problems: dict[int, str] = {}
        wanted: list[tuple[Shard, list[int], list[int]]] = []
        for number, group in groupby(indices, key=lambda i: places[i].shard):
            mine = list(group)
            try:
                shard = self.shard(number)
            except IndexDamagedError as error:
                problems.update({i: _problem(places[i], f"the file: {error}") for i in mine})
                continue
            sound = [i for i in mine if _is_of(places[i], shard)]
            for i in set(mine).difference(sound):
                problems[i] = _problem(places[i], "holds another photo's maps")
            waiting = shard.read_ready([places[i].row for i in sound], [maps[i] for i in sound])
            wanted.append((shard, sound, [sound[position] for position in waiting]))
        for shard, sound, waiting in wanted:
            try:
                if waiting:
                    shard.read([places[i].row for i in waiting], [maps[i] for i in waiting])
            except IndexDamagedError as error:
                problems.update({i: _problem(places[i], str(error)) for i in waiting})
                sound = [i for i in sound if i not in problems]
            for i in sound:
                if not shard.is_sound(places[i].row, maps[i].data):
                    problems[i] = _problem(places[i], "its checksum differs")
        return problems


def _is_of(place: Place, shard: Shard) -> bool:
    """Whether a shard's row is the one that a place means."""
    return place.row < len(shard.ids) and int(shard.ids[place.row]) == place.maps_id


def _problem(place: Place, what: str) -> str:
    return f"{shard_name(place.shard)} row {place.row}: {what}; {REPAIR_HINT}"
