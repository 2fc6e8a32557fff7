"""How fast 400 random photos' maps are read, by every way of reading them.

    python benchmarks/fetch.py

From the disk and from memory, the ways in turn within one run, medians over repetitions. Needs
Linux, and 5 GB of room for temporary files.
"""

import ctypes
import itertools
import mmap
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from synthetic import seconds_of

from indexer.store import mapstore, shards
from indexer.store.mapstore import MapStore, Place
from indexer.store.shards import open_shard, write_shard

CANDIDATES = 400
PHOTO_BYTES, SHARDS, PHOTOS_PER_SHARD, GROUP = 65_536, 20, 1024, 16


def fetch(folder: Path) -> None:
    """400 random photos' maps, by every way of reading them, from the disk and from memory."""
    names = {number: f"{number:06}.parquet" for number in range(1, SHARDS + 1)}
    grouped = folder / "grouped"
    grouped.mkdir()
    rng = np.random.default_rng(0)
    for number, name in names.items():
        maps = rng.integers(0, 256, (PHOTOS_PER_SHARD, PHOTO_BYTES), dtype=np.uint8)
        ids = np.arange(PHOTOS_PER_SHARD) + number * PHOTOS_PER_SHARD
        write_shard(folder / name, ids, maps)
        pq.write_table(
            pq.read_table(folder / name, columns=["maps"]),
            grouped / name,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            row_group_size=GROUP,
        )
    os.sync()
    files = [parent / name for parent in (folder, grouped) for name in names.values()]
    offsets = {n: open_shard(folder / name, PHOTO_BYTES).offset for n, name in names.items()}
    assert None not in offsets.values()
    opened = MapStore(folder, names, PHOTO_BYTES)
    for number in names:
        opened.shard(number)
    buffer = np.ones((CANDIDATES, PHOTO_BYTES), np.uint8)
    pool, rows_a_task = ThreadPoolExecutor(mapstore._THREADS), mapstore._ROWS_PER_TASK

    def take(places: list[Place]) -> None:
        dataset = ds.dataset([str(folder / name) for name in names.values()])
        wanted = [(p.shard - 1) * PHOTOS_PER_SHARD + p.row for p in places]
        assert len(dataset.take(wanted, columns=["maps"])) == len(places)

    def row_groups(places: list[Place]) -> None:
        for number, some in itertools.groupby(places, key=lambda p: p.shard):
            rows = np.array([p.row for p in some])
            groups, inverse = np.unique(rows // GROUP, return_inverse=True)
            with pq.ParquetFile(grouped / names[number]) as file:
                table = file.read_row_groups(groups.tolist())
            assert len(table.take(pa.array(inverse * GROUP + rows % GROUP))) == len(rows)

    def raw(places: list[Place]) -> None:
        list(pool.map(lambda at: raw_rows(places, at), range(0, len(places), rows_a_task)))

    def raw_rows(places: list[Place], at: int) -> None:
        chunk = []
        for number, some in itertools.groupby(places[at : at + rows_a_task], key=lambda p: p.shard):
            file = os.open(folder / names[number], os.O_RDONLY)
            starts = [offsets[number] + p.row * PHOTO_BYTES for p in some]  # type: ignore[operator]
            for start in starts:
                os.posix_fadvise(file, start, PHOTO_BYTES, os.POSIX_FADV_WILLNEED)
            chunk.append((file, starts))
        for file, starts in chunk:
            for start in starts:
                os.preadv(file, [buffer[at].data], start)
                at += 1
            os.close(file)

    def ours(places: list[Place]) -> None:
        assert opened.read(places)[1] == {}

    def from_scratch(places: list[Place]) -> None:
        store = MapStore(folder, names, PHOTO_BYTES)
        assert store.read(places)[1] == {}
        store.close()

    contenders: dict[str, Callable[[list[Place]], None]] = {
        "dataset.take": take,
        f"read_row_groups ({GROUP} rows)": row_groups,
        "raw preadv, unchecked": raw,
        "ours, shards opened before": ours,
        "ours, from scratch": from_scratch,
    }
    cold: dict[str, list[float]] = {name: [] for name in contenders}
    warm: dict[str, list[float]] = {name: [] for name in contenders}
    asked: dict[str, list[float]] = {name: [] for name in contenders}
    left = 0
    for repetition in range(9):
        for name, work in contenders.items():
            chosen = np.random.default_rng([repetition, len(name)]).choice(
                SHARDS * PHOTOS_PER_SHARD, CANDIDATES, replace=False
            )
            places = [
                Place(1 + i // PHOTOS_PER_SHARD, i % PHOTOS_PER_SHARD, i + PHOTOS_PER_SHARD)
                for i in sorted(chosen.tolist())
            ]
            drop_cache(files)
            left += sum(resident_pages(file) for file in files)
            before = bytes_read()
            cold[name].append(seconds_of(work, places))
            asked[name].append((bytes_read() - before) / (CANDIDATES * PHOTO_BYTES))
            warm[name].append(statistics.median(seconds_of(work, places) for _ in "123"))
    opened.close()
    pool.shutdown()
    print(
        f"{CANDIDATES} random photos of {SHARDS * PHOTOS_PER_SHARD}, {PHOTO_BYTES >> 10} KiB each"
    )
    print(f"pages of the files in memory before the cold reads: {left}")
    print(
        f"{'':28}{'cold ms':>9}{'warm ms':>9}{'asked':>8}"
        f"{'take/cold':>11}{'cold/raw':>10}{'warm/raw':>10}"
    )
    at = {name: (statistics.median(cold[name]), statistics.median(warm[name])) for name in cold}
    for name, (seconds, again) in at.items():
        raw_cold, raw_warm = at["raw preadv, unchecked"]
        print(
            f"{name:28}{1000 * seconds:9.1f}{1000 * again:9.1f}"
            f"{statistics.median(asked[name]):8.3f}{at['dataset.take'][0] / seconds:11.1f}"
            f"{seconds / raw_cold:10.2f}{again / raw_warm:10.2f}"
        )
    check = seconds_of(lambda: [shards.zlib.crc32(row.data) for row in buffer])
    print(f"CRC-32 of as many bytes, one thread: {1000 * check:.1f} ms")


def drop_cache(files: list[Path]) -> None:
    for path in files:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def resident_pages(path: Path) -> int:
    """How many pages of a file are in the page cache."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        pages = (ctypes.c_ubyte * -(-len(view) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(view)
        address, length = ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(view))
        if ctypes.CDLL(None, use_errno=True).mincore(address, length, pages) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
        del start
        return sum(page & 1 for page in pages)


def bytes_read() -> int:
    """Bytes this process asked of files so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


if __name__ == "__main__":
    with TemporaryDirectory(prefix="waldo-bench-") as folder:
        fetch(Path(folder))
