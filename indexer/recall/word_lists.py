"""The visual words of many photos, by photo and by word, and the search in them.

A query is scored in two stages, as in PLAID (Santhanam et al., CIKM 2022) and WARP (Scheerer et
al., SIGIR 2025). The lists of the heaviest words of the query give every photo an approximate
score. The exact score is computed only for the photos that are best by it, from their own words.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Photos per block of lists: an entry of a list takes two bytes, and sums stay in the cache.
BLOCK = 65_536
# So few photos are all scored, by lists.
_SMALL = 16_384
# Of more, the exact score is computed for so many, and for so many per photo that is asked for.
_SCORED = 4096
_SCORED_PER_ANSWER = 10
# Exact scores of so many photos are computed at a time, so that they stay in the cache.
_AT_ONCE = 512
# Of the approximate score, see `_groups`. benchmarks/recall.py prints what these choices cost.
_GROUPS = 8
_FADING = 0.85
_SHARE = 0.85


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
        found. The scores are exact. Where there are many photos, one of the best may be missing,
        because its approximate score is not among the largest.
        """
        if len(self) <= min(_SMALL, BLOCK):
            rows = np.flatnonzero(mask)
            return rows, self._all_scores(near, cosines)[rows]
        kept = max(_SCORED, _SCORED_PER_ANSWER * k)
        if int(mask.sum()) <= kept:
            rows = np.flatnonzero(mask)
        else:
            rows = _largest(np.where(mask, self._sums(near, cosines), -1), kept)
        return rows, self._scores(rows, near, cosines)

    def _all_scores(
        self, near: NDArray[np.uint16], cosines: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The exact scores of all photos, (n,); there is only one block of them."""
        [starts] = self.starts
        lists = {
            word: self.entries[starts[word] : starts[word + 1]].astype(np.intp)
            for word in np.unique(near).tolist()
            if word + 1 < len(starts)
        }
        scores = np.zeros(len(self), np.float32)
        best = np.empty_like(scores)
        for words, values in zip(near.tolist(), cosines, strict=True):
            best.fill(values[-1])
            for word, value in zip(reversed(words), values[::-1], strict=True):
                if word in lists:
                    best[lists[word]] = value  # the nearest word is written last
            scores += best
        scores /= max(1, len(near))
        return scores

    def _sums(self, near: NDArray[np.uint16], cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Approximate scores (n,), larger for better photos, not negative; see `_groups`."""
        groups = _groups(near, cosines, self.starts.shape[1] - 1)
        sums = np.zeros(len(self), np.float32)
        gained = np.empty(BLOCK, np.float32)
        for number, starts in enumerate(self.starts):
            own = sums[number * BLOCK : (number + 1) * BLOCK]
            for group in groups:
                first, stop = starts[group.words], starts[group.words + 1]
                lists = [
                    self.entries[i:j] for i, j in zip(first.tolist(), stop.tolist(), strict=True)
                ]
                gained.fill(0)
                np.add.at(
                    gained,
                    np.concatenate(lists).astype(np.intp),
                    np.repeat(group.weights, stop - first),
                )
                part = gained[: len(own)]
                np.divide(part, part + group.most, out=part)
                part *= group.most
                own += part
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


@dataclass(frozen=True, eq=False)
class _Group:
    """Cells that are alike, and the words that count for them.

    words: (w,) int64. weights: (w,) float32, what each adds to the gain of a photo that has it.
    most: the gain of a photo that has the nearest word of every cell.
    """

    words: NDArray[np.int64]
    weights: NDArray[np.float32]
    most: np.float32


def _groups(
    near: NDArray[np.uint16], cosines: NDArray[np.float32], vocabulary: int
) -> list[_Group]:
    """The terms of the approximate score: what a photo gains in some groups of cells.

    What a cell gains by a word is the word's cosine beyond that of the cell's last word. The score
    adds the largest gain of each cell. To read every list once, the approximate score adds all
    gains of a word, each the less, the more words are nearer to the cell. A photo that has several
    words of one cell would get too much. Therefore alike cells make a group, and a group's sum x
    counts as most * x / (x + most). Words with the least weight are left out.
    """
    gains = cosines - cosines[:, -1:]
    faded = gains * _FADING ** np.arange(gains.shape[1])
    words, places = np.unique(near, return_inverse=True)
    places = places.reshape(near.shape)
    group = _alike(places, faded)
    weight = np.zeros((_GROUPS, len(words)))
    np.add.at(weight, (np.repeat(group, near.shape[1]), places.ravel()), faded.ravel())
    # A word counts where it weighs most.
    owner, total = weight.argmax(axis=0), weight.sum(axis=0)
    heaviest = np.argsort(-total, kind="stable")
    enough = np.searchsorted(np.cumsum(total[heaviest]), _SHARE * total.sum()) + 1
    kept = np.zeros(len(words), dtype=bool)
    kept[heaviest[:enough]] = True
    kept &= (total > 0) & (words < vocabulary)
    found = []
    for number in range(_GROUPS):
        own = np.flatnonzero(kept & (owner == number))
        if len(own):
            most = gains[group == number, 0].sum(dtype=np.float32)
            found.append(_Group(words[own].astype(np.int64), total[own].astype(np.float32), most))
    return found


def _alike(places: NDArray[np.int64], gains: NDArray[np.float64]) -> NDArray[np.int64]:
    """The group of each cell, (cells,): a word with the largest gains, and all cells near to it.

    places: (cells, m), the words near to each cell. gains: (cells, m). The last group is the rest.
    """
    group = np.full(len(places), _GROUPS - 1)
    free = np.ones(len(places), dtype=bool)
    for number in range(_GROUPS - 1):
        total = np.bincount(places[free].ravel(), gains[free].ravel(), minlength=1)
        own = free & (places == total.argmax()).any(axis=1)
        group[own] = number
        free &= ~own
    return group


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The places of the largest values, rising; of equal ones the first count."""
    cut = np.partition(values, -count)[-count]
    larger = values > cut
    equal = np.flatnonzero(values == cut)[: count - int(larger.sum())]
    larger[equal] = True
    return np.flatnonzero(larger)
