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
    order = np.argsort(-scores, kind="stable")
    hits, ranked = relevant[order], scores[order]
    # One threshold after the last of each run of equal scores.
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    true_positives = np.cumsum(hits)[last]
    precision = true_positives / (last + 1)
    gained = np.diff(true_positives, prepend=0) / hits.sum()
    return float((precision * gained).sum())


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
