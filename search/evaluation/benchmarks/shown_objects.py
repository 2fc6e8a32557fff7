"""Photos and the objects that they show, for the protocols that group photos."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from search.evaluation.benchmarks.benchmark import Benchmark, read_json
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.benchmarks.scenes import read_scenes


@dataclass(frozen=True)
class ShownObjects:
    """benchmark: its gallery are the photos. labels: the objects that each photo shows."""

    benchmark: Benchmark
    labels: list[set[str]]

    @property
    def names(self) -> list[str]:
        """All objects, sorted."""
        return sorted(set().union(*self.labels))


def read_folder_objects(root: Path) -> ShownObjects:
    """The photos of `read_folders`; each shows the object of its sub-folder. It raises likewise."""
    benchmark = read_folders(root)
    return ShownObjects(benchmark, [{photo.parent.name} for photo in benchmark.gallery])


def read_scene_objects(root: Path) -> ShownObjects:
    """The gallery of `read_scenes` and all objects in it; raises likewise.

    `data/scenes/generate.py` takes the last picture of a class for an object that merely lies about
    ("other-1"). Easy look-alikes are numbered up to that picture, so the highest number of a class
    is the same object.
    """
    benchmark = read_scenes(root)
    shown = [entry["objects"] for entry in read_json(root / "labels.json")["gallery"]]
    last: dict[str, int] = defaultdict(int)
    for item in (item for objects in shown for item in objects):
        name, _, number = str(item["instance"]).rpartition("-easy-")
        if name:
            last[name] = max(last[name], int(number))

    def identity(item: dict[str, str]) -> str:
        if not item["instance"].startswith("other-"):
            return item["instance"]
        name = item["class"].replace(" ", "-")
        return f"{name}-easy-{last[name]}"

    return ShownObjects(benchmark, [{identity(item) for item in objects} for objects in shown])
