"""The photo table: which photos the index holds, and where the maps of each lie.

It lies in Parquet shards that are never changed. A later row of the same id replaces an earlier one
(a photo that moved, or was touched). A deleted photo is a tombstone in the manifest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import REPAIR_HINT, IndexDamagedError
from indexer.store.manifest import Manifest, SourceRoot, absolute_path
from indexer.store.mapstore import Place
from indexer.store.parquet_files import read_columns, write_table

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERS = {
    "id": np.int64,
    "source": np.int32,
    "size": np.int64,
    "mtime_ns": np.int64,
    "width": np.int32,
    "height": np.int32,
    "shard": np.int64,
    "row": np.int32,
    "maps_id": np.int64,
}
# Of so many rows, paths are made at a time: those of a million take 300 MB.
_PATHS_AT_ONCE = 16_384
# Of `StoredRows`: copies mostly lie side by side, as the photos of a moved folder do.
_SHARDS_IN_MEMORY = 4


@dataclass(frozen=True)
class PhotoRow:
    """One row of the photo table.

    id: stable, never used again. source: index into the manifest's sources. path: relative to
    that source's root, "/" between folders. content_hash: SHA-256 of the file, 32 bytes.
    size: bytes; mtime_ns: modification time when it was listed. width, height: upright, pixels.
    place: where the maps lie. pooled: (2 d,) float32, see `FeatureMaps.pooled`.
    words: (m,) uint16, rising, its visual words in the vocabulary of the codec of `place`.
    taken_ns: see `Photo.taken_ns`; None where the file does not say.
    """

    id: int
    source: int
    path: str
    content_hash: bytes
    size: int
    mtime_ns: int
    width: int
    height: int
    place: Place
    pooled: NDArray[np.float32]
    words: NDArray[np.uint16]
    taken_ns: int | None


def photos_name(number: int) -> str:
    """File name of a photo table shard below the index folder."""
    return f"photos/{number:06d}.parquet"


def write_photos(path: Path, rows: Sequence[PhotoRow], dim: int) -> None:
    """Write rows to a new file; not atomic. dim: d, half the length of a pooled vector."""
    import pyarrow as pa

    pooled = np.concatenate([row.pooled for row in rows]).astype(np.float32, copy=False)
    columns = {
        "id": pa.array([row.id for row in rows], pa.int64()),
        "source": pa.array([row.source for row in rows], pa.int32()),
        "path": pa.array([row.path for row in rows], pa.string()),
        "content_hash": pa.array([row.content_hash for row in rows], pa.binary(32)),
        "size": pa.array([row.size for row in rows], pa.int64()),
        "mtime_ns": pa.array([row.mtime_ns for row in rows], pa.int64()),
        "width": pa.array([row.width for row in rows], pa.int32()),
        "height": pa.array([row.height for row in rows], pa.int32()),
        "shard": pa.array([row.place.shard for row in rows], pa.int64()),
        "row": pa.array([row.place.row for row in rows], pa.int32()),
        "maps_id": pa.array([row.place.maps_id for row in rows], pa.int64()),
        "taken_ns": pa.array([row.taken_ns for row in rows], pa.int64()),
        "words": pa.array([row.words for row in rows], pa.list_(pa.uint16())),
        "pooled": pa.FixedSizeListArray.from_arrays(pa.array(pooled), 2 * dim),
    }
    write_table(path, pa.table(columns))


def read_pooled(path: Path, dim: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids (n,) and pooled vectors (n, 2 dim) of a photo table shard, in the file's order.

    Raises IndexDamagedError.
    """
    table = read_columns(path, ["id", "pooled"])
    vectors = table.column("pooled").combine_chunks().flatten().to_numpy()
    return table.column("id").to_numpy(), vectors.reshape(-1, 2 * dim)


@dataclass(frozen=True)
class WordRows:
    """The visual words of n photos.

    ids: (n,) int64. shards: (n,) int64, the map shard of each. words: uint16, of one photo after
    the other. starts: (n + 1,) int64, bounds of each photo's part of words.
    """

    ids: NDArray[np.int64]
    shards: NDArray[np.int64]
    starts: NDArray[np.int64]
    words: NDArray[np.uint16]

    def select(self, rows: NDArray[np.bool_]) -> "WordRows":
        """Some of the photos; rows: (n,) bool."""
        if rows.all():
            return self
        counts = np.diff(self.starts)
        starts = np.concatenate([[0], np.cumsum(counts[rows])])
        words = self.words[np.repeat(rows, counts)]
        return WordRows(self.ids[rows], self.shards[rows], starts, words)


def read_words(path: Path) -> WordRows:
    """The visual words of a photo table shard, in the file's order. Raises IndexDamagedError."""
    table = read_columns(path, ["id", "shard", "words"])
    words = table.column("words").combine_chunks()
    starts = words.offsets.to_numpy().astype(np.int64)
    return WordRows(
        table.column("id").to_numpy(),
        table.column("shard").to_numpy(),
        starts - starts[0],
        words.flatten().to_numpy(),
    )


def read_ids(path: Path) -> NDArray[np.int64]:
    """Ids (n,) of a photo table shard, in the file's order. Raises IndexDamagedError."""
    ids: NDArray[np.int64] = read_columns(path, ["id"]).column("id").to_numpy()
    return ids


@dataclass(frozen=True)
class PhotoTable:
    """The photo table without vectors and words: one row per id, sorted by id, deleted ones too.

    numbers: name -> (n,) array for id, source, size, mtime_ns, width, height, shard, row, maps_id.
    paths: n strings, relative to the photo's source. hashes: (n, 32) uint8. live: (n,) bool.
    taken_ns: n nullable int64, see `PhotoRow`.
    """

    numbers: dict[str, NDArray[Any]]
    paths: "pa.ChunkedArray"
    hashes: NDArray[np.uint8]
    live: NDArray[np.bool_]
    taken_ns: "pa.ChunkedArray"

    def __len__(self) -> int:
        return len(self.live)

    @property
    def ids(self) -> NDArray[np.int64]:
        return self.numbers["id"]

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of some live photos, (n,). Raises KeyError for an id that is not live."""
        rows = np.searchsorted(self.ids, ids)
        inside = np.minimum(rows, max(0, len(self) - 1))
        known = (self.ids[inside] == ids) & self.live[inside] if len(self) else np.zeros(len(ids))
        if not np.all(known):
            missing = [int(i) for i, found in zip(ids, known, strict=True) if not found]
            raise KeyError(f"no photo has the id {missing[0]}")
        return rows

    def number(self, name: str, row: int) -> int:
        return int(self.numbers[name][row])

    def place(self, row: int) -> Place:
        return Place(
            self.number("shard", row), self.number("row", row), self.number("maps_id", row)
        )

    def path(self, row: int) -> str:
        return str(self.paths[row].as_py())

    def content_hash(self, row: int) -> bytes:
        return self.hashes[row].tobytes()


def read_photo_table(index_dir: Path, manifest: Manifest) -> PhotoTable:
    """Load the photo table of a committed state, without vectors and words.

    Raises IndexDamagedError where a shard of it cannot be read.
    """
    import pyarrow as pa

    names = [*_NUMBERS, "content_hash", "path", "taken_ns"]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    schema = None
    for file in manifest.photos:  # each is let go of before the next is read
        table = read_columns(index_dir / file.name, names)
        if not table.schema.equals(schema or table.schema):
            reason = f"{index_dir}: the photo table's files differ"
            raise IndexDamagedError(f"{reason}; {REPAIR_HINT}")
        schema = table.schema
        for name in _NUMBERS:
            columns[name].append(table.column(name).to_numpy().copy())
        columns["content_hash"].append(_bytes_of(table.column("content_hash"), 32).copy())
        for name in ("path", "taken_ns"):
            columns[name].append(table.column(name).combine_chunks())
    if schema is None:
        return PhotoTable(
            {name: np.empty(0, dtype) for name, dtype in _NUMBERS.items()},
            pa.chunked_array([], pa.string()),
            np.empty((0, 32), np.uint8),
            np.empty(0, bool),
            pa.chunked_array([], pa.int64()),
        )
    paths, taken = (pa.chunked_array(columns.pop(name)) for name in ("path", "taken_ns"))
    numbers = {name: np.concatenate(columns.pop(name)) for name in _NUMBERS}
    hashes, ids = np.concatenate(columns.pop("content_hash")), numbers["id"]
    if not _is_rising(ids):
        ids, rows = _last_rows(ids)
        numbers = {name: values[rows] for name, values in numbers.items()}
        paths, taken = paths.take(pa.array(rows)), taken.take(pa.array(rows))
        hashes = hashes[rows]
    live = ~np.isin(ids, np.array(manifest.tombstones, dtype=np.int64))
    paths = pa.chunked_array([paths.combine_chunks()])  # rows in chunks are slow to find
    pa.default_memory_pool().release_unused()  # what was read with, as much as the table
    return PhotoTable(numbers, paths, hashes, live, taken)


class RowsByKey:
    """Rows by a 64-bit key, 16 bytes per row. Keys may collide: the caller compares the values."""

    def __init__(self, keys: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], rows[order]

    def rows(self, key: int) -> Iterator[int]:
        at = int(self._keys.searchsorted(key))
        while at < len(self._keys) and int(self._keys[at]) == key:
            yield int(self._rows[at])
            at += 1

    def first(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first row of each key, (n,); -1 where there is none."""
        found = np.full(len(keys), -1, np.int64)
        if len(self._keys):
            at = self._keys.searchsorted(keys).clip(max=len(self._keys) - 1)
            known = self._keys[at] == keys
            found[known] = self._rows[at[known]]
        return found


class RowsByPath:
    """Rows of a photo table by the absolute paths of their photos.

    sources: those of the manifest. rows: (n,) int64, those that can be found.
    """

    def __init__(
        self, table: PhotoTable, sources: Sequence[SourceRoot], rows: NDArray[np.int64]
    ) -> None:
        self._table, self._sources = table, sources
        keys = map(_path_key, absolute_paths(table, sources, rows))
        self._by_key = RowsByKey(np.fromiter(keys, np.int64, len(rows)), rows)

    def row(self, path: str) -> int | None:
        """The row of the photo at a path; None where there is none."""
        for row in self._by_key.rows(_path_key(path)):
            root = self._sources[self._table.number("source", row)].root
            if absolute_path(root, self._table.path(row)) == path:
                return row
        return None

    def rows(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """The rows of the photos at some paths, (n,); -1 where there is none."""
        first = self._by_key.first(np.fromiter(map(_path_key, paths), np.int64, len(paths)))
        has_key = np.flatnonzero(first >= 0)
        own = absolute_paths(self._table, self._sources, first[has_key])
        for place, path in zip(has_key.tolist(), own, strict=True):
            if path != paths[place]:  # two paths of one key
                row = self.row(paths[place])
                first[place] = -1 if row is None else row
        return first


def absolute_paths(
    table: PhotoTable, sources: Sequence[SourceRoot], rows: NDArray[np.int64]
) -> Iterator[str]:
    """The paths of the photos in some rows; few of them are in memory at a time."""
    for start in range(0, len(rows), _PATHS_AT_ONCE):
        some = rows[start : start + _PATHS_AT_ONCE]
        numbers = table.numbers["source"][some].tolist()
        paths = table.paths.take(some).to_pylist()
        yield from map(absolute_path, [sources[number].root for number in numbers], paths)


def photo_path(manifest: Manifest, table: PhotoTable, row: int) -> str:
    """Absolute path of a row's photo. table: the manifest's photo table."""
    return absolute_path(manifest.sources[table.number("source", row)].root, table.path(row))


def rows_that_count(
    ids: list[NDArray[np.int64]], tombstones: tuple[int, ...]
) -> list[NDArray[np.bool_]]:
    """Which rows of each photo table shard, oldest first, are neither deleted nor replaced.

    ids: (n,) int64 per shard, as stored. Returns (n,) bool per shard.
    """
    if not ids:
        return []
    every = np.concatenate(ids)
    counts = np.zeros(len(every), dtype=bool)
    counts[_last_rows(every)[1]] = True
    counts &= ~np.isin(every, np.array(tombstones, dtype=np.int64))
    return np.split(counts, np.cumsum([len(part) for part in ids])[:-1])


def count_photos(index_dir: Path, manifest: Manifest) -> int:
    """How many photos a committed state has that are not deleted. Raises IndexDamagedError."""
    ids = [read_ids(index_dir / file.name) for file in manifest.photos]
    return sum(int(rows.sum()) for rows in rows_that_count(ids, manifest.tombstones))


def first_of_each(hashes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The first row of each value of (n, 32) uint8, in no order."""
    values = np.ascontiguousarray(hashes).view(np.uint64)
    # Whole values are slow to sort: only those whose first eight bytes are equal are compared.
    keys, counts = np.unique(values[:, 0], return_counts=True)
    may_repeat = np.isin(values[:, 0], keys[counts > 1])
    rows = np.flatnonzero(may_repeat)
    _, first = np.unique(values[rows], axis=0, return_index=True)
    return np.concatenate([np.flatnonzero(~may_repeat), rows[first]])


def _last_rows(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The ids, rising and each once, and the last row of each: that is the one that counts."""
    if _is_rising(ids):  # as the first run writes them; to sort takes seven times their memory
        return ids, np.arange(len(ids))
    unique, from_end = np.unique(ids[::-1], return_index=True)
    return unique, len(ids) - 1 - from_end


def _is_rising(ids: NDArray[np.int64]) -> bool:
    return bool((ids[1:] > ids[:-1]).all())


class StoredRows:
    """Finds a photo's pooled vector and words by its id; not for several threads.

    It looks into the photo table shards of a manifest, and into those given to `include` since.
    """

    def __init__(self, index_dir: Path, manifest: Manifest) -> None:
        self._dim = manifest.dim
        self._index_dir = index_dir
        self._names = [file.name for file in manifest.photos]
        self._ids: list[NDArray[np.int64]] = []
        self._shard = lru_cache(_SHARDS_IN_MEMORY)(self._read)

    def include(self, names: Sequence[str]) -> None:
        """Look into these photo table shards too, which were written after the ones before."""
        self._names += [name for name in names if name not in self._names]

    def of(self, photo_id: int) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """Pooled vector (2 d,) and words, as last written. Raises KeyError, IndexDamagedError."""
        for name in self._names[len(self._ids) :]:
            self._ids.append(read_ids(self._index_dir / name))
        for number in reversed(range(len(self._ids))):
            rows = np.flatnonzero(self._ids[number] == photo_id)
            if len(rows):
                row = int(rows[-1])
                vectors, words = self._shard(self._names[number])
                start, stop = words.starts[row : row + 2].tolist()
                return vectors[row], words.words[start:stop]
        raise KeyError(f"no photo has the id {photo_id}")

    def _read(self, name: str) -> tuple[NDArray[np.float32], WordRows]:
        path = self._index_dir / name
        return read_pooled(path, self._dim)[1], read_words(path)


def _path_key(path: str) -> int:
    return hash(path)


def _bytes_of(values: Any, width: int) -> NDArray[np.uint8]:
    """(n, width) uint8 of a pyarrow fixed-size binary array without nulls."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    raw = np.frombuffer(values.buffers()[1], dtype=np.uint8)
    return raw.reshape(-1, width)[values.offset : values.offset + len(values)]
