"""What workers on a Ray cluster cost, and how fast one and two are beside a plain run.

    python benchmarks/ray_workers.py [--photos 120] [--parts 8]

Prints seconds until a cluster of this machine is there, until a worker answers and until it has
loaded the model, milliseconds of a call, and MiB that Ray's processes and a worker with its model
do not share with others; then seconds of a whole run, and photos per second from its first photo to
its last, of a plain run, and of one and two workers on a cluster of two nodes with one core each;
and of a search seconds from opening the fleet to the first answer, and milliseconds of a later one,
without workers and with two. Everybody computes with one thread and the kernel float32. The fleet's
codec is fitted before. Needs the extra ray, two cores and Linux.
"""

import os
import shutil
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from harness import add_model_options, make_parser, median_seconds, seconds_of

from features.models import find_extractor
from indexer.fleet.fleet_build import index_collection
from indexer.ingest.progress import Progress
from indexer.ray_cluster import RayCluster
from search import Query, open_index

DEMO = Path(__file__).parents[1] / "data" / "demo" / "photos"
STORE_BYTES = 80_000_000
# The codec is fitted to so many photos; the others are extracted in the runs.
FIRST = 8


class Holder:
    """A worker that holds a model."""

    def process(self) -> int:
        return os.getpid()

    def load(self, model: str, device: str) -> None:
        self.extractor = find_extractor(model, device)
        self.extractor.get_ready()


def own_memory(process: int) -> float:
    """Memory of a process that it does not share with others, MiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    kinds = ("Private_Clean:", "Private_Dirty:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that these have started."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (task / "children").read_text(encoding="utf-8").split()):
            found += [child, *descendants(child)]
    return found


def measure_overheads(model: str, device: str) -> None:
    import ray

    options = {"object_store_memory": STORE_BYTES, "log_to_driver": False}
    started = seconds_of(lambda: ray.init(num_cpus=2, include_dashboard=False, **options))
    rays = sum(map(own_memory, descendants(os.getpid())))
    before = time.perf_counter()
    actor = ray.remote(num_cpus=1, max_concurrency=2)(Holder).remote()
    process = ray.get(actor.process.remote())
    hired = time.perf_counter() - before
    loaded = seconds_of(lambda: ray.get(actor.load.remote(model, device)))
    call = median_seconds(lambda: ray.get(actor.process.remote()), 50)
    print(f"Ray's start {started:.1f} s, a worker {hired:.1f} s, its model {loaded:.1f} s")
    print(f"a call {1000 * call:.2f} ms")
    print(f"Ray's processes {rays:.0f} MiB, a worker {own_memory(process):.0f} MiB", flush=True)
    ray.shutdown()


def measure_run(photos: Path, begun: Path, options: Namespace, cluster: RayCluster | None) -> str:
    """Seconds of a run that brings a copy of a fleet up to date, and photos per second."""
    fleet = begun.with_name("fleet")
    shutil.copytree(begun, fleet)
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        if progress.new:
            seen.append((time.perf_counter(), progress.new))

    extractor = find_extractor(options.model, options.device, 8)
    report = index_collection(
        *([photos], fleet, extractor), batch_size=8, on_progress=note, cluster=cluster
    )
    shutil.rmtree(fleet)
    (first, some), (last, all_new) = seen[0], seen[-1]
    return f"{report.seconds:.1f} | {(all_new - some) / (last - first):.2f}"


def measure_search(fleet: Path, photo: Path, device: str, cluster: RayCluster | None) -> str:
    """Seconds from opening a fleet to the first answer, and milliseconds of a later search."""
    started = time.perf_counter()
    with open_index(fleet, device, cluster=cluster) as index:
        query = Query(photo, box=(30, 20, 200, 150))
        index.search(query)
        first = time.perf_counter() - started
        later = median_seconds(lambda: index.search(query), 5)
    return f"{first:.1f} | {1000 * later:.0f}"


def main() -> None:
    parser = make_parser(__doc__)
    add_model_options(parser)
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--parts", type=int, default=8)
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0", WALDO_KERNEL="float32")
    import torch
    from ray.cluster_utils import Cluster

    torch.set_num_threads(1)
    measure_overheads(options.model, options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        names = sorted(DEMO.iterdir())
        extractor = find_extractor(options.model, options.device, 8)
        for number in range(options.photos):
            if number == FIRST:
                source, begun = folder / "photos", folder / "begun"
                index_collection([source], begun, extractor, parts=options.parts)
            copy = folder / "photos" / f"{number:05d}.jpg"
            content = names[number % len(names)].read_bytes()
            copy.write_bytes(content + bytes(number))  # another content, of another size
        print("| seconds | photos/s\n" + "plain run | ", end="")
        print(measure_run(folder / "photos", folder / "begun", options, None), flush=True)
        cluster = Cluster()
        cluster.add_node(num_cpus=0, object_store_memory=STORE_BYTES, include_dashboard=False)
        for workers in (1, 2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            there = RayCluster(cluster.address, options.device, workers)
            took = measure_run(folder / "photos", folder / "begun", options, there)
            print(f"{workers} worker{'s' * (workers > 1)} | {took}", flush=True)
        print("| first answer, s | later search, ms")
        index_collection([folder / "photos"], folder / "begun", extractor)
        for told, asked in (("no workers", None), ("2 workers", there)):
            took = measure_search(folder / "begun", copy, options.device, asked)
            print(f"{told} | {took}", flush=True)
        cluster.shutdown()


if __name__ == "__main__":
    main()
