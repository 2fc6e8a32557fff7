"""How the store behaves as it grows: fetching, memory, additions, queries, and kill -9.

    python benchmarks/store.py                    # everything, some minutes on two cores
    python benchmarks/store.py fetch kill --kills 1000

Features are synthetic, so no model is measured. Contenders take turns within one run, and numbers
are medians over repetitions. Needs Linux, and 5 GB of room for temporary files.
"""

import argparse
import cProfile
import ctypes
import hashlib
import itertools
import mmap
import multiprocessing
import os
import pstats
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer import mapstore, shards
from indexer import writer as writer_module
from indexer.build import index_photos
from indexer.check import verify
from indexer.codec import DEFAULT_QUALITY, Codec, bytes_per_photo
from indexer.compact import compact
from indexer.errors import IndexMissingError
from indexer.manifest import read_manifest
from indexer.mapstore import MapStore, Place
from indexer.reader import IndexReader
from indexer.recall import refresh_recall
from indexer.shards import open_shard, write_shard
from indexer.sources import Found, list_photos, open_sources
from indexer.writer import IndexWriter, Pooled

IMAGE_SIZE, GRID, DIM = 32, 16, 160
CANDIDATES = 400


class SyntheticExtractor:
    """Maps that follow from a photo's pixels, of falling variance as a model's are.

    seconds: spent in `extract` so far.
    """

    image_size, grid, dim = IMAGE_SIZE, GRID, DIM

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        inner = 64
        self._first = rng.normal(size=(3 * (IMAGE_SIZE // GRID) ** 2, inner)).astype(np.float32)
        falling = (1 / np.arange(1, inner + 1))[:, None]
        self._second = (falling * rng.normal(size=(inner, 2 * DIM))).astype(np.float32)
        self.seconds = 0.0

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"model": "synthetic", "revision": "1"}

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        return np.random.default_rng(1).normal(size=(50, DIM)).astype(np.float32)

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        begin = time.perf_counter()
        maps = [self._extract(photo) for photo in inputs]
        self.seconds += time.perf_counter() - begin
        return maps

    def _extract(self, photo: ModelInput) -> FeatureMaps:
        side = IMAGE_SIZE // GRID
        cells = photo.pixels.reshape(GRID, side, GRID, side, 3).transpose(0, 2, 1, 3, 4)
        flat = cells.reshape(GRID, GRID, -1).astype(np.float32) / 128 - 1
        both = (np.tanh(flat @ self._first) @ self._second).astype(np.float16)
        return FeatureMaps(both[..., :DIM], both[..., DIM:], photo.frame, photo.content_hash)


def make_photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Distinct 32-pixel PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{i:07}.png" for i in range(first, first + count)]
    for i, path in enumerate(paths, start=first):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((IMAGE_SIZE, IMAGE_SIZE)).save(path)
    return paths


def make_large_index(folder: Path, count: int) -> tuple[Path, Path]:
    """A folder of `count` photos and an index of it, as indexing would leave them but for one
    thing: only 256 different maps were extracted, and are stored again and again. Every photo has
    a pooled vector of its own. Returns both folders.
    """
    photos, index = folder / "photos", folder / "index"
    sample = make_photos(folder / "sample", 256)
    picture = sample[0].read_bytes()
    photos.mkdir()
    for i in range(count):  # the number makes each file another; decoders ignore what follows
        (photos / f"photo-{i:07}.png").write_bytes(picture + str(i).encode())
    extractor = SyntheticExtractor()
    inputs = [
        ModelInput(
            np.asarray(Image.open(path)), Frame(IMAGE_SIZE, IMAGE_SIZE, IMAGE_SIZE, GRID), path.name
        )
        for path in sample
    ]
    maps = extractor.extract(inputs)
    pooled = np.stack([m.pooled() for m in maps])
    rng = np.random.default_rng(2)
    with IndexWriter.open(index, extractor) as writer:
        writer.use_codec(Codec.fit(writer.manifest.quality, maps, extractor.vocabulary_vectors()))
        encoded, words = writer.encode(maps), [writer.words_of(m) for m in maps]
        for i, found in enumerate(list_photos(open_sources([photos], index), index)):
            assert isinstance(found, Found)
            # Between two photos' vectors, so that they lie as densely as real ones do.
            a, b = rng.integers(0, len(pooled), 2)
            share = np.float32(rng.random())
            vector = share * pooled[a] + (1 - share) * pooled[b]
            digest = hashlib.sha256(picture + str(i).encode()).hexdigest()
            frame = Frame(IMAGE_SIZE, IMAGE_SIZE, IMAGE_SIZE, GRID)
            content = Pooled(vector, words[i % 256], frame, digest, None)
            writer.add(found, encoded[i % 256], content)
        writer.finish([])
    return photos, index


# --- fetch -------------------------------------------------------------------------------------

PHOTO_BYTES, SHARDS, PHOTOS_PER_SHARD, GROUP = 65_536, 20, 1024, 16
Rows = dict[int, list[int]]  # shard number -> rows


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


def seconds_of(work: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begin


# --- growth ------------------------------------------------------------------------------------


def growth(folder: Path) -> None:
    """Memory, speed and disk of indexing folders of three sizes, each in a process of its own."""
    sizes = (1000, 5000, 20_000)
    make_photos(folder / "photos" / "a", sizes[0])
    print(
        f"maps of {GRID} x {GRID} x {DIM}; shards of 4 MiB, of which the smallest index fills some"
    )
    print(
        f"{'photos':>8}{'MiB before recall':>19}{'growth':>9}{'peak MiB':>10}{'growth':>9}"
        f"{'photos/s':>10}{'disk B/photo':>14}"
    )
    smallest: list[float] = []
    for name, before, size in zip("abc", (0, *sizes), sizes, strict=False):
        make_photos(folder / "photos" / name, size - before, before)
        index = folder / f"index-{size}"
        *peaks, seconds = in_process(index_child, folder / "photos", index)
        manifest = read_manifest(index)
        disk = sum(file.bytes for file in manifest.files()) / size
        smallest = smallest or peaks
        grown = [peak / first - 1 for peak, first in zip(peaks, smallest, strict=True)]
        print(
            f"{size:8}{peaks[0]:19.0f}{grown[0]:9.1%}{peaks[1]:10.0f}{grown[1]:9.1%}"
            f"{size / seconds:10.0f}{disk:14.0f}"
        )
    print(f"encoded maps: {manifest.photo_bytes} B a photo; photos/s leave extraction out")


def index_child(answer: Connection, photos: Path, index: Path) -> None:
    before = 0.0

    def refresh(*arguments: Any, **named: Any) -> Any:
        nonlocal before
        before = peak_memory()
        return refresh_recall(*arguments, **named)

    small = patch.object(shards, "SHARD_BYTES", 4 * 2**20)
    with small, patch.object(writer_module, "refresh_recall", refresh):
        extractor = SyntheticExtractor()
        seconds = seconds_of(index_photos, [photos], index, extractor) - extractor.seconds
    answer.send((before, peak_memory(), seconds))


def peak_memory() -> float:
    """The most memory this process has had so far, MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def in_process(work: Callable[..., None], *arguments: object) -> tuple[float, ...]:
    """What `work` sends from a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments))
    process.start()
    theirs.close()
    answer: tuple[float, ...] = ours.recv()
    process.join()
    return answer


# --- add ---------------------------------------------------------------------------------------

STAGES = {
    "list": "list_photos",
    "table": "read_photo_table",
    "known": "known.py:__init__",
    "encode": "codec.py:encode",
    "commit": "_stage",
    "manifest": "write_manifest",
}


def add(folder: Path) -> None:
    """Adding and removing 100 photos in collections of three sizes."""
    print(f"{'photos':>8}{'add s':>8}{'remove s':>10}{'nothing s':>11}   of a profiled add, s:")
    for size in (1000, 10_000, 100_000):
        photos, index = make_large_index(folder / str(size), size)
        extractor = SyntheticExtractor()
        adding, removing = [], []
        for turn in range(4):
            new = make_photos(photos / f"new-{turn}", 100, first=10**6 + 100 * turn)
            if turn < 3:
                adding.append(seconds_of(index_photos, [photos], index, extractor))
            else:
                with cProfile.Profile() as profile:
                    index_photos([photos], index, extractor)
        nothing = seconds_of(index_photos, [photos], index, extractor)
        for turn in range(3):
            for path in (photos / f"new-{turn}").iterdir():
                path.unlink()
            removing.append(seconds_of(index_photos, [photos], index, extractor))
        assert len(new) == 100
        assert read_manifest(index).n_photos == size + 100
        stages = stage_seconds(profile)
        print(
            f"{size:8}{statistics.median(adding):8.2f}{statistics.median(removing):10.2f}"
            f"{nothing:11.2f}   " + ", ".join(f"{k} {v:.2f}" for k, v in stages.items())
        )
        shutil.rmtree(folder / str(size))


def stage_seconds(profile: cProfile.Profile) -> dict[str, float]:
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    return {
        stage: sum(
            value[3]
            for (file, _, name), value in stats.items()
            if f"{Path(file).name}:{name}".endswith(wanted if ":" in wanted else f":{wanted}")
        )
        for stage, wanted in STAGES.items()
    }


# --- query -------------------------------------------------------------------------------------


def query(folder: Path) -> None:
    """Recall, fetch and score at K = 400, in collections of two sizes."""
    import torch

    from search.clock import Clock
    from search.confidence import least_without_place
    from search.rerank import localise, rerank
    from search.scores import DEFAULT_SCORE, SCORES, ScoringReference

    print(f"K = {CANDIDATES}, maps of {GRID} x {GRID} x {DIM}, {torch.get_num_threads()} threads")
    print(
        f"{'photos':>8}{'open':>8}{'pooled recall':>15}{'word recall':>15}"
        f"{'fetch':>15}{'score':>15}{'localise':>15}{'total':>15}   ms, median and 95th percentile"
    )
    for size in (10_000, 100_000):
        _, index = make_large_index(folder / str(size), size)
        opening, clocks = [], []
        for _ in range(5):
            begin = time.perf_counter()
            with IndexReader.open(index) as reader:
                reader.recall.search(np.zeros(2 * DIM, dtype=np.float32), 1)
                assert reader.word_recall is not None
            opening.append(time.perf_counter() - begin)
        with IndexReader.open(index) as reader:
            by_words = reader.word_recall
            assert by_words is not None
            rng = np.random.default_rng(3)
            for turn in range(65):
                source = reader.read_maps(rng.choice(reader.ids, 1))
                appearance, semantic = reader.decode(source)
                chosen = rng.choice(GRID**2, 40, replace=False)
                tokens = appearance[0, chosen]
                positions = torch.from_numpy(np.stack([chosen // GRID, chosen % GRID], 1)).float()
                vector = torch.cat([tokens.mean(0), semantic[0].mean(0)]).div(2).numpy()
                reference = ScoringReference(tokens, tokens, None, positions)
                clock = Clock()
                with clock("pooled"):
                    reader.recall.search(vector, CANDIDATES)
                with clock("words"):
                    ids, _ = by_words.search(partial(reader.words_in, tokens.numpy()), CANDIDATES)
                scored = rerank(reader, ids, reference, SCORES[DEFAULT_SCORE], clock)
                assert len(scored.ids) == CANDIDATES
                best = np.argsort(-scored.scores)[:20]
                least = least_without_place(scored.scores, scored.scores[best])
                with clock("localise"):
                    maps = reader.read_maps(scored.ids[best])
                    which = np.zeros(len(best), dtype=np.int64)
                    localise(reader, maps, [reference], which, SCORES[DEFAULT_SCORE], least)
                if turn >= 5:
                    clocks.append(clock.stages())
        print(f"{size:8}{1000 * statistics.median(opening):8.1f}", end="")
        for stage in clocks[0]:
            middle, high = np.percentile([1000 * clock[stage] for clock in clocks], [50, 95])
            print(f"{middle:9.1f}{high:6.1f}", end="")
        print()
        shutil.rmtree(folder / str(size))


# --- kill --------------------------------------------------------------------------------------

SMALL_SHARD = 5 * bytes_per_photo(DEFAULT_QUALITY, GRID, DIM)
Operation = Callable[[Path, Path], object]


def run_index(photos: Path, index: Path) -> None:
    index_photos([photos], index, SyntheticExtractor(), batch_size=4)


def run_compact(_: Path, index: Path) -> None:
    compact(index)


def run_both(photos: Path, index: Path) -> None:
    run_index(photos, index)
    run_compact(photos, index)


def kill(folder: Path, kills: int) -> None:
    """Kill -9 at random instants; whatever is left opens, is sound, and can be finished."""
    with patch.object(shards, "SHARD_BYTES", SMALL_SHARD):
        _kill(folder, kills)


def _kill(folder: Path, kills: int) -> None:
    before, after = folder / "before", folder / "photos"
    make_photos(after, 40)
    run_index(after, folder / "index")
    run_index(after, folder / "old")
    shutil.copytree(after, before)
    change(after)
    run_index(after, folder / "old")
    # What each operation begins with: an index to copy, or none.
    operations: dict[str, tuple[Operation, Path | None]] = {
        "index": (run_index, None),
        "update": (run_index, folder / "index"),
        "compact": (run_compact, folder / "old"),
        "update and compact": (run_both, folder / "index"),
    }
    wholes = {}
    for name, (operation, start) in operations.items():
        whole = prepared(folder / f"whole {name}", start)
        seconds = seconds_of(started(operation, after, whole).join)
        assert verify(whole) == []
        wholes[name] = ((contents(whole), layout(whole)), seconds)
    rng = random.Random(0)
    counts = {name: [0, 0, 0] for name in operations}
    for turn in range(kills):
        name = list(operations)[turn % len(operations)]
        operation, start = operations[name]
        index = prepared(folder / "killed", start)
        expected, seconds = wholes[name]
        child = started(operation, after, index)
        time.sleep(rng.uniform(0, 1.1 * seconds))
        child.kill()
        child.join()
        counts[name][0] += child.exitcode == -9
        if (index / "manifest.json").exists():
            problems = verify(index)
            assert problems == [], problems
            counts[name][1] += 1
        try:
            with IndexReader.open(index) as reader:
                assert len(reader.recall) == reader.n_photos
            counts[name][2] += (contents(index), layout(index)) != expected
        except IndexMissingError:  # killed before its first commit
            counts[name][2] += 1
        operation(after, index)
        assert verify(index) == []
        assert contents(index) == expected[0], f"{name}: other rows than an undisturbed run's"
        shutil.rmtree(index)
    print(
        f"{'operation':20}{'killed':>8}{'verified':>10}{'unfinished':>12}"
        f"{'finished by running again':>28}"
    )
    for name, (killed, verified, unfinished) in counts.items():
        print(f"{name:20}{killed:8}{verified:10}{unfinished:12}{'all':>28}")


def started(operation: Operation, photos: Path, index: Path) -> ForkServerProcess:
    """A process that has just begun with an operation."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "faiss", "safetensors.numpy"])
    ours, theirs = context.Pipe()
    child = context.Process(target=run_child, args=(theirs, operation, photos, index))
    child.start()
    ours.recv()
    return child


def run_child(ready: Connection, operation: Operation, photos: Path, index: Path) -> None:
    import faiss  # noqa: F401 (indexing imports it late, and takes its time)
    import safetensors.numpy  # noqa: F401

    with patch.object(shards, "SHARD_BYTES", SMALL_SHARD):
        ready.send(None)
        operation(photos, index)


def change(photos: Path) -> None:
    """Add, change, move, copy and remove photos."""
    paths = sorted(photos.iterdir())
    make_photos(photos, 12, first=1000)
    for i, path in enumerate(paths[5:9]):
        shutil.copy(make_photos(photos.parent / "other", 1, first=2000 + i)[0], path)
    for path in paths[12:17]:
        path.unlink()
    for path in paths[20:23]:
        path.rename(path.with_name("moved-" + path.name))
    for path in paths[25:28]:
        shutil.copy(path, path.with_name("copy-" + path.name))


def prepared(index: Path, start: Path | None) -> Path:
    if start is not None:
        shutil.copytree(start, index)
    return index


def contents(index: Path) -> dict[str, tuple[int, bytes]]:
    """Every photo by its path: its id and its encoded maps."""
    with IndexReader.open(index) as reader:
        batch = reader.read_maps(reader.ids)
        assert batch.damaged == []
        records = reader.photos(reader.ids)
        return {
            str(record.path): (record.id, encoded.tobytes())
            for record, encoded in zip(records, batch.encoded, strict=True)
        }


def layout(index: Path) -> list[int]:
    """Rows of each map shard and each file of the photo table."""
    manifest = read_manifest(index)
    return [file.rows for file in (*manifest.shards, *manifest.photos)]


SECTIONS: dict[str, Callable[..., None]] = {
    "fetch": fetch, "growth": growth, "add": add, "query": query, "kill": kill,
}  # fmt: skip


@contextmanager
def own_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="waldo-bench-") as folder:
        yield Path(folder).resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--kills", type=int, default=100, help="processes to kill (default 100)")
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"{name}: no such section; one of {', '.join(SECTIONS)}")
    print(f"{os.cpu_count()} cores")
    for name, section in SECTIONS.items():
        if options.sections and name not in options.sections:
            continue
        begin = time.perf_counter()
        print(f"\n== {name}: {section.__doc__}")
        with own_folder() as folder:
            section(folder, options.kills) if name == "kill" else section(folder)
        print(f"({time.perf_counter() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
