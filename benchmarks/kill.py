"""Kill -9 at random instants of indexing and compacting.

    python benchmarks/kill.py [--kills 1000]

Prints the numbers of "Kill -9" in docs/store.md. After each kill the index must open and verify, or
must not exist yet, and running the same operation again must finish it. Features are synthetic.
Needs Linux.
"""

import multiprocessing
import random
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from harness import make_parser, seconds_of
from synthetic import PixelMaps, make_photos

from indexer.codec.quality import DEFAULT_QUALITY, bytes_per_photo
from indexer.errors import IndexMissingError
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.store import shards
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact

SMALL_SHARD = 5 * bytes_per_photo(DEFAULT_QUALITY, PixelMaps.grid, PixelMaps.dim)
Operation = Callable[[Path, Path], object]


def run_index(photos: Path, index: Path) -> None:
    index_photos([photos], index, PixelMaps(), batch_size=4)


def run_compact(_: Path, index: Path) -> None:
    compact(index)


def run_both(photos: Path, index: Path) -> None:
    run_index(photos, index)
    run_compact(photos, index)


def kill(folder: Path, kills: int) -> None:
    """Kill that many processes, check what each leaves behind, and print the counts."""
    before, after = folder / "before", folder / "photos"
    make_photos(after, 40)
    run_index(after, folder / "index")
    run_index(after, folder / "old")
    shutil.copytree(after, before)
    change(after)
    run_index(after, folder / "old")
    # Each operation begins with a copy of an index, or with none.
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
    """A process that has just begun an operation."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "faiss", "safetensors.numpy"])
    ours, theirs = context.Pipe()
    child = context.Process(target=run_child, args=(theirs, operation, photos, index))
    child.start()
    ours.recv()
    return child


def run_child(ready: Connection, operation: Operation, photos: Path, index: Path) -> None:
    import faiss  # noqa: F401 (indexing imports it late, which takes long)
    import safetensors.numpy  # noqa: F401

    with patch.object(shards, "SHARD_BYTES", SMALL_SHARD):
        ready.send(None)
        operation(photos, index)


def change(photos: Path) -> None:
    """Add, change, move, copy and delete photos."""
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
    """The folder of an index, with a copy of another where one is given."""
    if start is not None:
        shutil.copytree(start, index)
    return index


def contents(index: Path) -> dict[str, tuple[int, bytes]]:
    """The id and the encoded maps of every photo, by path."""
    with IndexReader.open(index) as reader:
        batch = reader.read_maps(reader.ids)
        assert batch.damaged == []
        records = reader.photos(reader.ids)
        return {
            str(record.path): (record.id, encoded.tobytes())
            for record, encoded in zip(records, batch.encoded, strict=True)
        }


def layout(index: Path) -> list[int]:
    """The number of rows in each map shard and in each file of the photo table."""
    manifest = read_manifest(index)
    return [file.rows for file in (*manifest.shards, *manifest.photos)]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--kills", type=int, default=100, help="processes to kill")
    given = parser.parse_args()
    small = patch.object(shards, "SHARD_BYTES", SMALL_SHARD)
    with TemporaryDirectory(prefix="waldo-bench-") as folder, small:
        kill(Path(folder).resolve(), given.kills)


if __name__ == "__main__":
    main()
