"""An object as recall by visual words asks for it, prepared for both stages of the search."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# Of the approximate score, see `_groups`. benchmarks/recall.py prints what these choices cost.
_GROUPS = 8
_FADING = 0.85
_SHARE = 0.85


@dataclass(frozen=True, eq=False)
class Group:
    """Cells that are alike, and the words that count for them.

    words: (w,) int64. weights: (w,) float32, what each adds to the gain of a photo that has it.
    most: the gain of a photo that has the nearest word of every cell.
    """

    words: NDArray[np.int64]
    weights: NDArray[np.float32]
    most: np.float32


@dataclass(frozen=True, eq=False)
class WordQuery:
    """The cells of an object in the words of one codec.

    near: (cells, m) uint16, the nearest words of each cell, the nearest first. cosines: (cells, m)
    float32.
    """

    near: NDArray[np.uint16]
    cosines: NDArray[np.float32]

    @cached_property
    def groups(self) -> list[Group]:
        """The terms of the approximate score."""
        return _groups(self.near, self.cosines)

    @cached_property
    def counted(self) -> tuple[NDArray[np.uint16], NDArray[np.intp]]:
        """The distinct words without the last of each cell, and where each cell's are among them,
        (cells, m - 1).

        The last word of a cell counts even for a photo that does not have it.
        """
        near = self.near[:, :-1]
        words, places = np.unique(near, return_inverse=True)
        return words, places.reshape(near.shape)


def _groups(near: NDArray[np.uint16], cosines: NDArray[np.float32]) -> list[Group]:
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
    kept &= total > 0
    found = []
    for number in range(_GROUPS):
        own = np.flatnonzero(kept & (owner == number))
        if len(own):
            most = gains[group == number, 0].sum(dtype=np.float32)
            found.append(Group(words[own].astype(np.int64), total[own].astype(np.float32), most))
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
