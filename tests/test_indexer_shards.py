"""Map shards: what is written is what is read, by offset and through pyarrow alike."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import indexer.shards as shards_module
from indexer.errors import IndexDamagedError
from indexer.mapstore import MapStore, Place
from indexer.shards import Shard, checksum, open_shard, rows_per_shard, write_shard

Maps = NDArray[np.float16]


def random_maps(count: int, grid: int = 4, dim: int = 6, seed: int = 0) -> tuple[Maps, Maps]:
    values = np.random.default_rng(seed).normal(size=(2, count, grid, grid, dim))
    appearance, semantic = values.astype(np.float16)
    return appearance, semantic


def save(path: Path, count: int = 9) -> tuple[Maps, Maps]:
    appearance, semantic = random_maps(count)
    write_shard(path, np.arange(100, 100 + count), appearance, semantic)
    return appearance, semantic


def read(shard: Shard, rows: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    out = np.zeros((2, len(rows), shard.width), np.uint8)
    shard.read(rows, list(out[0]), list(out[1]))
    return out[0], out[1]


@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(data=st.data(), count=st.integers(1, 12), grid=st.integers(1, 5), dim=st.integers(1, 9))
def test_any_maps_come_back_bit_for_bit(
    data: st.DataObject, count: int, grid: int, dim: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bits = hnp.arrays(np.uint16, (count, grid, grid, dim))  # every float16, NaNs included
    appearance, semantic = (data.draw(bits).view(np.float16) for _ in range(2))
    ids = np.array(data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=count, max_size=count)))
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20))
    path = tmp_path_factory.mktemp("shard") / "shard.parquet"
    write_shard(path, ids, appearance, semantic)
    shard = open_shard(path, grid * grid * dim * 2)
    assert shard.offsets is not None
    assert shard.ids.tolist() == ids.tolist()
    got = read(shard, rows)
    assert got[0].tobytes() == appearance[rows].tobytes()
    assert got[1].tobytes() == semantic[rows].tobytes()
    for place, row in enumerate(rows):
        assert shard.is_sound(row, got[0][place].data, got[1][place].data)


def test_any_parquet_reader_reads_a_shard(tmp_path: Path) -> None:
    appearance, semantic = save(tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.field("appearance").type == pa.binary(4 * 4 * 6 * 2)
    assert not any(table.schema.field(name).nullable for name in table.column_names)
    assert table.column("appearance").to_pylist() == [m.tobytes() for m in appearance]
    assert table.column("semantic").to_pylist() == [m.tobytes() for m in semantic]
    assert table.column("id").to_pylist() == list(range(100, 109))
    sums = [checksum(a.tobytes(), s.tobytes()) for a, s in zip(appearance, semantic, strict=True)]
    assert table.column("checksum").to_pylist() == sums
    metadata = pq.ParquetFile(tmp_path / "s.parquet").metadata
    assert metadata.num_row_groups == 1
    assert metadata.row_group(0).column(1).compression == "UNCOMPRESSED"


@pytest.mark.parametrize(
    "layout",
    [
        {"row_group_size": 4},
        {"compression": "zstd"},
        {"use_dictionary": True},
        {"data_page_size": 1, "write_batch_size": 2},
        {"data_page_version": "2.0", "use_dictionary": ["appearance"]},
        {"nullable": True},
    ],
    ids=lambda layout: ",".join(layout),
)
def test_other_layouts_are_read_through_pyarrow(tmp_path: Path, layout: dict) -> None:
    appearance, semantic = save(tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    layout = dict(layout)
    if layout.pop("nullable", False):
        table = table.cast(pa.schema([field.with_nullable(True) for field in table.schema]))
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, **layout}
    pq.write_table(table, tmp_path / "other.parquet", **options)
    shard = open_shard(tmp_path / "other.parquet", 4 * 4 * 6 * 2)
    assert shard.offsets is None
    rows = [7, 0, 3, 3]
    got = read(shard, rows)
    assert got[0].tobytes() == appearance[rows].tobytes()
    assert got[1].tobytes() == semantic[rows].tobytes()


def test_a_platform_without_preadv_reads_through_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    appearance, _ = save(tmp_path / "s.parquet")
    monkeypatch.delattr(os, "preadv")
    shard = open_shard(tmp_path / "s.parquet", 4 * 4 * 6 * 2)
    assert shard.offsets is None
    assert read(shard, [5])[0].tobytes() == appearance[5].tobytes()


def test_page_statistics_do_not_shift_the_maps(tmp_path: Path) -> None:
    """A page header may be longer than ours; the maps then start later, or pyarrow reads them."""
    appearance, _ = save(tmp_path / "s.parquet")
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
    shard = open_shard(tmp_path / "other.parquet", 4 * 4 * 6 * 2)
    assert read(shard, [8, 1])[0].tobytes() == appearance[[8, 1]].tobytes()


def test_rows_per_shard_is_about_64_mib_and_at_least_one() -> None:
    assert rows_per_shard(32 * 32 * 640 * 2) == 25
    assert rows_per_shard(100 * 2**20) == 1
    assert rows_per_shard(8) == 20_000


@pytest.mark.parametrize("damage", ["missing", "short", "garbage", "other maps"])
def test_a_file_that_is_no_such_shard_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.parquet"
    save(path)
    width = 4 * 4 * 6 * 2
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "garbage":
        path.write_bytes(b"no parquet" * 100)
    else:
        width *= 2
    with pytest.raises(IndexDamagedError):
        open_shard(path, width)


class TestMapStore:
    def store(self, folder: Path) -> tuple[MapStore, dict[int, tuple[Maps, Maps]]]:
        """Three shards of 5, 40 and 2 rows; row r of shard s carries the id 100 s + r."""
        names, maps = {}, {}
        for number, count in ((1, 5), (2, 40), (3, 2)):
            names[number] = f"{number}.parquet"
            maps[number] = random_maps(count, seed=number)
            ids = np.arange(100 * number, 100 * number + count)
            write_shard(folder / names[number], ids, *maps[number])
        return MapStore(folder, names, 4 * 4 * 6 * 2), maps

    def test_rows_come_in_the_order_asked_for(self, tmp_path: Path) -> None:
        store, maps = self.store(tmp_path)
        every = [Place(n, r, 100 * n + r) for n in maps for r in range(len(maps[n][0]))]
        asked = [every[i] for i in np.random.default_rng(3).integers(0, len(every), 90)]
        appearance, semantic, damaged = store.read(asked)
        assert damaged == {}
        for place, a, s in zip(asked, appearance, semantic, strict=True):
            assert a.tobytes() == maps[place.shard][0][place.row].tobytes()
            assert s.tobytes() == maps[place.shard][1][place.row].tobytes()

    @pytest.mark.parametrize("column", ["appearance", "semantic"])
    def test_a_flipped_bit_is_reported_for_its_row_alone(self, tmp_path: Path, column: str) -> None:
        store, maps = self.store(tmp_path)
        raw = bytearray((tmp_path / "2.parquet").read_bytes())
        map_bytes = maps[2][column == "semantic"][17].tobytes()
        raw[raw.index(map_bytes) + 11] ^= 4
        (tmp_path / "2.parquet").write_bytes(raw)
        _, _, damaged = store.read([Place(2, r, 200 + r) for r in (16, 17, 18)])
        assert list(damaged) == [1]
        assert "2.parquet row 17" in damaged[1]

    def test_a_row_of_another_photo_is_never_returned_as_data(self, tmp_path: Path) -> None:
        store, _ = self.store(tmp_path)
        _, _, damaged = store.read([Place(1, 2, 102), Place(1, 2, 103), Place(1, 5, 105)])
        assert sorted(damaged) == [1, 2]

    def test_a_missing_shard_costs_its_own_rows(self, tmp_path: Path) -> None:
        store, _ = self.store(tmp_path)
        (tmp_path / "1.parquet").unlink()
        _, _, damaged = store.read([Place(1, 0, 100), Place(3, 0, 300), Place(9, 0, 900)])
        assert sorted(damaged) == [0, 2]
        assert "waldo index" in damaged[0]

    def test_short_reads_are_continued(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, maps = self.store(tmp_path)
        preadv = os.preadv

        def stingy(descriptor: int, buffers: list[memoryview], offset: int) -> int:
            return preadv(descriptor, [buffers[0][:50]], offset)

        monkeypatch.setattr(shards_module.os, "preadv", stingy)
        appearance, _, damaged = store.read([Place(1, 3, 103)])
        assert damaged == {}
        assert appearance[0].tobytes() == maps[1][0][3].tobytes()
