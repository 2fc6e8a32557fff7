"""`verify`, `remove` and `compact` by workers on a Ray cluster: in a folder and in a bucket they do
what one process does.

To run this file alone:
    timeout 280 python -m pytest -p no:xdist -x tests/fleets/test_ray_upkeep.py
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install 'waldo-search[ray]'")
pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from indexer.bucket.transfer import export_index
from indexer.parts import parts_of
from indexer.ray_cluster import RayCluster
from indexer.upkeep.every_part import (
    compact_collection,
    remove_from_collection,
    verify_collection,
)
from tests.fleets.conftest import FIRST, rows
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer, point_to
from tests.helpers.servers.ray_clusters import LocalCluster

URL = "s3://photos/fleets/looked-after"


@pytest.fixture(autouse=True)
def connected(cluster: LocalCluster, one_worker: None) -> Iterator[None]:
    """The commands of a test connect once."""
    with RayCluster(cluster.address).connect():
        yield


@pytest.fixture(params=["folder", "bucket"])
def fleet(
    request: pytest.FixtureRequest,
    made: Path,
    store: ObjectServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path | str:
    """A fleet of the first photos."""
    if request.param == "folder":
        return shutil.copytree(made / "begun", tmp_path / "fleet")
    store.reset()
    point_to(store, monkeypatch)
    export_index(str(made / "begun"), URL)
    return URL


def content(fleet: Path | str, folder: Path) -> dict[str, tuple[object, ...]]:
    if isinstance(fleet, Path):
        return rows(fleet)
    export_index(fleet, str(folder))
    return rows(folder)


def damage(fleet: Path | str, store: ObjectServer) -> str:
    """Flip a bit of a map shard that the fleet still needs; returns its name."""
    if isinstance(fleet, Path):
        shard = max(path for part in parts_of(fleet) for path in (part / "shards").iterdir())
        body = bytearray(shard.read_bytes())
        body[-10] ^= 1
        shard.write_bytes(body)
        return shard.name
    key = max(key for key in store.objects() if "/shards/" in key)
    body = bytearray(store.objects()[key])
    body[-10] ^= 1
    store.s3.put_object(Bucket="photos", Key=key, Body=bytes(body))
    return Path(key).name


def test_upkeep_by_workers(
    fleet: Path | str,
    made: Path,
    cluster: LocalCluster,
    store: ObjectServer,
    tmp_path: Path,
    waldo: CommandLine,
) -> None:
    one = shutil.copytree(made / "begun", tmp_path / "one")
    gone = sorted(Path(path) for path in rows(one))[:3]

    where = "--index", fleet, "--ray", cluster.address

    def by_workers(*command: Any, code: int = 0) -> dict[str, Any]:
        ran = waldo(*command, *where, "--json")
        assert ran.code == code, ran
        found: dict[str, Any] = json.loads(ran.out)
        return found

    missing = gone[0].with_name("no-photo.jpg")
    refused = waldo.refusal("remove", gone[0], missing, *where)
    assert f"{missing}: no photo of {fleet} lies there; nothing was removed" in refused
    removed = by_workers("remove", *gone)
    assert (removed["removed"], removed["total"]) == (3, FIRST - 3)
    compacted = by_workers("compact")
    remove_from_collection(one, gone)
    alone = compact_collection(one)
    assert (compacted["changed"], compacted["dropped"]) == (True, 3)
    assert compacted["bytes_after"] == alone.bytes_after
    assert content(fleet, tmp_path / "back") == rows(one)
    name = damage(fleet, store)
    problems = by_workers("verify", code=1)["problems"]
    assert sorted(problems) == sorted(verify_collection(Path(fleet)))  # of this process
    assert name in problems[0]


def test_an_ordinary_index_has_no_parts_for_workers(
    made: Path, cluster: LocalCluster, waldo: CommandLine
) -> None:
    part = parts_of(made / "begun")[0]
    for command in (("verify",), ("compact",), ("remove", "a.jpg")):
        line = waldo.refusal(*command, "--index", part, "--ray", cluster.address)
        assert f"{part}: is no fleet" in line
