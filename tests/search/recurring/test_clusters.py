"""Sparse average linkage against scipy's, which has all pairs."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from search.recurring.clusters import average_linkage, join_overlapping


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_groups_are_those_of_dense_average_linkage(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    count, least, most = 40, 0.3, 1.0
    strengths = np.triu(rng.random((count, count)) * (rng.random((count, count)) < share), 1)
    pairs = np.argwhere(strengths > 0)
    values = strengths[strengths > 0].astype(np.float32)
    found = average_linkage(count, pairs, values, least)
    full = np.zeros((count, count))
    full[tuple(pairs.T)] = values
    distances = most - (full + full.T)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances), "average")
    numbers = fcluster(tree, most - least, "distance")
    expected = [np.flatnonzero(numbers == n).tolist() for n in np.unique(numbers)]
    assert found == sorted(group for group in expected if len(group) > 1)


def test_a_chain_of_links_joins_no_large_group() -> None:
    chain = np.stack([np.arange(9), np.arange(1, 10)], axis=1)
    assert all(len(g) <= 3 for g in average_linkage(10, chain, np.ones(9, np.float32), 0.6))


def test_nothing_linked_is_no_group() -> None:
    assert average_linkage(5, np.empty((0, 2), np.int64), np.empty(0, np.float32), 0.5) == []


def test_groups_of_the_same_photos_are_one() -> None:
    groups = [{1, 2, 3, 4}, {5, 6}, {3, 4, 9}, {4, 8}, {9, 7, 10, 11, 12}]
    # The third shares two of three photos with the first; then the joined one shares only photo 9.
    assert join_overlapping(groups, 0.5) == [[0, 2], [4], [1], [3]]
