"""The visual words of many photos, by photo and by word, and the search in them.

A query is scored in two stages, as in PLAID (Santhanam et al., CIKM 2022) and WARP (Scheerer et
al., SIGIR 2025). The lists of the heaviest words of the query give every photo an approximate
score. The exact score is computed only for the photos that are best by it, from their own words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.recall.word_query import WordQuery

# The most photos in a block: an entry of a list takes two bytes, and sums stay in the cache.
BLOCK = 65_536
# So few photos are all scored, by lists; so are more where all are asked for.
_SMALL = 16_384
# Of more, the exact score is computed for so many, and for so many per photo that is asked for.
_SCORED = 4096
_SCORED_PER_ANSWER = 10
# Exact scores of so many photos are computed at a time, so that they stay in the cache.
_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class WordLists:
    """The words of a block of n photos of one codec, n <= BLOCK.

    codec: its number. ids: (n,) int64. bounds: (n + 1,) int64; photo i has the words
    words[bounds[i] : bounds[i + 1]], uint16, rising. starts: (vocabulary + 1,) int64; the photos
    that have word w are entries[starts[w] : starts[w + 1]], uint16, rising, places among the ids.
    """

    codec: int
    ids: NDArray[np.int64]
    bounds: NDArray[np.int64]
    words: NDArray[np.uint16]
    starts: NDArray[np.int64]
    entries: NDArray[np.uint16]

    @classmethod
    def invert(
        cls,
        codec: int,
        ids: NDArray[np.int64],
        bounds: NDArray[np.int64],
        words: NDArray[np.uint16],
    ) -> "WordLists":
        """The lists of photos whose words are known."""
        # Sorted by word, and the photos of a word by their place in the block.
        both = np.repeat(np.arange(len(ids), dtype=np.uint32), np.diff(bounds))
        both |= words.astype(np.uint32) << np.uint32(16)
        both.sort()
        entries = both.astype(np.uint16)  # the lower half
        starts = np.concatenate([[0], np.cumsum(np.bincount(words))])
        return cls(codec, ids, bounds, words, starts, entries)

    def all_scores(self, query: WordQuery) -> NDArray[np.float32]:
        """The exact scores of all photos, (n,), see `WordRecall.search`."""
        lists = {
            word: self.entries[self.starts[word] : self.starts[word + 1]].astype(np.intp)
            for word in np.unique(query.near).tolist()
            if word + 1 < len(self.starts)
        }
        scores = np.zeros(len(self.ids), np.float32)
        best = np.empty_like(scores)
        for words, values in zip(query.near.tolist(), query.cosines, strict=True):
            best.fill(values[-1])
            for word, value in zip(reversed(words), values[::-1], strict=True):
                if word in lists:
                    best[lists[word]] = value  # the nearest word is written last
            scores += best
        scores /= max(1, len(query.near))
        return scores

    def approximate_scores(self, query: WordQuery) -> NDArray[np.float32]:
        """Approximate scores (n,), larger for better photos, not negative; see `WordQuery`."""
        scores = np.zeros(len(self.ids), np.float32)
        gained = np.empty(len(self.ids), np.float32)
        end = len(self.starts) - 1
        for group in query.groups:
            # No photo of the block has a word beyond its vocabulary.
            first = self.starts[np.minimum(group.words, end)]
            stop = self.starts[np.minimum(group.words + 1, end)]
            lists = [self.entries[i:j] for i, j in zip(first.tolist(), stop.tolist(), strict=True)]
            gained.fill(0)
            np.add.at(
                gained,
                np.concatenate(lists).astype(np.intp),
                np.repeat(group.weights, stop - first),
            )
            np.divide(gained, gained + group.most, out=gained)
            gained *= group.most
            scores += gained
        return scores

    def scores(self, rows: NDArray[np.int64], query: WordQuery) -> NDArray[np.float32]:
        """The exact scores of some photos, (rows,), see `WordRecall.search`."""
        scores = np.zeros(len(rows), np.float32)
        cells, last = query.near.shape[0], query.near.shape[1] - 1
        if cells == 0:
            return scores
        asked, places = query.counted
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
            values = query.cosines.ravel()[nearest + offsets]
            scores[start : start + _AT_ONCE] = values.sum(axis=0) / np.float32(cells)
        return scores

    def _lacks(
        self, rows: NDArray[np.int64], column: NDArray[np.int16], asked: int
    ) -> NDArray[np.uint8]:
        """(asked, rows) uint8: 0 where a photo has a word, else 255.

        column: for each word the row that it has in the answer, -1 for none.
        """
        first, stop = self.bounds[rows], self.bounds[rows + 1]
        words = np.concatenate(
            [self.words[i:j] for i, j in zip(first.tolist(), stop.tolist(), strict=True)]
        )
        columns = column.take(words)
        wanted = np.flatnonzero(columns >= 0)
        owners = np.repeat(np.arange(len(rows)), stop - first).take(wanted)
        lacks = np.full((asked, len(rows)), 255, np.uint8)
        lacks[columns.take(wanted), owners] = 0
        return lacks


def search_lists(
    blocks: Sequence[WordLists], masks: Sequence[NDArray[np.bool_]], query: WordQuery, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and exact scores of photos that include the k best, of all blocks of a
    codec, at least one.

    masks: (n,) bool for each block, the photos that may be found. Where there are many photos, one
    of the best may be missing, because its approximate score is not among the largest.
    """
    if sum(map(len, masks)) <= max(_SMALL, k):
        scores = [lists.all_scores(query)[mask] for lists, mask in zip(blocks, masks, strict=True)]
        ids = [lists.ids[mask] for lists, mask in zip(blocks, masks, strict=True)]
        return np.concatenate(ids), np.concatenate(scores)
    kept = max(_SCORED, _SCORED_PER_ANSWER * k)
    chosen = list(masks)
    if sum(int(mask.sum()) for mask in masks) > kept:
        approximate = [
            np.where(mask, lists.approximate_scores(query), -1)
            for lists, mask in zip(blocks, masks, strict=True)
        ]
        best = _largest(np.concatenate(approximate), kept)
        chosen = np.split(best, np.cumsum([len(mask) for mask in masks])[:-1])
    rows = [np.flatnonzero(some) for some in chosen]
    scores = [lists.scores(some, query) for lists, some in zip(blocks, rows, strict=True)]
    ids = [lists.ids[some] for lists, some in zip(blocks, rows, strict=True)]
    return np.concatenate(ids), np.concatenate(scores)


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """True at the largest values, of equal ones at the first: `count` of them, fewer than all."""
    cut = np.partition(values, -count)[-count]
    largest: NDArray[np.bool_] = values > cut
    largest[np.flatnonzero(values == cut)[: count - int(largest.sum())]] = True
    return largest
