"""A fleet in a bucket that workers on a Ray cluster write and read: its rows are those of a plain
run, whatever dies meanwhile, whoever else writes it, and whatever the network does.

To run this file alone:
    timeout 280 python -m pytest -p no:xdist -x tests/fleets/test_ray_buckets.py
"""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ray", reason="ray is not installed: pip install 'waldo-search[ray]'")
pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from indexer.bucket.remote_index import cached_index
from indexer.bucket.transfer import export_index
from indexer.collection import Collection, MapBatch
from indexer.fleet.cluster_reader import ClusterReader
from indexer.fleet.fleet_reader import open_collection
from indexer.parts import CODEC_NUMBER, part_name, part_of_id
from indexer.ray_cluster import RayCluster
from indexer.upkeep.every_part import verify_collection
from tests.fleets.conftest import FIRST, PARTS, PHOTOS, rows
from tests.helpers.servers.object_server import ObjectServer, point_to
from tests.helpers.servers.ray_clusters import Driver, LocalCluster, kill, wait_until, writers

URL = "s3://photos/fleets/one"

Start = Callable[..., Driver]


@pytest.fixture
def server(store: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    store.reset()
    point_to(store, monkeypatch)
    return store


@pytest.fixture
def start(
    made: Path, cluster: LocalCluster, server: ObjectServer, tmp_path: Path
) -> Iterator[Start]:
    """Starts drivers, each as on a machine of its own, which end with the test."""
    started: list[Driver] = []

    def start(source: Path | str, *more: str) -> Driver:
        home = tmp_path / f"home-{len(started)}"
        started.append(Driver(source, URL, cluster.address, home, *more))
        return started[-1]

    yield start
    for driver in started:
        driver.end()


@pytest.fixture
def begun(made: Path, server: ObjectServer) -> None:
    """In the bucket is a fleet of the first photos."""
    export_index(str(made / "begun"), URL)


def rows_there(folder: Path) -> dict[str, tuple[object, ...]]:
    export_index(URL, str(folder))
    return rows(folder)


def test_photos_and_fleet_in_a_bucket_that_refuses_requests(
    start: Start, server: ObjectServer, made: Path, tmp_path: Path
) -> None:
    for name in (made / "photos" / "first.txt").read_text().split():
        body = (made / "photos" / name).read_bytes()
        server.s3.put_object(Bucket="photos", Key=f"albums/{name}", Body=body)
    chance = random.Random(5)

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        return (503, "SlowDown") if chance.random() < 0.05 else None

    server.fault = refuse
    driver = start("s3://photos/albums", "--parts", str(PARTS), "--workers", "1")
    assert driver.report()["new"] == FIRST
    found = rows_there(tmp_path / "back")
    expected = rows(made / "begun")
    assert {Path(path).name: row for path, row in found.items()} == {
        Path(path).name: row for path, row in expected.items()
    }
    assert [*verify_collection(Path(URL))] == []


@pytest.mark.usefixtures("begun")
def test_of_two_runs_at_once_a_worker_and_then_a_driver_are_killed(
    start: Start, cluster: LocalCluster, server: ObjectServer, made: Path, tmp_path: Path
) -> None:
    """The run that is left does what they have not done."""
    before = len(server.requests)
    killed, left = (start(made / "photos", "--workers", "1") for _ in range(2))
    _, process = wait_until(lambda: next(iter(at_work(cluster).items()), None), "a part")
    kill(process)
    wait_until(lambda: has_commit(server.requests[before:]), "a commit by a worker that is left")
    killed.signal(signal.SIGKILL)
    assert left.report()["total"] == PHOTOS
    assert rows_there(tmp_path / "back") == rows(made / "whole")
    assert [*verify_collection(Path(URL))] == []


def test_workers_search_it_where_it_lies(
    made: Path, there: RayCluster, server: ObjectServer
) -> None:
    export_index(str(made / "whole"), URL)
    with (
        open_collection(made / "whole") as whole,
        ClusterReader.open_on(cached_index(URL), there) as held,
    ):
        axis = np.eye(2 * whole.dim, dtype=np.float32)[0]
        words = whole.words_in(np.eye(whole.dim, dtype=np.float32)[:20], CODEC_NUMBER)
        assert whole.word_recall is not None
        assert held.word_recall is not None
        for k, allowed in ((5, None), (PHOTOS, None), (7, whole.ids[::2])):
            for found, expected in (
                (held.recall.search(axis, k, allowed), whole.recall.search(axis, k, allowed)),
                (
                    held.word_recall.search(lambda _: words, k, allowed),
                    whole.word_recall.search(lambda _: words, k, allowed),
                ),
            ):
                np.testing.assert_array_equal(found, expected)
                assert len(found[0]) == k
        expected, before = maps_of(whole.read_maps(whole.ids)), len(server.requests)
        assert maps_there(held, whole.ids[::-1]) == (expected, [])
        asked = server.requests[before:]
        assert {method for method, _ in asked} == {"GET"}
        assert all("/shards/" in path for _, path in asked)
        flip_a_byte(server)
        found, [line] = maps_there(held, whole.ids)
    [lacking] = expected.keys() - found.keys()
    assert line.startswith(f"{URL}/{part_name(part_of_id(lacking))}: ")
    assert "its checksum differs" in line
    assert found == {number: row for number, row in expected.items() if number != lacking}


def flip_a_byte(server: ObjectServer) -> None:
    """One that belongs to the maps of a photo."""
    key, content = next(item for item in server.objects().items() if "/shards/" in item[0])
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    server.s3.put_object(Bucket="photos", Key=key, Body=bytes(flipped))


def read_maps(reader: Collection, ids: NDArray[np.int64]) -> MapBatch:
    return reader.read_maps(ids)


def maps_there(held: ClusterReader, ids: NDArray[np.int64]) -> tuple[dict[int, bytes], list[str]]:
    """The maps that the workers read, by the photos' ids, and what they find damaged."""
    batches = held.near_maps(ids, read_maps)
    assert len(batches) == 2
    found = {number: row for batch in batches for number, row in maps_of(batch).items()}
    return found, [line for batch in batches for line in batch.damaged]


def maps_of(batch: MapBatch) -> dict[int, bytes]:
    return {
        number: bytes(row) for number, row in zip(batch.ids.tolist(), batch.encoded, strict=True)
    }


def at_work(cluster: LocalCluster) -> dict[int, int]:
    """The processes that are at parts of the fleet, on any node, by the parts' numbers."""
    found = {}
    for scratch in cluster.caches.glob("*/waldo/working-copies/*"):
        found.update(writers(scratch, but=os.getpid()))
    # Locks stay where workers of other tests were.
    return {part: process for part, process in found.items() if Path(f"/proc/{process}").exists()}


def has_commit(requests: list[tuple[str, str]]) -> bool:
    return any(method == "PUT" and "manifest.json" in path for method, path in requests)
