"""Retrieval metrics of one query's ranking, and their spread over queries."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def average_precision(relevant: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Average precision as scikit-learn defines it: sum over thresholds of (R_n - R_n-1) P_n.

    relevant: (n,) bool, at least one True. scores: (n,), higher is better; equal scores share one
    threshold. Raises ValueError where nothing is relevant.
    """
    if not relevant.any():
        raise ValueError("no relevant photo: average precision is undefined")
    # Only at the score of a relevant photo is anything gained.
    thresholds, gained = np.unique(-scores[relevant], return_counts=True)
    others = np.sort(-scores[~relevant])
    true_positives = np.cumsum(gained)
    precision = true_positives / (true_positives + others.searchsorted(thresholds, side="right"))
    return float((precision * gained / gained.sum()).sum())


def ranks_of(relevant: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """The ranks of the relevant photos, from 0, ascending; equal scores count against the method.

    relevant: (n,) bool. scores: (n,), higher is better.
    """
    others, own = np.sort(-scores[~relevant]), np.sort(-scores[relevant])
    ranks: NDArray[np.int64] = others.searchsorted(own, side="right") + np.arange(len(own))
    return ranks


def best_places(
    scores: NDArray[np.floating], k: int, last: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The places of the k highest scores, the highest first, or of all where there are fewer.

    Of equal scores those at the places in `last` come last, then the earlier place comes first.
    scores: (n,). k: at least 1.
    """
    losses, among = -scores, np.arange(len(scores))
    if k < len(scores):
        # Sorting all of a large gallery would take ten times as long.
        among = np.flatnonzero(~(losses > np.partition(losses, k - 1)[k - 1]))
    behind = np.isin(among, [] if last is None else last)
    return among[np.lexsort((behind, losses[among]))[:k]]


def recall_at(relevant: NDArray[np.bool_], scores: NDArray[np.floating], k: int) -> float:
    """1 if one of the k best is relevant, else 0. Equal scores count against the method."""
    best_relevant = scores[relevant].max()
    return float((scores[~relevant] >= best_relevant).sum() < k)


def found_within(relevant: NDArray[np.bool_], scores: NDArray[np.floating], share: float) -> float:
    """The share of the relevant photos that is among the best `share` of all photos, and so
    survives a recall of that many. Equal scores count against the method.
    """
    others = np.sort(scores[~relevant])
    better = len(others) - np.searchsorted(others, scores[relevant], side="left")
    return float(np.mean(better < share * len(scores)))


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64], seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean, from 2,000 resamples."""
    array = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(array), (2000, len(array)))
    low, high = np.percentile(array[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
