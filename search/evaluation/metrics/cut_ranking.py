"""Metrics of one query's ranking that single benchmarks define, by the name of their mean.

All take scores, (n,) higher is better, and relevant, (n,) bool. n_positives counts the relevant
photos with those that the gallery lacks, which are never found; there is at least one. Equal scores
count against the method, except in `average_precision_within`.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from search.evaluation.metrics.graded_ranking import revisited_average_precision
from search.evaluation.metrics.ranking import average_precision, best_places, ranks_of, recall_at

Flags = NDArray[np.bool_]
Values = NDArray[np.floating]


def ndcg(relevant: Flags, scores: Values, n_positives: int) -> float:
    """Normalised discounted cumulative gain over the whole list, 0..1 (PODS).

    The gain of a relevant photo is 1, its discount log2(rank + 1), with ranks from 1. The sum is
    divided by that of the ideal order.
    """
    gain = (1 / np.log2(ranks_of(relevant, scores) + 2)).sum()
    return float(gain / (1 / np.log2(np.arange(n_positives) + 2)).sum())


def precision_sum_within(relevant: Flags, scores: Values, n_positives: int, k: int) -> float:
    """Average precision at k as GLDv2 defines it, 0..1.

    The sum over the ranks up to k of a relevant photo's precision, divided by
    min(n_positives, k).
    """
    ranks = ranks_of(relevant, scores)
    precision = np.arange(1, len(ranks) + 1) / (ranks + 1)
    return float(precision[ranks < k].sum() / min(n_positives, k))


def average_precision_within(relevant: Flags, scores: Values, n_positives: int, k: int) -> float:
    """Average precision at k as ILIAS's evaluator defines it, 0..1.

    It is scikit-learn's average precision over the k best photos alone, where equal scores share a
    threshold, times the relevant ones among them over min(n_positives, k); 0 where there is none.
    Of equal scores at rank k the others are taken before relevant photos.
    """
    best = best_places(scores, k, np.flatnonzero(relevant))
    hits = relevant[best]
    if not hits.any():
        return 0.0
    return average_precision(hits, scores[best]) * float(hits.sum()) / min(n_positives, k)


def trapezoidal(relevant: Flags, scores: Values, n_positives: int) -> float:
    """`revisited_average_precision` without junk, 0..1 (INSTRE, by the Oxford evaluator)."""
    return revisited_average_precision(ranks_of(relevant, scores), n_positives)


def recall_within(relevant: Flags, scores: Values, n_positives: int, k: int) -> float:
    """1 if one of the k best is relevant, else 0."""
    return recall_at(relevant, scores, k) if relevant.any() else 0.0


CUT_METRICS: dict[str, Callable[[Flags, Values, int], float]] = {
    "NDCG": ndcg,
    "mAP@100": partial(precision_sum_within, k=100),
    "mAP@1k": partial(average_precision_within, k=1000),
    "mAP_trapezoidal": trapezoidal,
    **{f"Recall@{k}": partial(recall_within, k=k) for k in (20, 30, 100, 1000)},
}
