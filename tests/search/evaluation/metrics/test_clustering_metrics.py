"""BCubed and pairwise scores against their definitions in plain loops, and by hand at the edges."""

import math

import numpy as np
import pytest

from search.evaluation.metrics.clustering import score_groups


def by_definition(
    groups: list[set[int]], labels: list[set[str]]
) -> tuple[list[float], list[float], float, float]:
    """BCubed precision and recall of each photo, and pairwise precision and recall."""
    count = len(labels)
    own = [
        {k for k, group in enumerate(groups) if i in group} or {f"alone {i}"} for i in range(count)
    ]
    precisions, recalls = [], []
    for i in range(count):
        precision, recall = [], []
        for j in range(count):
            shared, same = len(own[i] & own[j]), len(labels[i] & labels[j])
            if shared:
                precision.append(min(shared, same) / shared)
            if same:
                recall.append(min(shared, same) / same)
        precisions.append(sum(precision) / len(precision))
        recalls.append(sum(recall) / len(recall) if recall else math.nan)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    grouped = {(i, j) for i, j in pairs if own[i] & own[j]}
    true = {(i, j) for i, j in pairs if labels[i] & labels[j]}
    both = len(grouped & true)
    return (
        precisions,
        recalls,
        both / len(grouped) if grouped else math.nan,
        both / len(true) if true else math.nan,
    )


@pytest.mark.parametrize("seed", range(8))
def test_overlapping_groups_score_as_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 25))
    groups = [
        set(np.flatnonzero(rng.random(count) < 0.3).tolist())
        for _ in range(int(rng.integers(0, 6)))
    ]
    groups = [group for group in groups if group]
    labels = [{f"{n}" for n in np.flatnonzero(rng.random(4) < 0.4)} for _ in range(count)]
    found = score_groups(groups, labels)
    precisions, recalls, pair_precision, pair_recall = by_definition(groups, labels)
    np.testing.assert_allclose(found.precisions, precisions, atol=1e-12)
    np.testing.assert_allclose(found.recalls, recalls, atol=1e-12)
    np.testing.assert_allclose(found.pair_precision, pair_precision, atol=1e-12)
    np.testing.assert_allclose(found.pair_recall, pair_recall, atol=1e-12)
    assert found.placed == pytest.approx(len(set().union(*groups, set())) / count)


def test_the_right_groups_are_perfect() -> None:
    found = score_groups([{0, 1}, {2, 3, 4}], [{"a"}] * 2 + [{"b"}] * 3)
    assert (found.precision, found.recall, found.f, found.pair_f, found.placed) == (1, 1, 1, 1, 1)


def test_each_photo_alone_is_precise_and_recalls_itself() -> None:
    found = score_groups([], [{"a"}] * 4 + [{"b"}])
    assert found.precision == 1
    assert found.recall == pytest.approx((4 * 0.25 + 1) / 5)
    assert math.isnan(found.pair_precision)
    assert (found.pair_recall, found.placed) == (0, 0)


def test_one_group_of_all_recalls_all() -> None:
    found = score_groups([set(range(4))], [{"a"}, {"a"}, {"b"}, {"b"}])
    assert (found.precision, found.recall) == (0.5, 1)
    assert found.pair_precision == pytest.approx(2 / 6)


def test_a_group_found_twice_is_half_as_precise() -> None:
    found = score_groups([{0, 1}, {0, 1}], [{"a"}, {"a"}])
    assert (found.precision, found.recall) == (0.5, 1)
