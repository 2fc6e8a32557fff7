"""What the index knows already, found by path and by content."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from indexer.ingest.sources import Found
from indexer.store.manifest import SourceRoot, absolute_path
from indexer.store.photos import PhotoTable


class _Keys:
    """Rows by a 64-bit key, 16 bytes a row; keys may collide, so callers compare the real thing."""

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

    table: the rows. sources: the manifest's. shards: numbers of the map shards that are there;
    photos whose maps are in another have to be extracted again. Read-only, so safe for threads.
    """

    def __init__(
        self, table: PhotoTable, sources: tuple[SourceRoot, ...], shards: set[int]
    ) -> None:
        self.table = table
        self.has_maps: NDArray[np.bool_] = np.isin(table.numbers["shard"], list(shards))
        self._roots = [source.root for source in sources]
        live = np.flatnonzero(table.live)
        paths = table.paths.take(live).to_pylist()
        roots = [self._roots[number] for number in table.numbers["source"][live].tolist()]
        keys = map(_path_key, map(absolute_path, roots, paths))
        self._by_path = _Keys(np.fromiter(keys, np.int64, len(live)), live)
        # Deleted photos still lend their maps to a photo with the same content.
        self._by_content = _Keys(_content_keys(table.hashes), np.arange(len(table)))
        self._sizes = np.unique(table.numbers["size"])

    def path(self, row: int) -> str:
        """Absolute path of a row's photo."""
        return absolute_path(self._roots[self.table.number("source", row)], self.table.path(row))

    def by_path(self, path: str) -> int | None:
        """Row of the live photo at an absolute path."""
        for row in self._by_path.rows(_path_key(path)):
            if self.path(row) == path:
                return row
        return None

    def is_recorded(self, row: int, found: Found) -> bool:
        """Whether a row has the size and time of a file that was found at its path."""
        recorded = self.table.number("size", row), self.table.number("mtime_ns", row)
        return recorded == (found.size, found.mtime_ns)

    def by_content(self, content_hash: bytes) -> list[int]:
        """Rows of the photos, live or deleted, with this content (32 bytes of SHA-256)."""
        key = int.from_bytes(content_hash[:8], "big", signed=True)
        return [
            row
            for row in self._by_content.rows(key)
            if self.table.content_hash(row) == content_hash
        ]

    def has_size(self, size: int) -> bool:
        """Whether any photo has this many bytes; where none has, the content must be new."""
        at = int(np.searchsorted(self._sizes, size))
        return at < len(self._sizes) and int(self._sizes[at]) == size


def _path_key(path: str) -> int:
    return hash(path)


def _content_keys(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n, 32) uint8 digests to their first eight bytes as big-endian numbers."""
    return np.ascontiguousarray(hashes[:, :8]).view(">i8").reshape(-1).astype(np.int64)
