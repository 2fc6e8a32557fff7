"""Fetching maps: each lands in the right place, no byte more is asked for, and damage is named."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.errors import REPAIR_HINT, IndexDamagedError
from indexer.store import shards
from indexer.store.manifest import MapShard
from indexer.store.mapstore import MapStore, Place
from indexer.store.shards import store_shard

WIDTH = 4096
COUNTS = {1: 7, 2: 90, 3: 1, 4: 40}
MAPS: dict[int, NDArray[np.uint8]] = {
    number: np.random.default_rng(number).integers(0, 256, (count, WIDTH), dtype=np.uint8)
    for number, count in COUNTS.items()
}
PLACES = [Place(n, row, 1000 * n + row) for n, count in COUNTS.items() for row in range(count)]


def write(folder: Path) -> list[MapShard]:
    """Shards of COUNTS rows; row r of shard s carries the id 1000 s + r."""
    (folder / "shards").mkdir()
    return [
        store_shard(folder, number, 1000 * number + np.arange(len(maps)), maps, codec=1)
        for number, maps in MAPS.items()
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[MapShard]]:
    """Shards to be read alone."""
    folder = tmp_path_factory.mktemp("store")
    return folder, write(folder)


@pytest.fixture
def store(written: tuple[Path, list[MapShard]]) -> Iterator[MapStore]:
    store = MapStore(*written, WIDTH)
    yield store
    store.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[MapStore]:
    """A store whose shards a test may damage, in `tmp_path`."""
    store = MapStore(tmp_path, write(tmp_path), WIDTH)
    yield store
    store.close()


def expected(places: list[Place]) -> NDArray[np.uint8]:
    return np.stack([MAPS[place.shard][place.row] for place in places])


def some_places(seed: int, count: int) -> list[Place]:
    return [PLACES[i] for i in np.random.default_rng(seed).integers(0, len(PLACES), count)]


def count_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of all reads by offset from here on."""
    asked: list[int] = []
    pread, preadv = os.pread, os.preadv

    def counted(file: int, length: int, offset: int) -> bytes:
        asked.append(length)
        return pread(file, length, offset)

    def counted_into(file: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        count = preadv(file, buffers, offset, flags)
        asked.append(sum(len(buffer) for buffer in buffers))
        return count

    monkeypatch.setattr(shards.os, "pread", counted)
    monkeypatch.setattr(shards.os, "preadv", counted_into)
    return asked


def test_fetching_asks_for_the_rows_alone(store: MapStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_bytes(monkeypatch)
    places = PLACES[::3]
    store.read(places)
    assert sum(asked) < 1.05 * len(places) * WIDTH + 4 * 1000
    asked.clear()
    store.read(places)
    assert sum(asked) == len(places) * WIDTH


@pytest.mark.parametrize("ahead", [True, False])
def test_rows_of_many_shards_come_in_the_order_asked_for(
    store: MapStore, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    if not ahead:
        monkeypatch.setattr(shards, "READS_AHEAD", False)
        monkeypatch.delattr(shards.os, "posix_fadvise")
    places = some_places(3, 300)
    maps, damaged = store.read(places)
    assert damaged == {}
    np.testing.assert_array_equal(maps, expected(places))


@pytest.mark.parametrize("share", [0, 2, 3])
def test_rows_that_are_not_in_memory_are_waited_for(
    store: MapStore, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    """No row is in memory, or every second or third is, and some of those only by half."""
    preadv, asked = os.preadv, []

    def partly(file: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            asked.append(offset)
            if not share or len(asked) % share:
                raise BlockingIOError
            if len(asked) % 3 == 0:
                return preadv(file, [buffers[0][: WIDTH // 2]], offset, flags)
        return preadv(file, buffers, offset, flags)

    monkeypatch.setattr(shards.os, "preadv", partly)
    maps, damaged = store.read(PLACES)
    assert damaged == {}
    assert len(asked) == len(PLACES)
    np.testing.assert_array_equal(maps, expected(PLACES))


def test_short_reads_are_continued(store: MapStore, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv

    def stingy(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        return preadv(descriptor, [buffers[0][:50]], offset, flags)

    monkeypatch.setattr(shards.os, "preadv", stingy)
    got, damaged = store.read([Place(1, 3, 1003)])
    assert damaged == {}
    assert got[0].tobytes() == MAPS[1][3].tobytes()


def test_threads_share_a_store(store: MapStore) -> None:
    def check(seed: int) -> None:
        places = some_places(seed, 50)
        maps, damaged = store.read(places)
        assert damaged == {}
        np.testing.assert_array_equal(maps, expected(places))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(check, range(24)))


def test_shards_that_are_written_later_can_be_included(
    written: tuple[Path, list[MapShard]],
) -> None:
    folder, files = written
    store = MapStore(folder, files[:1], WIDTH)
    assert list(store.read([Place(4, 0, 4000)])[1]) == [0]
    store.include(files)
    maps, damaged = store.read([Place(4, 0, 4000), Place(1, 6, 1006)])
    assert damaged == {}
    np.testing.assert_array_equal(maps, expected([PLACES[-40], PLACES[6]]))
    store.close()


def test_a_row_of_another_photo_is_never_returned_as_data(store: MapStore) -> None:
    _, damaged = store.read([Place(1, 2, 1002), Place(1, 2, 1003), Place(1, 7, 1007)])
    assert sorted(damaged) == [1, 2]
    for line in damaged.values():
        assert "holds another photo's maps" in line
        assert REPAIR_HINT in line


class TestDamage:
    @pytest.mark.parametrize("at", [0, 11, WIDTH - 1])
    def test_a_flipped_bit_is_reported_for_its_row_alone(
        self, own: MapStore, tmp_path: Path, at: int
    ) -> None:
        path = tmp_path / "shards" / "000002.parquet"
        raw = bytearray(path.read_bytes())
        raw[raw.index(MAPS[2][17].tobytes()) + at] ^= 4
        path.write_bytes(raw)
        _, damaged = own.read([Place(2, r, 2000 + r) for r in (16, 17, 18)])
        line = f"shards/000002.parquet row 17: its checksum differs; {REPAIR_HINT}"
        assert damaged == {1: line}

    @pytest.mark.parametrize("damage", ["missing", "cut short", "longer"])
    def test_a_lost_shard_costs_its_own_rows(
        self, own: MapStore, tmp_path: Path, damage: str
    ) -> None:
        path = tmp_path / "shards" / "000001.parquet"
        raw = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(raw[:-1] if damage == "cut short" else raw + b"x")
        _, damaged = own.read([Place(1, 0, 1000), Place(3, 0, 3000), Place(9, 0, 9000)])
        assert sorted(damaged) == [0, 2]
        for line in damaged.values():
            assert REPAIR_HINT in line
        assert damaged[0].startswith("shards/000001.parquet row 0: the file: ")
        if damage != "missing":
            assert f"bytes, not {len(raw)}" in damaged[0]

    def test_shards_of_one_size_that_were_swapped_are_reported(self, tmp_path: Path) -> None:
        (tmp_path / "shards").mkdir()
        files = [
            store_shard(tmp_path, n, 1000 * n + np.arange(7), MAPS[4][7 * n :][:7], codec=1)
            for n in (1, 2)
        ]
        assert files[0].bytes == files[1].bytes
        one, two = (tmp_path / file.name for file in files)
        one.rename(tmp_path / "held")
        two.rename(one)
        (tmp_path / "held").rename(two)
        store = MapStore(tmp_path, files, WIDTH)
        _, damaged = store.read([Place(1, 0, 1000), Place(2, 6, 2006)])
        assert all("holds another photo's maps" in damaged[i] for i in (0, 1))
        store.close()

    def test_a_shard_that_vanishes_after_opening_is_reported(
        self, own: MapStore, tmp_path: Path
    ) -> None:
        own.shard(1)
        (tmp_path / "shards" / "000001.parquet").unlink()
        _, damaged = own.read([Place(1, 3, 1003), Place(3, 0, 3000)])
        assert list(damaged) == [0]
        with pytest.raises(IndexDamagedError):
            own.shard(1).read([3], [np.empty(WIDTH, np.uint8)])
