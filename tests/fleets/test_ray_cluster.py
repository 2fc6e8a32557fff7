"""A fleet that workers on a Ray cluster bring up to date: its rows are those of a plain run,
whatever dies meanwhile.

Two nodes of one core each, on this machine. To run this file alone:
    timeout 280 python -m pytest -p no:xdist -x tests/fleets/test_ray_cluster.py
"""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.parts import parts_of
from indexer.store.manifest import read_manifest
from indexer.upkeep.every_part import verify_collection
from tests.fleets.conftest import FIRST, PARTS, PHOTOS, rows
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.ray_clusters import Driver, LocalCluster, kill, wait_until, writers

pytest.importorskip("ray", reason="ray is not installed: pip install 'waldo-search[ray]'")


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """A fleet of the first photos."""
    return shutil.copytree(made / "begun", tmp_path / "fleet")


@pytest.fixture
def drive(made: Path, begun: Path, cluster: LocalCluster) -> Iterator[Callable[..., Driver]]:
    """Starts drivers of this fleet, which end with the test."""
    started: list[Driver] = []

    def start(*more: str) -> Driver:
        home = begun.with_name("home")
        started.append(Driver(made / "photos", begun, cluster.address, home, *more))
        return started[-1]

    yield start
    for driver in started:
        driver.end()


def test_a_new_fleet_is_made_by_workers(made: Path, tmp_path: Path, cluster: LocalCluster) -> None:
    """Its codec too: this machine may lack the workers' GPUs."""
    fleet = tmp_path / "fleet"
    first, options = made / "photos" / "first.txt", ("--parts", str(PARTS), "--workers", "1")
    driver = Driver(first, fleet, cluster.address, tmp_path / "home", *options)
    assert driver.report()["new"] == FIRST
    assert rows(fleet) == rows(made / "begun")
    assert (fleet / "fleet-codec.safetensors").read_bytes() == (
        made / "begun" / "fleet-codec.safetensors"
    ).read_bytes()
    left = {path.name for path in fleet.iterdir()}
    assert left == {".lock", ".readers", "fleet.json", "fleet-codec.safetensors", "parts"}


def processes(fleet: Path) -> set[int]:
    """The workers that have begun parts."""
    return {*writers(fleet, but=os.getpid()).values()}


def sizes(fleet: Path) -> list[int]:
    """How many photos each part has."""
    return [read_manifest(part).n_photos for part in parts_of(fleet)]


def assert_whole(fleet: Path, made: Path) -> None:
    assert rows(fleet) == rows(made / "whole")
    assert [*verify_collection(fleet)] == []
    assert not (fleet / "listing").exists()


def test_parts_of_a_lost_node_and_of_a_killed_worker_are_done_again(
    drive: Callable[..., Driver], begun: Path, made: Path, cluster: LocalCluster
) -> None:
    """The run goes on with the node that is left."""
    driver = drive()
    wait_until(lambda: len(processes(begun)) > 1, "two workers")
    gone = processes(begun)
    cluster.lose_node()
    try:
        for process in gone:
            with contextlib.suppress(ProcessLookupError):  # that of the lost node
                kill(process)
        report = driver.report()
    finally:
        cluster.add_node()
    assert (report["new"], report["total"]) == (PHOTOS - FIRST, PHOTOS)
    again = re.findall(r"parts? ([0-9, ]+) again", driver.said)
    assert again
    assert ", 1 worker" in driver.said
    done_by = writers(begun, but=os.getpid())
    assert not {done_by[int(part)] for parts in again for part in parts.split(",")} & gone
    assert_whole(begun, made)


def test_runs_that_are_stopped_or_fail_or_are_killed_are_started_again_and_two_are_refused(
    drive: Callable[..., Driver],
    begun: Path,
    made: Path,
    cluster: LocalCluster,
    waldo: CommandLine,
) -> None:
    before = sizes(begun)
    driver = drive("--workers", "1")
    wait_until(lambda: sizes(begun) != before, "a part that is done")
    driver.signal(signal.SIGINT)
    assert driver.code() == 130
    assert "run the same command again" in driver.said.splitlines()[-1]
    assert sum(before) < sum(sizes(begun)) < PHOTOS
    table = next(begun.glob("parts/*/photos/*.parquet"))
    whole = table.read_bytes()
    table.write_bytes(whole[:-8] + bytes(8))
    driver = drive()
    assert driver.code() == 2
    assert str(table) in driver.said.splitlines()[-1]
    table.write_bytes(whole)
    stopped = processes(begun)
    driver = drive("--workers", "1")
    process = wait_until(lambda: next(iter(processes(begun) - stopped), None), "a part")
    ask = ("index", made / "photos", "--index", begun, "--ray", cluster.address)
    assert "another run" in waldo.refusal(*ask, "--batch-size", 4)
    driver.signal(signal.SIGKILL)
    third = drive("--workers", "1")  # while workers of the first may still be at work
    assert third.report()["total"] == PHOTOS
    assert process not in processes(begun)
    assert_whole(begun, made)
