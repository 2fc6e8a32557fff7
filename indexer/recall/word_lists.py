"""The visual words of many photos, by photo and by word, and the search in them.

A query is scored in two stages, as in PLAID (Santhanam et al., CIKM 2022). The lists of the query's
words give every photo an approximate score, a sum over the words that it has. The exact score, a
mean of maxima, is computed only for the photos with the largest sums, from their own words.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Photos per block of lists: an entry of a list takes two bytes, and sums stay in the cache.
BLOCK = 65_536
# The exact score is computed for so many photos, and for so many per photo that is asked for.
_SCORED = 8192
_SCORED_PER_ANSWER = 20
# Exact scores of so many photos are computed at a time, so that they stay in the cache.
_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class WordLists:
    """The words of n photos of one codec.

    codec: its number. ids: (n,) int64, rising. bounds: (n + 1,) int64; photo i has the words
    words[bounds[i] : bounds[i + 1]], uint16, rising. starts: (blocks, vocabulary + 1) int64; the
    photos of block b that have word w are entries[starts[b, w] : starts[b, w + 1]], uint16, rising,
    counted from the block's first photo.
    """

    codec: int
    ids: NDArray[np.int64]
    bounds: NDArray[np.int64]
    words: NDArray[np.uint16]
    starts: NDArray[np.int64]
    entries: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.ids)

    def mask_of(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) bool, True for those of some ids that are here."""
        mask = np.zeros(len(self), dtype=bool)
        rows = np.searchsorted(self.ids, ids)
        inside = rows < len(self)
        rows = rows[inside]
        mask[rows[self.ids[rows] == ids[inside]]] = True
        return mask

    def search(
        self,
        near: NDArray[np.uint16],
        cosines: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and scores that include the k best of some photos.

        near, cosines: (cells, m), see `WordRecall.search`. mask: (n,) bool, the photos that may be
        found. The scores are exact. Where many photos may be found, a photo may be missing whose
        sum over words is not among the largest.
        """
        kept = max(_SCORED, _SCORED_PER_ANSWER * k)
        if int(mask.sum()) <= kept:
            rows = np.flatnonzero(mask)
        else:
            rows = _largest(np.where(mask, self._sums(near, cosines), -1), kept)
        return rows, self._scores(rows, near, cosines)

    def _sums(self, near: NDArray[np.uint16], cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Approximate scores (n,), larger for better photos, not negative."""
        from scipy.sparse import csc_array

        words, weights = _weights(near, cosines)
        inside = words + 1 < self.starts.shape[1]
        words, weights = words[inside], weights[inside]
        sums = np.empty(len(self), np.float32)
        for number, starts in enumerate(self.starts):
            first = number * BLOCK
            lists = [
                self.entries[start:stop]
                for start, stop in zip(
                    starts[words].tolist(), starts[words + 1].tolist(), strict=True
                )
            ]
            ends = np.cumsum([0, *map(len, lists)])
            entries = np.concatenate([*lists, np.empty(0, np.uint16)]).astype(np.int32)
            has = csc_array((np.ones(len(entries), np.float32), entries, ends), (BLOCK, len(words)))
            own = sums[first : first + BLOCK]
            own[:] = (has @ weights)[: len(own)]
        return sums

    def _scores(
        self,
        rows: NDArray[np.int64],
        near: NDArray[np.uint16],
        cosines: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The exact scores of some photos, (rows,), see `WordRecall.search`."""
        scores = np.zeros(len(rows), np.float32)
        cells, last = near.shape[0], near.shape[1] - 1
        if cells == 0:
            return scores
        # The last word of a cell counts even for a photo that does not have it.
        asked, places = np.unique(near[:, :last], return_inverse=True)
        places = places.reshape(cells, last)
        column = np.full(1 << 16, -1, np.int16)
        column[asked] = np.arange(len(asked))
        offsets = (last + 1) * np.arange(cells)[:, None]
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            # 0 where a photo has a word, else 255: `| rank` gives the rank, or 255.
            lacks = self._lacks(some, column, len(asked))
            nearest = np.full((cells, len(some)), last, np.uint8)
            for rank in range(last):
                np.minimum(nearest, lacks[places[:, rank]] | np.uint8(rank), out=nearest)
            values = cosines.ravel()[nearest + offsets]
            scores[start : start + _AT_ONCE] = values.sum(axis=0) / np.float32(cells)
        return scores

    def _lacks(
        self, rows: NDArray[np.int64], column: NDArray[np.int16], asked: int
    ) -> NDArray[np.uint8]:
        """(asked, rows) uint8: 0 where a photo has a word, else 255.

        column: for each word the row that it has in the answer, -1 for none.
        """
        first, counts = self.bounds[rows], self.bounds[rows + 1] - self.bounds[rows]
        ends = np.cumsum(counts)
        at = np.repeat(first - ends + counts, counts) + np.arange(int(counts.sum()))
        columns = column[self.words[at]]
        wanted = np.flatnonzero(columns >= 0)
        owners = np.repeat(np.arange(len(rows)), counts)[wanted]
        lacks = np.full((asked, len(rows)), 255, np.uint8)
        lacks[columns[wanted], owners] = 0
        return lacks


def _weights(
    near: NDArray[np.uint16], cosines: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The distinct words of a query, and what each adds to the approximate score of a photo."""
    words, places = np.unique(near, return_inverse=True)
    gains = cosines - cosines[:, -1:]
    weights = np.bincount(places.ravel(), gains.ravel(), minlength=len(words))
    return words.astype(np.int64), weights.astype(np.float32)


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The places of the largest values, rising; of equal ones the first count."""
    cut = np.partition(values, -count)[-count]
    larger = values > cut
    equal = np.flatnonzero(values == cut)[: count - int(larger.sum())]
    larger[equal] = True
    return np.flatnonzero(larger)
