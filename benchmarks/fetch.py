"""How fast the maps of 400 random photos are read, by every way of reading them.

    python benchmarks/fetch.py [--shards 20]

Prints the table "Fetching" of docs/store.md: cold, with no page of the files in memory; warm, with
all pages in memory; and the bytes that were asked for, relative to the size of the maps. The ways
take turns; the numbers are medians. Needs Linux, and 5 GB of disk for temporary files.
"""

import ctypes
import itertools
import mmap
import os
import statistics
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from harness import make_parser, seconds_of

from indexer.store import mapstore
from indexer.store.manifest import MapShard
from indexer.store.mapstore import MapStore, Place
from indexer.store.shards import open_shard, store_shard

CANDIDATES = 400
PHOTO_BYTES, PHOTOS_PER_SHARD, GROUP = 65_536, 1024, 16
REPETITIONS = 9
RAW = "raw preadv, unchecked"

Read = Callable[[list[Place]], None]


@dataclass(frozen=True)
class Files:
    """The same maps in two layouts.

    shards: as Waldo writes them, below `folder`. grouped: files of the same numbers, with row
    groups of 16 rows.
    """

    folder: Path
    shards: list[MapShard]
    grouped: dict[int, Path]

    @classmethod
    def write(cls, folder: Path, count: int) -> "Files":
        """Write `count` shards of random maps."""
        (folder / "shards").mkdir()
        rng = np.random.default_rng(0)
        shards, grouped = [], {}
        for number in range(1, count + 1):
            maps = rng.integers(0, 256, (PHOTOS_PER_SHARD, PHOTO_BYTES), dtype=np.uint8)
            ids = np.arange(PHOTOS_PER_SHARD) + number * PHOTOS_PER_SHARD
            shards.append(store_shard(folder, number, ids, maps, codec=0))
            grouped[number] = folder / f"grouped-{number}.parquet"
            pq.write_table(
                pq.read_table(folder / shards[-1].name, columns=["maps"]),
                grouped[number],
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                row_group_size=GROUP,
            )
        os.sync()
        return cls(folder, shards, grouped)

    @property
    def paths(self) -> dict[int, Path]:
        """The files of the shards by number."""
        return {shard.number: self.folder / shard.name for shard in self.shards}

    def random_places(self, seed: list[int]) -> list[Place]:
        """Where 400 random photos lie, in the order of the files."""
        total = len(self.shards) * PHOTOS_PER_SHARD
        chosen = np.random.default_rng(seed).choice(total, CANDIDATES, replace=False)
        return [
            Place(1 + i // PHOTOS_PER_SHARD, i % PHOTOS_PER_SHARD, i + PHOTOS_PER_SHARD)
            for i in sorted(chosen.tolist())
        ]


def by_dataset(files: Files) -> Read:
    """pyarrow's own random access."""

    def read(places: list[Place]) -> None:
        dataset = ds.dataset([str(path) for path in files.paths.values()])
        wanted = [(place.shard - 1) * PHOTOS_PER_SHARD + place.row for place in places]
        assert len(dataset.take(wanted, columns=["maps"])) == len(places)

    return read


def by_row_groups(files: Files) -> Read:
    """The row groups of the grouped files that hold the photos, and then the rows."""

    def read(places: list[Place]) -> None:
        for number, some in itertools.groupby(places, key=lambda place: place.shard):
            rows = np.array([place.row for place in some])
            groups, inverse = np.unique(rows // GROUP, return_inverse=True)
            with pq.ParquetFile(files.grouped[number]) as file:
                table = file.read_row_groups(groups.tolist())
            assert len(table.take(pa.array(inverse * GROUP + rows % GROUP))) == len(rows)

    return read


def by_raw_reads(files: Files, pool: ThreadPoolExecutor) -> Read:
    """The bytes of the maps alone, by as many threads as Waldo uses, without checksums."""
    offsets = {
        shard.number: open_shard(files.folder, shard, PHOTO_BYTES).offset for shard in files.shards
    }
    buffer = np.ones((CANDIDATES, PHOTO_BYTES), np.uint8)
    per_task = mapstore._ROWS_PER_TASK

    def read_rows(places: list[Place], at: int) -> None:
        opened = []
        for number, some in itertools.groupby(places, key=lambda place: place.shard):
            file = os.open(files.paths[number], os.O_RDONLY)
            starts = [offsets[number] + place.row * PHOTO_BYTES for place in some]
            for start in starts:
                os.posix_fadvise(file, start, PHOTO_BYTES, os.POSIX_FADV_WILLNEED)
            opened.append((file, starts))
        for file, starts in opened:
            for start in starts:
                os.preadv(file, [buffer[at].data], start)
                at += 1
            os.close(file)

    def read(places: list[Place]) -> None:
        tasks = range(0, len(places), per_task)
        list(pool.map(lambda at: read_rows(places[at : at + per_task], at), tasks))

    return read


def by_waldo(files: Files, opened: MapStore | None) -> Read:
    """Waldo's own way. opened: a store whose shards are open; None to open them each time."""

    def read(places: list[Place]) -> None:
        store = opened or MapStore(files.folder, files.shards, PHOTO_BYTES)
        assert store.read(places)[1] == {}
        if opened is None:
            store.close()

    return read


@dataclass(frozen=True)
class Measured:
    """Seconds of cold and of warm reads, and bytes asked for relative to the size of the maps."""

    cold: float
    warm: float
    asked: float


def measure(files: Files, ways: dict[str, Read]) -> tuple[dict[str, Measured], int]:
    """The medians of each way, and how many pages were still in memory before the cold reads."""
    paths = [*files.paths.values(), *files.grouped.values()]
    rounds: dict[str, list[Measured]] = {name: [] for name in ways}
    resident = 0
    for repetition in range(REPETITIONS):
        for name, read in ways.items():
            places = files.random_places([repetition, len(name)])
            drop_cache(paths)
            resident += sum(resident_pages(path) for path in paths)
            before = bytes_read()
            cold = seconds_of(read, places)
            asked = (bytes_read() - before) / (CANDIDATES * PHOTO_BYTES)
            warm = statistics.median(seconds_of(read, places) for _ in range(3))
            rounds[name].append(Measured(cold, warm, asked))
    medians = {
        name: Measured(
            *(
                statistics.median(getattr(each, value) for each in found)
                for value in ("cold", "warm", "asked")
            )
        )
        for name, found in rounds.items()
    }
    return medians, resident


def fetch(folder: Path, count: int) -> None:
    """Print the table for `count` shards."""
    files = Files.write(folder, count)
    store = MapStore(folder, files.shards, PHOTO_BYTES)
    for shard in files.shards:
        store.shard(shard.number)
    pool = ThreadPoolExecutor(mapstore._THREADS)
    ways = {
        "dataset.take": by_dataset(files),
        f"read_row_groups ({GROUP} rows)": by_row_groups(files),
        RAW: by_raw_reads(files, pool),
        "ours, shards opened before": by_waldo(files, store),
        "ours, from scratch": by_waldo(files, None),
    }
    found, resident = measure(files, ways)
    store.close()
    pool.shutdown()
    print(f"{CANDIDATES} random photos of {count * PHOTOS_PER_SHARD}, {PHOTO_BYTES >> 10} KiB each")
    print(f"pages of the files in memory before the cold reads: {resident}")
    print(
        f"{'':28}{'cold ms':>9}{'warm ms':>9}{'asked':>8}"
        f"{'take/cold':>11}{'cold/raw':>10}{'warm/raw':>10}"
    )
    take, raw = found["dataset.take"], found[RAW]
    for name, way in found.items():
        print(
            f"{name:28}{1000 * way.cold:9.1f}{1000 * way.warm:9.1f}{way.asked:8.3f}"
            f"{take.cold / way.cold:11.1f}{way.cold / raw.cold:10.2f}{way.warm / raw.warm:10.2f}"
        )
    buffer = np.ones((CANDIDATES, PHOTO_BYTES), np.uint8)
    check = seconds_of(lambda: [zlib.crc32(row.data) for row in buffer])
    print(f"CRC-32 of as many bytes, one thread: {1000 * check:.1f} ms")


def drop_cache(paths: list[Path]) -> None:
    """Remove files from the page cache."""
    for path in paths:
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
    """How many bytes this process has asked of files so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--shards", type=int, default=20, help="files of 64 MiB to read from")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="waldo-bench-") as folder:
        fetch(Path(folder), given.shards)


if __name__ == "__main__":
    main()
