"""A fleet that workers on a Ray cluster bring up to date: its rows are those of a plain run,
whatever dies meanwhile.

Two nodes of one core each, on this machine. To run this file alone:
    timeout 280 python -m pytest -p no:xdist -x tests/indexer/fleet/test_ray_cluster.py
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.parts import parts_of
from indexer.store.manifest import read_manifest
from indexer.upkeep.every_part import verify_collection
from tests.helpers.ray_clusters import Driver, LocalCluster, kill, wait_until, writers
from tests.indexer.fleet.conftest import FIRST, PARTS, PHOTOS, rows

pytest.importorskip("ray", reason="ray is not installed: pip install 'waldo-search[ray]'")


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """A fleet of the first photos."""
    return shutil.copytree(made / "begun", tmp_path / "fleet")


@pytest.fixture
def drive(made: Path, begun: Path, cluster: LocalCluster) -> Iterator[Callable[[], Driver]]:
    """Starts drivers of this fleet, which end with the test."""
    started: list[Driver] = []

    def start() -> Driver:
        started.append(Driver(made / "photos", begun, cluster.address, begun.with_name("home")))
        return started[-1]

    yield start
    for driver in started:
        driver.end()


def test_a_new_fleet_is_made_by_workers(made: Path, tmp_path: Path, cluster: LocalCluster) -> None:
    """Its codec too: this machine may lack the workers' GPUs."""
    fleet = tmp_path / "fleet"
    first, parts = made / "photos" / "first.txt", ("--parts", str(PARTS))
    driver = Driver(first, fleet, cluster.address, tmp_path / "home", *parts)
    assert driver.report()["new"] == FIRST
    assert rows(fleet) == rows(made / "begun")
    assert (fleet / "fleet-codec.safetensors").read_bytes() == (
        made / "begun" / "fleet-codec.safetensors"
    ).read_bytes()
    left = {path.name for path in fleet.iterdir()}
    assert left == {".lock", ".readers", "fleet.json", "fleet-codec.safetensors", "parts"}


def first_writer(fleet: Path) -> tuple[int, int]:
    """The number of a part that a worker has begun, and the worker's process."""
    return wait_until(lambda: next(iter(writers(fleet, but=os.getpid()).items()), None), "a part")


def sizes(fleet: Path) -> list[int]:
    """How many photos each part has."""
    return [read_manifest(part).n_photos for part in parts_of(fleet)]


def assert_whole(fleet: Path, made: Path) -> None:
    assert rows(fleet) == rows(made / "whole")
    assert verify_collection(fleet) == []
    assert not (fleet / "listing").exists()


def test_the_part_of_a_killed_worker_is_done_again(
    drive: Callable[[], Driver], begun: Path, made: Path
) -> None:
    driver = drive()
    part, process = first_writer(begun)
    kill(process)
    report = driver.report()
    assert f"part {part} again" in driver.said
    assert (report["new"], report["total"]) == (PHOTOS - FIRST, PHOTOS)
    assert writers(begun, but=process)[part] != os.getpid()
    assert_whole(begun, made)


def test_a_run_goes_on_with_the_nodes_that_are_left(
    drive: Callable[[], Driver], begun: Path, made: Path, cluster: LocalCluster
) -> None:
    driver = drive()
    wait_until(lambda: len(writers(begun, but=os.getpid())) > 1, "two workers")
    cluster.lose_node()
    try:
        assert driver.report()["total"] == PHOTOS
    finally:
        cluster.add_node()
    assert "again" in driver.said
    assert ", 1 worker" in driver.said
    assert_whole(begun, made)


def test_a_driver_that_is_stopped_or_killed_is_started_again_and_two_are_refused(
    drive: Callable[[], Driver], begun: Path, made: Path
) -> None:
    driver = drive()
    before = sizes(begun)
    wait_until(lambda: sizes(begun) != before, "a part that is done")
    driver.signal(signal.SIGINT)
    assert driver.code() == 130
    assert "run the same command again" in driver.said.splitlines()[-1]
    kept = sizes(begun)
    assert sum(before) < sum(kept) < PHOTOS
    stopped = set(writers(begun, but=os.getpid()).values())
    driver = drive()
    process = wait_until(
        lambda: next(iter({*writers(begun, but=os.getpid()).values()} - stopped), None), "a part"
    )
    second = drive()
    assert second.code() == 2
    assert "another run" in second.said.splitlines()[-1]
    driver.signal(signal.SIGKILL)
    third = drive()  # while workers of the first may still be at work
    assert third.report()["total"] == PHOTOS
    assert process not in writers(begun, but=os.getpid()).values()
    assert_whole(begun, made)


def test_what_a_worker_finds_wrong_ends_the_run(
    drive: Callable[[], Driver], begun: Path, made: Path
) -> None:
    table = next(begun.glob("parts/*/photos/*.parquet"))
    whole = table.read_bytes()
    table.write_bytes(whole[:-8] + bytes(8))
    driver = drive()
    assert driver.code() == 2
    assert str(table) in driver.said.splitlines()[-1]
    table.write_bytes(whole)
    report = drive().report()  # a run that nothing goes wrong in
    assert report["new"] + report["unchanged"] == report["total"] == PHOTOS
    assert_whole(begun, made)
