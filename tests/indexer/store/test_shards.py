"""Map shards: what is written is what is read, without a Parquet reader and with one."""

import os
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError
from indexer.store import shards
from indexer.store.files import describe_file
from indexer.store.manifest import MapShard, ShardLayout
from indexer.store.shards import Shard, open_shard, read_layout, rows_per_shard, store_shard

Maps = NDArray[np.uint8]
WIDTH = 203


def random_maps(count: int, width: int = WIDTH) -> Maps:
    return np.random.default_rng(count).integers(0, 256, (count, width), dtype=np.uint8)


def read(shard: Shard, rows: list[int]) -> Maps:
    out = np.zeros((len(rows), shard.width), np.uint8)
    shard.read(rows, list(out))
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path


@pytest.fixture
def stored(folder: Path) -> MapShard:
    """A shard of nine photos, whose ids are 100 to 108."""
    return store_shard(folder, 1, np.arange(100, 109), random_maps(9), codec=5)


@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(data=st.data(), count=st.integers(1, 12), width=st.integers(1, 300))
def test_any_maps_come_back_bit_for_bit(
    data: st.DataObject, count: int, width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    maps = data.draw(hnp.arrays(np.uint8, (count, width)))
    ids = np.array(data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=count, max_size=count)))
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20))
    folder = tmp_path_factory.mktemp("shard")
    (folder / "shards").mkdir()
    shard = open_shard(folder, store_shard(folder, 1, ids, maps, codec=1), width)
    assert shard.ids.tolist() == ids.tolist()
    got = read(shard, rows)
    assert got.tobytes() == maps[rows].tobytes()
    for position, row in enumerate(rows):
        assert shard.is_sound(row, got[position].data)


@pytest.mark.parametrize(("count", "width"), [(1, 1), (5, 4096), (20_000, 3), (3, 2**21)])
def test_rows_read_by_offset_are_those_that_pyarrow_reads(
    folder: Path, count: int, width: int
) -> None:
    """Also where a shard has the most rows, and where a row is longer than a usual page."""
    maps = random_maps(count, width)
    stored = store_shard(folder, 1, np.arange(count) - 2, maps, codec=1)
    shard, table = open_shard(folder, stored, width), pq.read_table(folder / stored.name)
    assert shard.ids.tolist() == table.column("id").to_pylist()
    assert shard.checksums.tolist() == table.column("checksum").to_pylist()
    rows = sorted({0, count // 2, count - 1})
    values = [table.column("maps")[row].as_py() for row in rows]
    assert [row.tobytes() for row in read(shard, rows)] == values
    assert values == [maps[row].tobytes() for row in rows]


def test_any_parquet_reader_reads_a_shard(folder: Path, stored: MapShard) -> None:
    maps = random_maps(9)
    table = pq.read_table(folder / stored.name)
    assert table.schema.field("maps").type == pa.binary(WIDTH)
    assert not any(table.schema.field(name).nullable for name in table.column_names)
    assert table.column("maps").to_pylist() == [m.tobytes() for m in maps]
    assert table.column("id").to_pylist() == list(range(100, 109))
    assert table.column("checksum").to_pylist() == [zlib.crc32(m.tobytes()) for m in maps]


def test_the_entry_in_the_manifest_says_where_the_columns_lie(
    folder: Path, stored: MapShard
) -> None:
    raw = (folder / stored.name).read_bytes()
    file = describe_file(folder, "shards/000001.parquet", 1, 9)
    assert stored == MapShard(**vars(file), codec=5, layout=stored.layout)
    assert stored.layout == read_layout(folder / stored.name, 9, WIDTH)
    ids = np.arange(100, 109).tobytes()
    maps = random_maps(9)
    checksums = np.array([zlib.crc32(m.tobytes()) for m in maps], np.uint32).tobytes()
    assert stored.layout == ShardLayout(
        raw.index(ids), raw.index(checksums), raw.index(maps.tobytes())
    )


def test_a_shard_without_a_recorded_layout_is_opened_all_the_same(
    folder: Path, stored: MapShard
) -> None:
    with_record, without = (
        open_shard(folder, file, WIDTH) for file in (stored, replace(stored, layout=None))
    )
    assert without.offset == with_record.offset
    assert without.ids.tobytes() == with_record.ids.tobytes()
    assert without.checksums.tobytes() == with_record.checksums.tobytes()


@pytest.mark.parametrize(
    "layout",
    [
        {"row_group_size": 4},
        {"compression": "zstd"},
        {"use_dictionary": True},
        {"data_page_size": 1, "write_batch_size": 2},
        {"order": ["maps", "id", "checksum"]},
        {"order": ["id", "checksum"]},
        {"column_encoding": {"id": "DELTA_BINARY_PACKED"}},
    ],
    ids=lambda layout: " ".join(map(str, (*layout, *layout.values()))),
)
def test_a_file_of_another_layout_is_refused(
    folder: Path, stored: MapShard, layout: dict[str, object]
) -> None:
    order = layout.pop("order", ["id", "checksum", "maps"])
    table = pq.read_table(folder / stored.name).select(order)
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, **layout}
    pq.write_table(table, folder / stored.name, **options)
    with pytest.raises(IndexDamagedError, match="is not laid out as a map shard"):
        read_layout(folder / stored.name, 9, WIDTH)


def test_the_footer_is_compared_with_what_is_expected(folder: Path, stored: MapShard) -> None:
    with pytest.raises(IndexDamagedError, match="9 rows, not 8"):
        read_layout(folder / stored.name, 8, WIDTH)
    with pytest.raises(IndexDamagedError, match=f"holds maps of {WIDTH} bytes, not of 406"):
        read_layout(folder / stored.name, 9, 2 * WIDTH)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", "cannot be read"),
        ("empty", "0 bytes, not {size}|cannot be read"),
        ("short", "{short} bytes, not {size}|cannot be read"),
        ("garbage", "1000 bytes, not {size}|cannot be read"),
    ],
)
def test_a_file_that_is_not_what_was_recorded_is_refused(
    folder: Path, stored: MapShard, damage: str, words: str, recorded: bool
) -> None:
    path = folder / stored.name
    raw = path.read_bytes()
    path.unlink()
    content = {"empty": b"", "short": raw[:-100], "garbage": b"no parquet" * 100}
    if damage in content:
        path.write_bytes(content[damage])
    words = words.format(size=stored.bytes, short=stored.bytes - 100)
    with pytest.raises(IndexDamagedError, match=words):
        open_shard(folder, stored if recorded else replace(stored, layout=None), WIDTH)


def test_offsets_that_lie_outside_the_file_are_refused(folder: Path, stored: MapShard) -> None:
    assert stored.layout is not None
    for changed in (
        replace(stored.layout, ids=stored.layout.maps),
        replace(stored.layout, checksums=stored.layout.maps - 8),
        replace(stored.layout, maps=20),
    ):
        words = re.escape("its columns lie elsewhere than the manifest says")
        with pytest.raises(IndexDamagedError, match=words):
            open_shard(folder, replace(stored, layout=changed), WIDTH)


def test_opening_reads_what_is_before_the_maps_in_one_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_shard(folder, 1, np.arange(300), random_maps(300), codec=1)
    asked: list[int] = []
    pread = os.pread

    def counted(file: int, length: int, offset: int) -> bytes:
        asked.append(length)
        return pread(file, length, offset)

    monkeypatch.setattr(shards.os, "pread", counted)
    open_shard(folder, stored, WIDTH)
    assert len(asked) == 1
    assert 300 * 12 < asked[0] < 300 * 12 + 200


def test_a_shard_holds_about_64_mib_and_at_least_one_photo() -> None:
    assert rows_per_shard(2 * 32 * 32 * 640 * 2) == 25
    assert rows_per_shard(100 * 2**20) == 1
    assert rows_per_shard(8) == 20_000
