"""Fetching maps: only the bytes that are needed are asked for, and each in the right place."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError
from indexer.store import shards
from indexer.store.mapstore import MapStore, Place
from indexer.store.pages import PlainPage, plain_page
from indexer.store.shards import open_shard, write_shard

WIDTH = 4096
COUNTS = {1: 7, 2: 90, 3: 1, 4: 40}


@pytest.fixture
def store(tmp_path: Path) -> tuple[MapStore, dict[int, NDArray[np.uint8]]]:
    """Shards of COUNTS rows; row r of shard s carries the id 1000 s + r."""
    maps = {
        number: np.random.default_rng(number).integers(0, 256, (count, WIDTH), dtype=np.uint8)
        for number, count in COUNTS.items()
    }
    for number, rows in maps.items():
        write_shard(tmp_path / f"{number}.parquet", 1000 * number + np.arange(len(rows)), rows)
    return MapStore(tmp_path, {n: f"{n}.parquet" for n in COUNTS}, WIDTH), maps


def every_place() -> list[Place]:
    return [Place(n, row, 1000 * n + row) for n, count in COUNTS.items() for row in range(count)]


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


def test_what_is_read_by_offset_is_what_pyarrow_reads(tmp_path: Path) -> None:
    maps = np.arange(5 * WIDTH, dtype=np.uint32).astype(np.uint8).reshape(5, WIDTH)
    write_shard(tmp_path / "s.parquet", np.arange(5) - 2, maps)
    shard, table = open_shard(tmp_path / "s.parquet", WIDTH), pq.read_table(tmp_path / "s.parquet")
    assert shard.offset is not None
    assert shard.ids.tolist() == table.column("id").to_pylist() == [-2, -1, 0, 1, 2]
    assert shard.checksums.tolist() == table.column("checksum").to_pylist()
    raw = (tmp_path / "s.parquet").read_bytes()
    assert raw[shard.offset : shard.offset + maps.nbytes] == maps.tobytes()


def test_opening_asks_for_the_light_columns_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "s.parquet", np.arange(300), np.zeros((300, WIDTH), np.uint8))
    asked = count_bytes(monkeypatch)
    open_shard(tmp_path / "s.parquet", WIDTH)
    assert sum(asked) < 300 * 12 + 1000


def test_fetching_asks_for_the_rows_alone(
    store: tuple[MapStore, dict[int, NDArray[np.uint8]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_bytes(monkeypatch)
    places = every_place()[::3]
    store[0].read(places)
    assert sum(asked) < 1.05 * len(places) * WIDTH + 4 * 1000
    asked.clear()
    store[0].read(places)
    assert sum(asked) == len(places) * WIDTH


@pytest.mark.parametrize("ahead", [True, False])
def test_rows_of_many_shards_in_any_order(
    store: tuple[MapStore, dict[int, NDArray[np.uint8]]],
    monkeypatch: pytest.MonkeyPatch,
    ahead: bool,
) -> None:
    if not ahead:
        monkeypatch.setattr(shards, "READS_AHEAD", False)
        monkeypatch.delattr(shards.os, "posix_fadvise")
    every = every_place()
    places = [every[i] for i in np.random.default_rng(3).integers(0, len(every), 300)]
    maps, damaged = store[0].read(places)
    assert damaged == {}
    expected = np.stack([store[1][place.shard][place.row] for place in places])
    np.testing.assert_array_equal(maps, expected)


@pytest.mark.parametrize("share", [0, 2, 3])
def test_rows_that_are_not_in_memory_are_waited_for(
    store: tuple[MapStore, dict[int, NDArray[np.uint8]]],
    monkeypatch: pytest.MonkeyPatch,
    share: int,
) -> None:
    """In memory is no row, or every second or third, and some of those only by half."""
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
    places = every_place()
    maps, damaged = store[0].read(places)
    assert damaged == {}
    assert len(asked) == len(places)
    np.testing.assert_array_equal(maps, np.concatenate(list(store[1].values())))


def test_threads_share_a_store(store: tuple[MapStore, dict[int, NDArray[np.uint8]]]) -> None:
    every = every_place()

    def check(seed: int) -> None:
        places = [every[i] for i in np.random.default_rng(seed).integers(0, len(every), 50)]
        maps, damaged = store[0].read(places)
        assert damaged == {}
        for place, row in zip(places, maps, strict=True):
            assert row.tobytes() == store[1][place.shard][place.row].tobytes()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(check, range(24)))


def test_columns_in_another_order_are_read_through_pyarrow(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).integers(0, 256, (6, WIDTH), dtype=np.uint8)
    write_shard(tmp_path / "s.parquet", np.arange(6), maps)
    table = pq.read_table(tmp_path / "s.parquet").select(["maps", "checksum", "id"])
    pq.write_table(table, tmp_path / "o.parquet", compression="none", use_dictionary=False)
    assert open_shard(tmp_path / "o.parquet", WIDTH).offset is None
    reordered = MapStore(tmp_path, {1: "o.parquet"}, WIDTH)
    read, damaged = reordered.read([Place(1, row, row) for row in (5, 0)])
    assert damaged == {}
    np.testing.assert_array_equal(read, maps[[5, 0]])


def test_a_file_with_something_in_between_is_not_read_by_offset(tmp_path: Path) -> None:
    """The three pages must be all there is before the footer."""
    path = tmp_path / "s.parquet"
    write_shard(path, np.arange(4), np.ones((4, WIDTH), np.uint8))
    raw = path.read_bytes()
    footer = int.from_bytes(raw[-8:-4], "little") + 8
    path.write_bytes(raw[:-footer] + b"more" + raw[-footer:])
    assert open_shard(path, WIDTH).offset is None


def test_a_shard_that_vanishes_after_opening_is_reported(
    store: tuple[MapStore, dict[int, NDArray[np.uint8]]], tmp_path: Path
) -> None:
    store[0].shard(1)
    (tmp_path / "1.parquet").unlink()
    _, damaged = store[0].read([Place(1, 3, 1003), Place(3, 0, 3000)])
    assert list(damaged) == [0]
    with pytest.raises(IndexDamagedError):
        store[0].shard(1).read([3], [np.empty(WIDTH, np.uint8)])


# A page header in Thrift's compact encoding: type, sizes before and after compression, and
# (values, encoding, encodings of levels) of a data page.
HEADER = bytes([0x15, 0, 0x15, 80, 0x15, 80, 0x2C, 0x15, 10, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0])


def test_a_page_header() -> None:
    assert plain_page(b"PAR1" + HEADER, 4, width=8) == PlainPage(rows=5, start=21, end=61)


@pytest.mark.parametrize(
    ("at", "value"),
    [(1, 4), (3, 82), (5, 78), (8, 8), (10, 4), (6, 0x28), (15, 0x15)],
    ids=["dictionary", "size", "compressed", "rows", "encoding", "type", "no end"],
)
def test_other_page_headers(at: int, value: int) -> None:
    changed = bytearray(HEADER)
    changed[at] = value
    assert plain_page(bytes(changed), 0, width=8) is None


def test_a_page_header_that_is_cut_short() -> None:
    assert all(plain_page(HEADER[:end], 0, width=8) is None for end in range(len(HEADER)))
