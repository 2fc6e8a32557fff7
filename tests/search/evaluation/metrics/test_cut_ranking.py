"""The metrics that single benchmarks define, against plain loops, scikit-learn, and by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from search.evaluation.metrics.cut_ranking import (
    CUT_METRICS,
    average_precision_within,
    ndcg,
    precision_sum_within,
    recall_within,
    trapezoidal,
)

N_CASES = 300


def cases(distinct: bool) -> list[tuple[NDArray[np.bool_], NDArray[np.float64], int]]:
    """Random (relevant, scores, n_positives); few distinct scores where they may tie."""
    random = np.random.default_rng(7)
    made = []
    for _ in range(N_CASES):
        n = int(random.integers(1, 40))
        relevant = random.random(n) < random.uniform(0.05, 0.9)
        scores = random.permutation(n) if distinct else random.integers(0, 6, n)
        relevant[random.integers(n)] = True
        missing = int(random.integers(0, 3))
        made.append((relevant, scores.astype(np.float64), int(relevant.sum()) + missing))
    return made


def in_order(relevant: NDArray[np.bool_], scores: NDArray[np.float64]) -> list[bool]:
    """Best first; among equal scores those that are not relevant."""
    pairs = sorted(zip(-scores, relevant, strict=True), key=lambda pair: (pair[0], pair[1]))
    return [bool(hit) for _, hit in pairs]


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_gldv2s_precision_is_a_plain_loops(k: int, distinct: bool) -> None:
    for relevant, scores, m in cases(distinct):
        total, found = 0.0, 0
        for rank, hit in enumerate(in_order(relevant, scores)[:k], start=1):
            found += hit
            total += hit * found / rank
        wanted = total / min(m, k)
        assert precision_sum_within(relevant, scores, m, k) == pytest.approx(wanted, abs=1e-12)


def test_ndcg_is_a_plain_loops_and_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for relevant, scores, m in cases(distinct=True):
        ranked = in_order(relevant, scores)
        gain = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(ranked, start=1))
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, m + 1))
        assert ndcg(relevant, scores, m) == pytest.approx(gain / ideal, abs=1e-12)
        if m == relevant.sum() and len(scores) > 1:
            theirs = metrics.ndcg_score([relevant.astype(float)], [scores])
            assert ndcg(relevant, scores, m) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_ilias_precision_is_scikit_learns_over_the_top(k: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for relevant, scores, m in cases(distinct=True):
        top = np.argsort(-scores)[:k]
        hits = relevant[top]
        wanted = 0.0
        if hits.any():
            wanted = metrics.average_precision_score(hits, scores[top]) * hits.sum() / min(k, m)
        assert average_precision_within(relevant, scores, m, k) == pytest.approx(wanted, abs=1e-12)


def test_trapezoidal_precision_is_a_plain_loops() -> None:
    for relevant, scores, m in cases(distinct=False):
        total, found = 0.0, 0
        for rank, hit in enumerate(in_order(relevant, scores)):
            if hit:
                before = found / rank if rank else 1.0
                found += 1
                total += (before + found / (rank + 1)) / 2
        assert trapezoidal(relevant, scores, m) == pytest.approx(total / m, abs=1e-12)


def test_the_edges_by_hand() -> None:
    relevant, scores = np.array([False, True, False, True]), np.array([4.0, 3.0, 2.0, 1.0])
    # Ranks 2 and 4 of two relevant photos.
    assert ndcg(relevant, scores, 2) == pytest.approx(
        (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    )
    assert precision_sum_within(relevant, scores, 2, k=100) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert precision_sum_within(relevant, scores, 2, k=1) == 0.0
    assert average_precision_within(relevant, scores, 2, k=1) == 0.0
    # One of the two is among the best three, by itself with average precision 1/2.
    assert average_precision_within(relevant, scores, 2, k=3) == pytest.approx(1 / 2 * 1 / 2)
    assert trapezoidal(np.array([False, True]), np.array([2.0, 1.0]), 1) == pytest.approx(0.25)
    assert [recall_within(relevant, scores, 2, k) for k in (1, 2, 9)] == [0.0, 1.0, 1.0]
    # All photos alike: the relevant one comes last.
    alone, equal = np.array([True, False, False]), np.zeros(3)
    assert recall_within(alone, equal, 1, k=2) == 0.0
    assert average_precision_within(alone, equal, 1, k=2) == 0.0
    assert precision_sum_within(alone, equal, 1, k=3) == pytest.approx(1 / 3)
    # What the gallery lacks is not found, by any of them.
    nothing = np.zeros(3, dtype=bool)
    assert [metric(nothing, equal, 2) for metric in CUT_METRICS.values()] == [0.0] * 8
