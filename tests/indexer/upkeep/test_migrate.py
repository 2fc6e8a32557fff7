"""An index of format 1 becomes one of this format: the same photos, ids and maps, to the bit."""

import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.maps import FeatureMaps
from indexer.codec.codec import load_codec
from indexer.errors import IndexDamagedError, IndexFormatError
from indexer.reader import IndexReader
from indexer.store.files import digest
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import describe, verify
from indexer.upkeep.compact import compact
from tests.helpers.stores import PixelExtractor, make_photos, maps_of, rows, run

PER_SHARD = 5


@dataclass(frozen=True)
class Old:
    """An index of format 1, and the photos in it.

    deleted: id of a photo that is deleted. copy: id of one that shares the maps of id 2.
    """

    index: Path
    photos: Path
    deleted: int = 4
    copy: int = 12


def write_old_index(folder: Path) -> Old:
    """What format 1 wrote for twelve photos in three shards, and for a copy of the third."""
    old = Old(folder / "index", folder / "photos")
    paths = make_photos(old.photos, 12)
    paths.append(old.photos / "zz.png")
    shutil.copy(paths[2], paths[-1])
    for name in ("shards", "photos"):
        (old.index / name).mkdir(parents=True)
    extractor = PixelExtractor()
    maps = [maps_of(path, extractor) for path in paths]
    lists: dict[str, list[dict[str, Any]]] = {"shards": [], "photos": []}
    for number, start in enumerate(range(0, len(paths), PER_SHARD), start=1):
        ids = range(start, min(start + PER_SHARD, len(paths)))
        own = [i for i in ids if i != old.copy]
        tables = {
            "shards": old_shard(own, [maps[i] for i in own]),
            "photos": old_photos(ids, paths, maps, old.copy),
        }
        for kind, table in tables.items():
            name = f"{kind}/{number:06d}.parquet"
            count = table.num_rows
            if kind == "shards":
                options = {"compression": "none", "use_dictionary": False, "row_group_size": count}
                pq.write_table(table, old.index / name, write_statistics=False, **options)
            else:
                pq.write_table(table, old.index / name, write_page_checksum=True)
            lists[kind].append(entry(old.index, name, number, count))
    (old.index / "recall-3.faiss").write_bytes(b"an inner-product index")
    (old.index / "statistics-3.safetensors").write_bytes(b"a mean")
    manifest = {
        "fingerprint": extractor.fingerprint(),
        "image_size": extractor.image_size,
        "grid": extractor.grid,
        "dim": extractor.dim,
        "generation": 3,
        "sources": [{"root": str(old.photos), "list_name": None}],
        **lists,
        "recall": {"file": entry(old.index, "recall-3.faiss", 3, 13), "covers": 3},
        "statistics": {"file": entry(old.index, "statistics-3.safetensors", 3, 12), "covers": 3},
        "next_id": 13,
        "tombstones": [old.deleted],
        "format": 1,
    }
    (old.index / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    paths[old.deleted].unlink()
    return old


def entry(index: Path, name: str, number: int, count: int) -> dict[str, Any]:
    path = index / name
    size = path.stat().st_size
    return {"name": name, "number": number, "rows": count, "bytes": size, "sha256": digest(path)}


def old_shard(ids: list[int], maps: list[FeatureMaps]) -> pa.Table:
    both = [(m.appearance.tobytes(), m.semantic.tobytes()) for m in maps]
    kind = pa.binary(len(both[0][0]))
    columns = {
        "id": (pa.int64(), ids),
        "appearance": (kind, [a for a, _ in both]),
        "semantic": (kind, [s for _, s in both]),
        "checksum": (pa.uint32(), [zlib.crc32(s, zlib.crc32(a)) for a, s in both]),
    }
    schema = pa.schema([pa.field(name, c[0], nullable=False) for name, c in columns.items()])
    return pa.table([pa.array(values, kind) for kind, values in columns.values()], schema=schema)


def old_photos(ids: range, paths: list[Path], maps: list[FeatureMaps], copy: int) -> pa.Table:
    owners = [2 if i == copy else i for i in ids]
    status = [paths[i].stat() for i in ids]
    pooled = np.concatenate([maps[i].pooled() for i in ids])
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "source": pa.array([0] * len(ids), pa.int32()),
            "path": pa.array([paths[i].name for i in ids], pa.string()),
            "content_hash": pa.array([bytes.fromhex(maps[i].content_hash) for i in ids]).cast(
                pa.binary(32)
            ),
            "size": pa.array([s.st_size for s in status], pa.int64()),
            "mtime_ns": pa.array([s.st_mtime_ns for s in status], pa.int64()),
            "width": pa.array([maps[i].frame.width for i in ids], pa.int32()),
            "height": pa.array([maps[i].frame.height for i in ids], pa.int32()),
            "shard": pa.array([i // PER_SHARD + 1 for i in owners], pa.int64()),
            "row": pa.array([i % PER_SHARD for i in owners], pa.int32()),
            "maps_id": pa.array(owners, pa.int64()),
            "pooled": pa.FixedSizeListArray.from_arrays(pa.array(pooled), len(maps[0].pooled())),
        }
    )


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return write_old_index(tmp_path)


def content(index: Path) -> dict[str, bytes]:
    files = (path for path in index.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(index)): path.read_bytes() for path in files}


def assert_same_photos(old: Old) -> None:
    """Every photo has its old id, and the maps and pooled vector of its file."""
    held = rows(old.index)
    paths = sorted(old.photos.iterdir())
    assert sorted(held) == [str(path) for path in paths]
    for path in paths:
        number = old.copy if path.name == "zz.png" else int(path.stem[-3:])
        maps = maps_of(path, PixelExtractor())
        expected = (maps.appearance.tobytes(), maps.semantic.tobytes(), maps.pooled().tobytes())
        assert held[str(path)] == (number, *expected)


def by_compacting(old: Old) -> None:
    assert compact(old.index).migrated
    assert not compact(old.index).migrated


def by_indexing(old: Old) -> None:
    extractor = PixelExtractor()
    report = run(old.photos, old.index, extractor)
    assert (report.unchanged, report.total, extractor.batches) == (12, 12, [])


@pytest.mark.parametrize("bring", [by_compacting, by_indexing])
def test_photos_ids_and_maps_are_the_same(old: Old, bring: Callable[[Old], None]) -> None:
    bring(old)
    assert verify(old.index) == []
    assert_same_photos(old)
    manifest = read_manifest(old.index)
    assert (manifest.format, manifest.quality, manifest.n_photos) == (2, "none", 12)
    assert manifest.next_id == 13
    [codec] = [load_codec(old.index / file.name) for file in manifest.codecs]
    vectors = [maps_of(path, PixelExtractor()).pooled() for path in old.photos.iterdir()]
    np.testing.assert_allclose(codec.mean, np.mean(vectors, axis=0), atol=1e-6)
    assert codec.fitted_on == 12
    files = {file.name for file in manifest.files()} | {"manifest.json"}
    assert {name for name in content(old.index) if name != "failures.jsonl"} == files
    assert describe(old.index)["recall"] == "flat"


def test_what_comes_later_is_as_in_any_index(old: Old) -> None:
    run(old.photos, old.index)
    make_photos(old.photos, 2, first=30)
    (old.photos / "photo-001.png").unlink()
    report = run(old.photos, old.index)
    assert (report.new, report.removed, report.unchanged) == (2, 1, 11)
    assert compact(old.index).changed
    assert verify(old.index) == []
    taken = [
        value
        for file in read_manifest(old.index).photos
        for value in pq.read_table(old.index / file.name).column("taken_ns").to_pylist()
    ]
    assert taken == [None] * 13


def test_a_reader_says_how_to_bring_it_up_to_date(old: Old) -> None:
    for function in (IndexReader.open, describe, verify):
        with pytest.raises(IndexFormatError, match=r"format 1.*waldo compact --index"):
            function(old.index)


@pytest.mark.parametrize("damage", ["flipped", "gone", "cut"])
def test_photos_of_a_damaged_shard_are_extracted_again(old: Old, damage: str) -> None:
    path = old.index / "shards" / "000002.parquet"
    if damage == "gone":
        path.unlink()
    else:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw if damage == "flipped" else raw[:-10])
    report = compact(old.index)
    assert [Path(name).name for name in report.lost] == [f"photo-00{i}.png" for i in range(5, 10)]
    extractor = PixelExtractor()
    assert run(old.photos, old.index, extractor).changed == 5
    assert sum(extractor.batches) == 5
    assert_same_photos(old)
    assert verify(old.index) == []


def test_a_damaged_photo_table_is_refused_and_its_mend_mends(old: Old) -> None:
    path = old.index / "photos" / "000002.parquet"
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    before = content(old.index)
    for action in (lambda: compact(old.index), lambda: run(old.photos, old.index)):
        with pytest.raises(IndexDamagedError, match=f"{path}.*delete that file and run"):
            action()
    assert content(old.index) == before
    path.unlink()
    assert run(old.photos, old.index).new == 5
    assert verify(old.index) == []


@pytest.mark.parametrize("change", [{"format": 3}, {"format": 0}])
def test_other_formats_are_left_alone(old: Old, change: dict[str, int]) -> None:
    path = old.index / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = content(old.index)
    for action in (lambda: compact(old.index), lambda: run(old.photos, old.index)):
        with pytest.raises(IndexFormatError, match=f"format {change['format']}"):
            action()
    assert content(old.index) == before


def test_a_manifest_that_lacks_something(old: Old) -> None:
    path = old.index / "manifest.json"
    raw = json.loads(path.read_text())
    del raw["next_id"]
    path.write_text(json.dumps(raw))
    with pytest.raises(IndexDamagedError, match=r"manifest\.json lacks something"):
        compact(old.index)


def test_an_index_before_its_first_photo(tmp_path: Path, old: Old) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    raw = json.loads((old.index / "manifest.json").read_text())
    nothing = {"generation": 0, "shards": [], "photos": [], "recall": None, "statistics": None}
    nothing |= {"next_id": 0, "tombstones": [], "sources": []}
    (empty / "manifest.json").write_text(json.dumps(raw | nothing))
    assert run(old.photos, empty).new == 12
    assert verify(empty) == []
