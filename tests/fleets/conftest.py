"""A Ray cluster and a server that stands in for S3, which all tests of fleets share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from indexer.fleet.fleet_build import index_collection
from indexer.fleet.fleet_reader import open_collection
from indexer.ray_cluster import RayCluster
from tests.helpers.servers.object_server import ObjectServer, object_server, point_to
from tests.helpers.servers.ray_clusters import LocalCluster, local_cluster

if TYPE_CHECKING:
    from features.extractor import FeatureExtractor

DEMO = Path(__file__).parents[2] / "data" / "demo" / "photos"
PARTS = 4
# The codec is fitted to the first photos; workers then extract the others.
FIRST, PHOTOS = 8, 24


def rows(index: Path) -> dict[str, tuple[object, ...]]:
    """What a fleet knows of every photo, by its path."""
    with open_collection(index) as reader:
        records, batch = reader.photos(reader.ids), reader.read_maps(reader.ids)
        assert batch.damaged == []
        axes = np.eye(2 * reader.manifest.dim, dtype=np.float32)[:8]
        pooled = [reader.recall.search(axis, len(records)) for axis in axes]
        columns = [scores[np.argsort(ids)] for ids, scores in pooled]
        return {
            str(record.path): (
                *(bytes(batch.encoded[at]), batch.valid[at].tobytes(), record.content_hash),
                *(column[at].tobytes() for column in columns),
            )
            for at, record in enumerate(records)
        }


@pytest.fixture(scope="package")
def made(tiny: "FeatureExtractor", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a fleet of the first ones, and one that a plain run brings up to date with all."""
    import torch
    from threadpoolctl import threadpool_limits

    folder = tmp_path_factory.mktemp("fleets")
    (folder / "photos").mkdir()
    names = sorted(DEMO.iterdir())[:PHOTOS]
    # A list of the first ones, with the names that they have below the folder.
    (folder / "photos" / "first.txt").write_text("".join(f"{p.name}\n" for p in names[:FIRST]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each worker has
    with threadpool_limits(1):  # of numpy: sums in another order give the codec other last bits
        for count in (FIRST, PHOTOS):
            for path in names[:count]:
                shutil.copy2(path, folder / "photos")
            index_collection([folder / "photos"], folder / "whole", tiny, parts=PARTS, batch_size=4)
            if count == FIRST:
                shutil.copytree(folder / "whole", folder / "begun")
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="package")
def store() -> Iterator[ObjectServer]:
    """A server that stands in for S3."""
    pytest.importorskip("obstore", reason="obstore is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed")
    with object_server() as server:
        yield server


@pytest.fixture(scope="package")  # no longer: its environment is not that of other tests
def cluster(
    made: Path, store: ObjectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """Two nodes of one core each, on this machine, whose environment leads to the server."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'waldo-search[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        point_to(store, patch)
        with local_cluster(2, tmp_path_factory.mktemp("home")) as started:
            yield started


@pytest.fixture(scope="module")
def one_worker(cluster: LocalCluster) -> Iterator[None]:
    """While the tests of a module run, there is room for one worker: others would wait for it."""
    cluster.take_node_away()
    yield
    cluster.add_node()


@pytest.fixture
def there(cluster: LocalCluster) -> RayCluster:
    """It has room for two workers."""
    return RayCluster(cluster.address, "cpu")
