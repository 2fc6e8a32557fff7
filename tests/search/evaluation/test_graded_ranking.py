"""The revisited Oxford and Paris metrics, against plain loops and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.evaluation.metrics.graded_ranking import (
    revisited_average_precision,
    revisited_precision_at,
)

# A ranking, best first: what each place of it is.
labelled_rankings = st.lists(
    st.sampled_from(["positive", "junk", "negative"]), min_size=1, max_size=30
).filter(lambda labels: "positive" in labels)


def arranged(
    labels: list[str], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(ranked, positives, junk) of a gallery in random order."""
    random = np.random.default_rng(seed)
    ranked = random.permutation(len(labels))
    groups = (
        ranked[[label == wanted for label in labels]].astype(np.int64)
        for wanted in ("positive", "junk")
    )
    positives, junk = (random.permutation(group) for group in groups)
    return ranked, positives, junk


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
    found = revisited_average_precision(*arranged(labels, seed))
    assert found == pytest.approx(naive_average_precision(labels), abs=1e-12)


@given(labelled_rankings, st.integers(0, 1000), st.sampled_from([1, 2, 5, 10, 100]))
@settings(max_examples=300, deadline=None)
def test_precision_at_k_is_a_plain_loops(labels: list[str], seed: int, k: int) -> None:
    found = revisited_precision_at(*arranged(labels, seed), k)
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
    assert revisited_average_precision(*arranged(names, 0)) == pytest.approx(expected)


def test_precision_at_k_does_not_look_behind_the_last_positive() -> None:
    ranked, positives, junk = np.arange(8), np.array([1, 3]), np.array([0])
    # Without the junk the positives are at ranks 0 and 2.
    assert revisited_precision_at(ranked, positives, junk, 1) == 1.0
    assert revisited_precision_at(ranked, positives, junk, 2) == 0.5
    assert revisited_precision_at(ranked, positives, junk, 10) == pytest.approx(2 / 3)


def test_positives_that_are_not_ranked_count_as_never_found() -> None:
    ranked, none = np.array([5, 0, 1]), np.array([], dtype=np.int64)
    assert revisited_average_precision(ranked, np.array([5, 9]), none) == 0.5
    assert revisited_precision_at(ranked, np.array([5, 9]), none, 10) == 1.0
    assert revisited_average_precision(ranked, np.array([9]), none) == 0.0
    assert revisited_precision_at(ranked, np.array([9]), none, 10) == 0.0


@pytest.mark.parametrize("junk", [[], [0, 1, 2]])
def test_a_query_without_positives_has_no_score(junk: list[int]) -> None:
    arrays = np.arange(3), np.array([], dtype=np.int64), np.array(junk, dtype=np.int64)
    with pytest.raises(ValueError, match="no positive"):
        revisited_average_precision(*arrays)
    with pytest.raises(ValueError, match="no positive"):
        revisited_precision_at(*arrays, 10)
