"""Map shards: what is written is what is read, by offset and through pyarrow alike."""

import os
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import indexer.store.shards as shards_module
from indexer.errors import IndexDamagedError
from indexer.store.mapstore import MapStore, Place
from indexer.store.shards import Shard, open_shard, rows_per_shard, write_shard

Maps = NDArray[np.uint8]
WIDTH = 203


def random_maps(count: int, width: int = WIDTH, seed: int = 0) -> Maps:
    return np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)


def save(path: Path, count: int = 9) -> Maps:
    maps = random_maps(count)
    write_shard(path, np.arange(100, 100 + count), maps)
    return maps


def read(shard: Shard, rows: list[int]) -> Maps:
    out = np.zeros((len(rows), shard.width), np.uint8)
    shard.read(rows, list(out))
    return out


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
    path = tmp_path_factory.mktemp("shard") / "shard.parquet"
    write_shard(path, ids, maps)
    shard = open_shard(path, width)
    assert shard.offset is not None
    assert shard.ids.tolist() == ids.tolist()
    got = read(shard, rows)
    assert got.tobytes() == maps[rows].tobytes()
    for place, row in enumerate(rows):
        assert shard.is_sound(row, got[place].data)


def test_any_parquet_reader_reads_a_shard(tmp_path: Path) -> None:
    maps = save(tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.field("maps").type == pa.binary(WIDTH)
    assert not any(table.schema.field(name).nullable for name in table.column_names)
    assert table.column("maps").to_pylist() == [m.tobytes() for m in maps]
    assert table.column("id").to_pylist() == list(range(100, 109))
    assert table.column("checksum").to_pylist() == [zlib.crc32(m.tobytes()) for m in maps]
    metadata = pq.ParquetFile(tmp_path / "s.parquet").metadata
    assert metadata.num_row_groups == 1
    assert metadata.row_group(0).column(2).path_in_schema == "maps"
    assert metadata.row_group(0).column(2).compression == "UNCOMPRESSED"


@pytest.mark.parametrize(
    "layout",
    [
        {"row_group_size": 4},
        {"compression": "zstd"},
        {"use_dictionary": True},
        {"data_page_size": 1, "write_batch_size": 2},
        {"data_page_version": "2.0", "use_dictionary": ["maps"]},
        {"nullable": True},
        {"order": ["maps", "id", "checksum"]},
    ],
    ids=lambda layout: ",".join(layout),
)
def test_other_layouts_are_read_through_pyarrow(tmp_path: Path, layout: dict) -> None:
    maps = save(tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    layout = dict(layout)
    if layout.pop("nullable", False):
        table = table.cast(pa.schema([field.with_nullable(True) for field in table.schema]))
    table = table.select(layout.pop("order", table.column_names))
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, **layout}
    pq.write_table(table, tmp_path / "other.parquet", **options)
    shard = open_shard(tmp_path / "other.parquet", WIDTH)
    assert shard.offset is None
    rows = [7, 0, 3, 3]
    assert read(shard, rows).tobytes() == maps[rows].tobytes()
    assert shard.ids.tolist() == list(range(100, 109))
    assert shard.is_sound(7, maps[7].data)


def test_a_platform_without_preadv_reads_through_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = save(tmp_path / "s.parquet")
    monkeypatch.delattr(os, "preadv")
    shard = open_shard(tmp_path / "s.parquet", WIDTH)
    assert shard.offset is None
    assert read(shard, [5]).tobytes() == maps[5].tobytes()


def test_page_statistics_do_not_shift_the_maps(tmp_path: Path) -> None:
    """A page header may be longer than ours; the maps then start later, or pyarrow reads them."""
    maps = save(tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    pq.write_table(
        table,
        tmp_path / "other.parquet",
        compression="none",
        use_dictionary=False,
        write_statistics=True,
        write_page_checksum=True,
        data_page_size=2**20,
    )
    shard = open_shard(tmp_path / "other.parquet", WIDTH)
    assert read(shard, [8, 1]).tobytes() == maps[[8, 1]].tobytes()


def test_rows_per_shard_is_about_64_mib_and_at_least_one() -> None:
    assert rows_per_shard(2 * 32 * 32 * 640 * 2) == 25
    assert rows_per_shard(100 * 2**20) == 1
    assert rows_per_shard(8) == 20_000


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "garbage", "other maps"])
def test_a_file_that_is_no_such_shard_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.parquet"
    save(path)
    width = WIDTH
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "garbage":
        path.write_bytes(b"no parquet" * 100)
    else:
        width *= 2
    with pytest.raises(IndexDamagedError):
        open_shard(path, width)


class TestMapStore:
    def store(self, folder: Path) -> tuple[MapStore, dict[int, Maps]]:
        """Three shards of 5, 40 and 2 rows; row r of shard s carries the id 100 s + r."""
        names, maps = {}, {}
        for number, count in ((1, 5), (2, 40), (3, 2)):
            names[number] = f"{number}.parquet"
            maps[number] = random_maps(count, seed=number)
            ids = np.arange(100 * number, 100 * number + count)
            write_shard(folder / names[number], ids, maps[number])
        return MapStore(folder, names, WIDTH), maps

    def test_rows_come_in_the_order_asked_for(self, tmp_path: Path) -> None:
        store, maps = self.store(tmp_path)
        every = [Place(n, r, 100 * n + r) for n in maps for r in range(len(maps[n]))]
        asked = [every[i] for i in np.random.default_rng(3).integers(0, len(every), 90)]
        got, damaged = store.read(asked)
        assert damaged == {}
        for place, row in zip(asked, got, strict=True):
            assert row.tobytes() == maps[place.shard][place.row].tobytes()

    @pytest.mark.parametrize("at", [0, 11, WIDTH - 1])
    def test_a_flipped_bit_is_reported_for_its_row_alone(self, tmp_path: Path, at: int) -> None:
        store, maps = self.store(tmp_path)
        raw = bytearray((tmp_path / "2.parquet").read_bytes())
        raw[raw.index(maps[2][17].tobytes()) + at] ^= 4
        (tmp_path / "2.parquet").write_bytes(raw)
        _, damaged = store.read([Place(2, r, 200 + r) for r in (16, 17, 18)])
        assert list(damaged) == [1]
        assert "2.parquet row 17" in damaged[1]

    def test_a_row_of_another_photo_is_never_returned_as_data(self, tmp_path: Path) -> None:
        store, _ = self.store(tmp_path)
        _, damaged = store.read([Place(1, 2, 102), Place(1, 2, 103), Place(1, 5, 105)])
        assert sorted(damaged) == [1, 2]

    def test_a_missing_shard_costs_its_own_rows(self, tmp_path: Path) -> None:
        store, _ = self.store(tmp_path)
        (tmp_path / "1.parquet").unlink()
        _, damaged = store.read([Place(1, 0, 100), Place(3, 0, 300), Place(9, 0, 900)])
        assert sorted(damaged) == [0, 2]
        assert "waldo index" in damaged[0]

    def test_short_reads_are_continued(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, maps = self.store(tmp_path)
        preadv = os.preadv

        def stingy(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
            return preadv(descriptor, [buffers[0][:50]], offset, flags)

        monkeypatch.setattr(shards_module.os, "preadv", stingy)
        got, damaged = store.read([Place(1, 3, 103)])
        assert damaged == {}
        assert got[0].tobytes() == maps[1][3].tobytes()
