"""The photos that the index already holds, by path and by content."""

import numpy as np
from numpy.typing import NDArray

from indexer.ingest.sources import Found
from indexer.store.manifest import SourceRoot, absolute_path
from indexer.store.photos import PhotoTable, RowsByKey, RowsByPath


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
        self._by_path = RowsByPath(table, sources, np.flatnonzero(table.live))
        # A new photo may share the maps of a deleted photo with the same content.
        self._by_content = RowsByKey(_content_keys(table.hashes), np.arange(len(table)))
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
        return self._by_path.row(path)

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


def _content_keys(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The first eight bytes of (n, 32) uint8 digests, as big-endian numbers, (n,)."""
    return np.ascontiguousarray(hashes[:, :8]).view(">i8").reshape(-1).astype(np.int64)
