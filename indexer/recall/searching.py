"""What every recall index can do, and the order of what it finds."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Asked = TypeVar("Asked", contravariant=True)

# Ids (m,) int64 and scores (m,) float32.
Found = tuple[NDArray[np.int64], NDArray[np.float32]]


class Recall(Protocol[Asked]):
    """Photos that can be searched by a kind of question; its length is how many can be found."""

    def __len__(self) -> int: ...

    def search(self, asked: Asked, /, k: int, allowed: NDArray[np.int64] | None = None) -> Found:
        """The k photos with the highest scores, or all of them if there are fewer.

        allowed: sorted ids of the only photos to be found; None allows all. Returns ids (m,) int64
        and scores (m,) float32, m <= k, by falling score; equal scores by rising id.
        """

    def score_all(self, asked: Asked, /) -> Found:
        """The score of every photo that can be found, exact: ids, rising, and their scores."""


# The vector of a query, (d,) float32.
VectorRecall = Recall[NDArray[np.float32]]
# Gives an object's cells in the words of a codec, by its number, as `VisualWords.nearest` does.
WordsIn = Callable[[int], tuple[NDArray[np.uint16], NDArray[np.float32]]]
WordsRecall = Recall[WordsIn]


def best_of(ids: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Found:
    """The k highest scores, by falling score; equal scores by rising id."""
    if k < len(ids):
        kept = scores >= np.partition(scores, -k)[-k]
        ids, scores = ids[kept], scores[kept]
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def by_id(ids: NDArray[np.int64], scores: NDArray[np.float32]) -> Found:
    """The same photos by rising id."""
    order = np.argsort(ids, kind="stable")  # which is quick where they are nearly in order
    return ids[order], scores[order]
