"""Extraction beside a process that keeps one core busy.

    python benchmarks/contended.py [--photos 48] [--runs 3]

Prints wall and CPU milliseconds per photo, of extraction and of indexing with all its steps, on a
quiet machine and beside a busy loop on one core, for three settings of OpenMP: its own waiting,
which spins at barriers; passive waiting, as the command line sets it; and one thread. Each run is a
process of its own, and the settings take turns. The last column is the time beside the busy loop
over that of one thread on a quiet machine. Needs Linux.
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import add_model_options, make_parser

from features.extractor import FeatureExtractor
from features.photo import load_model_input
from indexer.ingest.build import index_photos
from search.commands.app import PASSIVE_WAITING

PHOTOS = Path(__file__).parents[1] / "data" / "demo" / "photos"
SETTINGS: dict[str, dict[str, str]] = {
    "OpenMP's own waiting": {},
    "passive waiting": PASSIVE_WAITING,
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WORKS = ("extract 1", "extract 8", "index 8")


def spin() -> None:
    """Keep the first core of this process busy until killed."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        pass


@contextmanager
def busy_core() -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def extract(extractor: FeatureExtractor, count: int) -> int:
    """Extract photos, batch by batch; returns how many."""
    size = extractor.batch_size
    inputs = [
        load_model_input(path, extractor.image_size, extractor.grid)
        for path in sorted(PHOTOS.rglob("*.jpg"))[:size]
    ]
    batches = max(1, count // size)
    for _ in range(batches):
        extractor.extract(inputs)
    return batches * size


def index(extractor: FeatureExtractor, count: int) -> int:
    """Index the first photos of the sample collection, decoding included; returns how many."""
    paths = sorted(PHOTOS.rglob("*.jpg"))[:count]
    with TemporaryDirectory() as folder:
        return index_photos(paths, Path(folder) / "index", extractor).new


def run(work: str, model: str, device: str, count: int) -> None:
    """Print wall and CPU seconds per photo of one of WORKS, as JSON."""
    name, batch_size = work.split()
    extractor = FeatureExtractor.load(model, device, int(batch_size))
    extract(extractor, 1)
    wall, cpu = time.perf_counter(), time.process_time()
    photos = {"extract": extract, "index": index}[name](extractor, count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps([wall / photos, cpu / photos]))


def measure(arguments: list[str], setting: dict[str, str]) -> tuple[float, float]:
    """What `run` prints in a process with a setting of OpenMP."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, *arguments]
    found = subprocess.run(
        command, env=inherited | setting, check=True, capture_output=True, text=True
    )
    wall, cpu = json.loads(found.stdout)
    return wall, cpu


def compare(arguments: list[str], runs: int) -> None:
    """Print the lines of all settings, quiet and beside a busy loop; medians of the runs."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in SETTINGS}
    for _ in range(runs):
        for name, setting in SETTINGS.items():
            quiet = measure(arguments, setting)
            with busy_core():
                found[name].append((*quiet, *measure(arguments, setting)))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in found.items()
    }
    for name, (quiet, quiet_cpu, beside, beside_cpu) in medians.items():
        print(
            f"  {name:<22}{1000 * quiet:8.1f}{1000 * quiet_cpu:8.1f}{1000 * beside:12.1f}"
            f"{1000 * beside_cpu:8.1f}{beside / medians['one thread'][0]:14.2f}",
            flush=True,
        )


def main() -> None:
    parser = make_parser(__doc__)
    add_model_options(parser)
    parser.add_argument("--photos", type=int, default=48, help="photos per run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", choices=WORKS, help="one run, printed as JSON")
    given = parser.parse_args()
    if given.work:
        run(given.work, given.model, given.device, given.photos)
        return
    print(
        f"{'ms per photo':<24}{'quiet':>8}{'CPU':>8}{'beside':>12}{'CPU':>8}{'of one thread':>14}"
    )
    options = ["--model", given.model, "--device", given.device, "--photos", str(given.photos)]
    for work in WORKS:
        print(f"{work} at a time")
        compare(["--work", work, *options], given.runs)


if __name__ == "__main__":
    main()
