"""The photos that the index already holds, by path and by content."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from indexer.ingest.sources import Found
from indexer.store.manifest import SourceRoot, absolute_path
from indexer.store.photos import PhotoTable

# Of so many rows, paths are made at a time: those of a million take 300 MB.
_PATHS_AT_ONCE = 16_384


class _RowsByKey:
    """Rows by a 64-bit key, 16 bytes per row. Keys may collide: the caller compares the values."""

    def __init__(self, keys: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], rows[order]

    def rows(self, key: int) -> Iterator[int]:
        at = int(self._keys.searchsorted(key))
        while at < len(self._keys) and int(self._keys[at]) == key:
            yield int(self._rows[at])
            at += 1


class KnownPhotos:
    """The photo table as a run begins, indexed by absolute path and by content.

    sources: those of the manifest. shards: the numbers of the map shards that are there; photos
    whose maps lie in another shard have to be extracted again. Read-only, so safe for threads.
    """

    def __init__(
        self, table: PhotoTable, sources: tuple[SourceRoot, ...], shards: set[int]
    ) -> None:
        self.table = table
        self.has_maps: NDArray[np.bool_] = np.isin(table.numbers["shard"], list(shards))
        self._sources = sources
        live = np.flatnonzero(table.live)
        keys = map(_path_key, _absolute_paths(table, sources, live))
        self._by_path = _RowsByKey(np.fromiter(keys, np.int64, len(live)), live)
        # A new photo may share the maps of a deleted photo with the same content.
        self._by_content = _RowsByKey(_content_keys(table.hashes), np.arange(len(table)))
        self._sizes = np.unique(table.numbers["size"])

    def path(self, row: int) -> str:
        """The absolute path of a row's photo."""
        return absolute_path(self.root(row), self.table.path(row))

    def root(self, row: int) -> str:
        """The root of the source of a row's photo."""
        return self._sources[self.table.number("source", row)].root

    def list_path(self, row: int) -> str | None:
        """The absolute path of the list that named a row's photo, if one did."""
        source = self._sources[self.table.number("source", row)]
        return None if source.list_name is None else absolute_path(source.root, source.list_name)

    def by_path(self, path: str) -> int | None:
        """The row of the photo at an absolute path, if there is one that is not deleted."""
        for row in self._by_path.rows(_path_key(path)):
            if self.path(row) == path:
                return row
        return None

    def is_recorded(self, row: int, found: Found) -> bool:
        """Whether a row has the size and modification time of a file."""
        recorded = self.table.number("size", row), self.table.number("mtime_ns", row)
        return recorded == (found.size, found.mtime_ns)

    def by_content(self, content_hash: bytes) -> list[int]:
        """The rows of photos, deleted ones too, with this content (32 bytes of SHA-256)."""
        key = int.from_bytes(content_hash[:8], "big", signed=True)
        return [
            row
            for row in self._by_content.rows(key)
            if self.table.content_hash(row) == content_hash
        ]

    def has_size(self, size: int) -> bool:
        """Whether any photo has this many bytes. If none has, the content must be new."""
        at = int(np.searchsorted(self._sizes, size))
        return at < len(self._sizes) and int(self._sizes[at]) == size


def _absolute_paths(
    table: PhotoTable, sources: tuple[SourceRoot, ...], rows: NDArray[np.int64]
) -> Iterator[str]:
    """The paths of some rows; few of them are in memory at a time."""
    for start in range(0, len(rows), _PATHS_AT_ONCE):
        some = rows[start : start + _PATHS_AT_ONCE]
        numbers = table.numbers["source"][some].tolist()
        paths = table.paths.take(some).to_pylist()
        yield from map(absolute_path, [sources[number].root for number in numbers], paths)


def _path_key(path: str) -> int:
    return hash(path)


def _content_keys(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The first eight bytes of (n, 32) uint8 digests, as big-endian numbers, (n,)."""
    return np.ascontiguousarray(hashes[:, :8]).view(">i8").reshape(-1).astype(np.int64)
