"""What recall needs of photos the index holds, read back from the photo table one at a time."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.store.manifest import Manifest
from indexer.store.photos import WordRows, read_ids, read_pooled, read_words

# Copies mostly lie side by side, as a moved folder's photos do.
_TABLES_KEPT = 4


class StoredRows:
    """Finds a photo's pooled vector and words by id; not for several threads.

    A manifest's photo table shards are named at construction, and those written since by `include`.
    """

    def __init__(self, index_dir: Path, manifest: Manifest) -> None:
        self._dim = manifest.dim
        self._index_dir = index_dir
        self._names = [file.name for file in manifest.photos]
        self._ids: list[NDArray[np.int64]] = []
        self._table = lru_cache(_TABLES_KEPT)(self._read)

    def include(self, names: Sequence[str]) -> None:
        """Look into these photo table shards too, written after the ones before."""
        self._names += [name for name in names if name not in self._names]

    def of(self, photo_id: int) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """Pooled vector (2 d,) and words, as last written. Raises KeyError, IndexDamagedError."""
        for name in self._names[len(self._ids) :]:
            self._ids.append(read_ids(self._index_dir / name))
        for number in reversed(range(len(self._ids))):
            rows = np.flatnonzero(self._ids[number] == photo_id)
            if len(rows):
                row = int(rows[-1])
                vectors, words = self._table(self._names[number])
                start, stop = words.starts[row : row + 2].tolist()
                return vectors[row], words.words[start:stop]
        raise KeyError(f"no photo has the id {photo_id}")

    def _read(self, name: str) -> tuple[NDArray[np.float32], WordRows]:
        path = self._index_dir / name
        return read_pooled(path, self._dim)[1], read_words(path)
