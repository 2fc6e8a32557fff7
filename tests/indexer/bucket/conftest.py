"""A server that stands in for S3."""

from collections.abc import Iterator

import pytest

import indexer.store.shards as shards
from tests.helpers.servers.object_server import ObjectServer, object_server, point_to

SHARD_BYTES = 3 * 2 * (4 * 4 * 6 * 2)  # three photos


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture
def server(running: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    """The server with an empty bucket and no faults; the environment has its address."""
    running.reset()
    point_to(running, monkeypatch)
    return running


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Map shards of three photos of a PixelExtractor."""
    monkeypatch.setattr(shards, "SHARD_BYTES", SHARD_BYTES)
