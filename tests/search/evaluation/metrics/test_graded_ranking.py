"""The revisited Oxford and Paris metrics, against plain loops and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.evaluation.metrics.graded_ranking import (
    positive_ranks,
    revisited_average_precision,
    revisited_precision_at,
)

# A ranking, best first: what each place of it is.
labelled_rankings = st.lists(
    st.sampled_from(["positive", "junk", "negative"]), min_size=1, max_size=30
).filter(lambda labels: "positive" in labels)


def arranged(labels: list[str], seed: int) -> NDArray[np.int64]:
    """The ranks of the positives, in a gallery in random order."""
    random = np.random.default_rng(seed)
    ranked = random.permutation(len(labels))
    scores = np.empty(len(labels), np.float32)
    scores[ranked] = -np.arange(len(labels))
    positives, junk = (
        np.sort(ranked[[label == wanted for label in labels]]).astype(np.int64)
        for wanted in ("positive", "junk")
    )
    return positive_ranks(scores, positives, junk)


def naive_average_precision(labels: list[str]) -> float:
    kept = [label for label in labels if label != "junk"]
    total, found = 0.0, 0
    for rank, label in enumerate(kept):
        if label == "positive":
            before = found / rank if rank > 0 else 1.0
            found += 1
            total += (before + found / (rank + 1)) / 2
    return total / found


def naive_precision_at(labels: list[str], k: int) -> float:
    kept = [label for label in labels if label != "junk"]
    while kept[-1] != "positive":
        kept.pop()
    head = kept[:k]
    return head.count("positive") / len(head)


@given(labelled_rankings, st.integers(0, 1000))
@settings(max_examples=300, deadline=None)
def test_average_precision_is_a_plain_loops(labels: list[str], seed: int) -> None:
    ranks = arranged(labels, seed)
    found = revisited_average_precision(ranks, labels.count("positive"))
    assert found == pytest.approx(naive_average_precision(labels), abs=1e-12)


@given(labelled_rankings, st.integers(0, 1000), st.sampled_from([1, 2, 5, 10, 100]))
@settings(max_examples=300, deadline=None)
def test_precision_at_k_is_a_plain_loops(labels: list[str], seed: int, k: int) -> None:
    found = revisited_precision_at(arranged(labels, seed), k)
    assert found == pytest.approx(naive_precision_at(labels, k), abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("P", 1.0),
        ("-P", 0.25),
        ("--P", 1 / 6),
        ("PP", 1.0),
        ("P--P", ((1 + 1) / 2 + (1 / 3 + 2 / 4) / 2) / 2),
        ("jP", 1.0),
        ("jjjjP", 1.0),
        ("Pjjjj", 1.0),
        ("j-jP-j", 0.25),
        ("-jP", 0.25),
    ],
)
def test_average_precision_by_hand(labels: str, expected: float) -> None:
    names = [{"P": "positive", "j": "junk", "-": "negative"}[label] for label in labels]
    found = revisited_average_precision(arranged(names, 0), names.count("positive"))
    assert found == pytest.approx(expected)


def test_precision_at_k_does_not_look_behind_the_last_positive() -> None:
    # Without the junk, which is first, the positives are at ranks 0 and 2.
    ranks = positive_ranks(-np.arange(8.0), np.array([1, 3]), np.array([0]))
    assert ranks.tolist() == [0, 2]
    assert revisited_precision_at(ranks, 1) == 1.0
    assert revisited_precision_at(ranks, 2) == 0.5
    assert revisited_precision_at(ranks, 10) == pytest.approx(2 / 3)


def test_positives_that_are_not_ranked_count_as_never_found() -> None:
    found, none = np.array([0]), np.array([], dtype=np.int64)
    assert revisited_average_precision(found, 2) == 0.5
    assert revisited_precision_at(found, 10) == 1.0
    assert revisited_average_precision(none, 1) == 0.0
    assert revisited_precision_at(none, 10) == 0.0


def test_equal_scores_count_against_the_method() -> None:
    ranks = positive_ranks(np.zeros(4), np.array([0, 2]), np.array([3]))
    assert ranks.tolist() == [1, 2]


def test_a_query_without_positives_has_no_score() -> None:
    with pytest.raises(ValueError, match="no positive"):
        revisited_average_precision(np.array([], dtype=np.int64), 0)
