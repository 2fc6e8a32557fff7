"""The queue of parts, where workers die, and where other runs write the same parts.

Workers answer here as soon as they are asked, by a script; `test_ray_cluster` has real ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from indexer.bucket.object_store import ConflictError
from indexer.fleet.fleet_build import index_collection
from indexer.fleet.fleet_progress import FleetProgress
from indexer.fleet.part_update import LoadedModels, PartUpdate
from indexer.fleet.part_work import MOST_CONFLICTS
from indexer.fleet.ray_workers import PartPool
from indexer.fleet.shares import Shares, divide_listing
from indexer.ingest.progress import IndexReport, Progress
from indexer.ingest.sources import list_photos, open_sources
from indexer.parts import read_fleet
from indexer.ray_cluster import ClusterError, RayWorkers, Room, WorkerLostError
from tests.helpers.stores import PixelExtractor, make_photos

PARTS = 3
DONE = Progress("index", 1, 1, 1, 0, 0, 0.0)


@dataclass
class ScriptedWorkers:
    """Stands for a cluster with room for one worker.

    starts, updates: what becomes of each start of a worker, and of each update of a part; None is
    success, as is everything after their end. asked: the parts in the order of their updates.
    """

    starts: Iterator[Exception | None]
    updates: Iterator[Exception | None]
    asked: list[int] = field(default_factory=list)
    cluster: Any = field(default_factory=lambda: SimpleNamespace(device="cpu"))

    def room(self) -> Room:
        return Room(1, 0, 1)

    def hire(self, worker: type, room: Room, *given: Any) -> Any:
        return SimpleNamespace(
            start=SimpleNamespace(remote=lambda: lambda: raise_if(next(self.starts, None))),
            do=SimpleNamespace(remote=lambda number, share: lambda: self._update(number)),
            progress=SimpleNamespace(remote=lambda: lambda: None),
            stop=SimpleNamespace(remote=lambda: None),
        )

    def _update(self, number: int) -> tuple[IndexReport, tuple[int, Progress]]:
        self.asked.append(number)
        raise_if(next(self.updates, None))
        return IndexReport(Path(), total=number), (number, DONE)

    def come(self, answers: list[Any], seconds: float, count: int = 1) -> list[Any]:
        return answers

    def answer(self, coming: Callable[[], Any], seconds: float | None = None) -> Any:
        return coming()

    def dismiss(self, worker: Any) -> None:
        pass


def raise_if(error: Exception | None) -> None:
    if error is not None:
        raise error


@pytest.fixture
def work(tmp_path: Path) -> tuple[PartUpdate, Shares]:
    make_photos(tmp_path / "photos", 4)
    fleet_dir = tmp_path / "fleet"
    index_collection([tmp_path / "photos"], fleet_dir, PixelExtractor(), parts=PARTS)
    fleet = read_fleet(fleet_dir)
    assert fleet is not None
    sources = open_sources([tmp_path / "photos"], fleet_dir)
    shares = divide_listing(fleet, sources, list_photos(sources, fleet_dir))
    models = LoadedModels(PixelExtractor(), [])
    return PartUpdate(fleet, None, shares.sources, models, None, None), shares


def run(workers: ScriptedWorkers, work: tuple[PartUpdate, Shares]) -> list[int]:
    """Update all parts; returns the number that the report of each has."""
    pool, (update, shares) = PartPool(cast(RayWorkers, workers)), work
    reports = pool.work(update, range(PARTS), FleetProgress(PARTS, None), shares.of)
    return [reports[number].total for number in range(PARTS)]


def test_deaths_at_the_start_count_until_a_worker_starts(work: tuple[PartUpdate, Shares]) -> None:
    gone = WorkerLostError("gone")
    workers = ScriptedWorkers(iter([gone] * 4 + [None] + [gone] * 4), iter([None, gone]))
    assert run(workers, work) == [0, 1, 2]
    assert workers.asked == [0, 1, 1, 2]
    with pytest.raises(ClusterError, match="5 workers died as they started"):
        run(ScriptedWorkers(iter([gone] * 5), iter(())), work)


def test_a_part_that_another_run_has_written_comes_last(work: tuple[PartUpdate, Shares]) -> None:
    workers = ScriptedWorkers(iter(()), iter([None, ConflictError("taken")]))
    assert run(workers, work) == [0, 1, 2]
    assert workers.asked == [0, 1, 2, 1]


def test_a_part_that_is_always_refused_ends_the_run(work: tuple[PartUpdate, Shares]) -> None:
    refused = ConflictError("another run has written this index meanwhile")
    workers = ScriptedWorkers(iter(()), iter([refused] * MOST_CONFLICTS * PARTS))
    with pytest.raises(ConflictError, match="another run"):
        run(workers, work)
    assert workers.asked.count(0) == MOST_CONFLICTS
