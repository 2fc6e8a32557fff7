"""The photos of an index by their content, each content once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.collection import Collection
from indexer.store.album_rows import content_keys

# So many photos tell how chance scores, for every name the same.
_SAMPLE = 64


@dataclass(frozen=True)
class Contents:
    """n different contents. keys: (n,), rising, as `content_keys` has them. ids: (n,) int64, of
    photos of the same content the lowest.
    """

    keys: NDArray[np.bytes_]
    ids: NDArray[np.int64]

    @classmethod
    def of(cls, reader: Collection) -> "Contents":
        distinct = reader.distinct()
        ids = reader.ids if distinct is None else distinct
        keys = content_keys(reader.hashes_of(ids))
        order = np.argsort(keys)
        return cls(keys[order], ids[order])

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, contents: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The ids of (m, 32) contents, (m,) int64; -1 for what the index does not hold."""
        keys = content_keys(contents)
        places = np.minimum(np.searchsorted(self.keys, keys), max(0, len(self) - 1))
        if len(self) == 0:
            return np.full(len(keys), -1)
        return np.where(self.keys[places] == keys, self.ids[places], -1)

    @property
    def sample(self) -> NDArray[np.int64]:
        """The ids of up to 64 photos, chosen by their content alone: a random choice, which does
        not depend on the order in which photos came.
        """
        return self.ids[:_SAMPLE]
