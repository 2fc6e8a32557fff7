"""Workers that hold parts of several fleets.

To run this file alone:
    timeout 280 python -m pytest -p no:xdist -x tests/fleets/test_shared_holders.py
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ray", reason="ray is not installed: pip install 'waldo-search[ray]'")

from indexer.collection import Collection
from indexer.fleet import cluster_reader
from indexer.fleet.cluster_reader import ClusterReader, HiredHolders, hire_holders
from indexer.fleet.fleet_reader import open_collection
from indexer.ray_cluster import ClusterError, RayCluster
from tests.fleets.conftest import FIRST, PARTS
from tests.helpers.servers.ray_clusters import kill


@pytest.fixture
def hired(there: RayCluster) -> Iterator[HiredHolders]:
    with hire_holders(there, PARTS) as workers:
        yield workers


def who_holds(held: ClusterReader) -> set[int]:
    """The processes that hold the photos."""
    return set(held.near_maps(held.ids, process))


def process(reader: Collection, ids: NDArray[np.int64]) -> int:
    assert set(ids.tolist()) <= set(reader.ids.tolist())
    return os.getpid()


def assert_alike(held: ClusterReader, fleet: Path) -> None:
    with open_collection(fleet) as whole:
        axis = np.eye(2 * whole.dim, dtype=np.float32)[0]
        expected = whole.recall.search(axis, whole.n_photos)
        scores = whole.recall.score_all(axis)
    np.testing.assert_array_equal(held.recall.score_all(axis), scores)
    np.testing.assert_array_equal(held.recall.search(axis, held.n_photos), expected)
    assert len(expected[0]) >= FIRST


def test_several_fleets_are_held_by_the_same_workers_and_outlive_one(
    hired: HiredHolders, made: Path
) -> None:
    places = made / "whole", made / "begun"
    one, other = (ClusterReader.open_on(place, hired) for place in places)
    with one, other:
        workers = who_holds(one)
        assert len(workers) == 2
        few = who_holds(other)  # of so few photos, perhaps not both have some
        assert few <= workers
        for held, place in zip((one, other), places, strict=True):
            assert_alike(held, place)
        kill(min(few))
        for held, place in zip((other, one), places[::-1], strict=True):  # each finds it out
            assert_alike(held, place)
            assert who_holds(held) == workers - {min(few)}
    with ClusterReader.open_on(made / "begun", hired) as late:
        assert_alike(late, made / "begun")


@pytest.mark.usefixtures("hired")
def test_who_finds_no_room_is_told(
    made: Path, there: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_reader, "_TO_COME", 1.0)
    monkeypatch.setattr(cluster_reader, "_TO_FOLLOW", 0.5)
    with pytest.raises(ClusterError, match="has no room for a worker with 1 cores"):
        ClusterReader.open_on(made / "whole", there)
