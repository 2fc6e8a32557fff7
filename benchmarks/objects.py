"""How well recurring objects are found (`waldo objects`), and what it costs.

    python benchmarks/objects.py --folders DREAMBOOTH --scenes data/scenes
    python benchmarks/objects.py --photos 10000

Photos of labelled collections are grouped: by `waldo objects`, by HDBSCAN over pooled vectors of
the same maps and over RGB histograms (Campello et al., 2013; noise is a photo alone), each photo
alone, and by the true class. BCubed precision, recall and F and pairwise F are those of
`search.evaluation.metrics.clustering`, with 95 % bootstrap intervals over photos. Groups by class
need classes (folders: classes.json). --photos: the time that synthetic photos take, which show
nothing twice.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from harness import add_model_options, make_parser, peak_memory, percent
from numpy.typing import NDArray
from synthetic import PixelMaps, make_photos

from features.extractor import FeatureExtractor
from features.photo import load_photo
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.store.photos import read_pooled
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import Benchmark, read_json
from search.evaluation.metrics.clustering import score_groups
from search.recurring.linking import link_photos
from search.recurring.recurrence import recurring_objects

Groups = list[set[int]]


def labels_of(protocol: str, root: Path, benchmark: Benchmark) -> list[set[str]]:
    """What each photo of the gallery shows."""
    if protocol == "folders":
        return [{photo.parent.name} for photo in benchmark.gallery]
    shown = [entry["objects"] for entry in read_json(root / "labels.json")["gallery"]]
    # `data/scenes/generate.py` takes the last picture of a class for an object that merely lies
    # about ("other-1"), and look-alikes of the level "easy" are numbered up to that picture.
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

    return [{identity(item) for item in objects} for objects in shown]


def by_hdbscan(vectors: NDArray[np.float32]) -> Groups:
    """Groups of two photos or more; (n, d) vectors are scaled to length 1."""
    from sklearn.cluster import HDBSCAN

    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = HDBSCAN(min_cluster_size=2, copy=True).fit_predict(units)
    return [set(np.flatnonzero(numbers == n).tolist()) for n in range(numbers.max() + 1)]


def histogram(photo: Path) -> NDArray[np.float32]:
    """The RGB histogram of a photo with 8 x 8 x 8 bins, (512,), its square root."""
    image = load_photo(photo, at_least=224).image.convert("RGB")
    levels = np.asarray(image).reshape(-1, 3) // 32
    counts = np.bincount(levels @ np.array([64, 8, 1]), minlength=512)
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def by_class(benchmark: Benchmark) -> Groups:
    groups: dict[str, set[int]] = defaultdict(set)
    for number, classes in enumerate(benchmark.gallery_classes or []):
        for name in classes:
            groups[name].add(number)
    return [group for group in groups.values() if len(group) > 1]


def measure(protocol: str, root: Path, extractor: FeatureExtractor) -> None:
    benchmark = read_benchmark(protocol, root)
    labels = labels_of(protocol, root, benchmark)
    place = {photo.resolve(): number for number, photo in enumerate(benchmark.gallery)}
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        index_photos(benchmark.gallery, index, extractor, batch_size=extractor.batch_size)
        begin = time.perf_counter()
        link_photos(index)
        seconds = time.perf_counter() - begin
        with IndexReader.open(index) as reader:
            found = [
                {place[photo.record.path.resolve()] for photo in one.photos}
                for one in recurring_objects(reader)
            ]
            vectors = {}
            for file in reader.manifest.photos:
                for number, vector in zip(*read_pooled(index / file.name, reader.dim), strict=True):
                    vectors[int(number)] = vector[: reader.dim]
            records = reader.photos(reader.ids)
            order = [place[record.path.resolve()] for record in records]
            pooled = np.empty((len(order), reader.dim), np.float32)
            pooled[order] = [vectors[record.id] for record in records]
    every = {
        "waldo objects": found,
        "pooled vectors, HDBSCAN": by_hdbscan(pooled - pooled.mean(axis=0)),
        "RGB histograms, HDBSCAN": by_hdbscan(np.stack([histogram(p) for p in benchmark.gallery])),
        "each photo alone": [],
        "by true class": by_class(benchmark),
    }
    print(f"\n{protocol} {root}: {len(labels)} photos, {seconds:.0f} s")
    print("groups | | BCubed precision | recall | F | pairwise F | placed")
    for name, groups in every.items():
        scores = score_groups(groups, labels)
        print(
            f"{name} | {len(groups)} | {percent(scores.precisions.tolist())} | "
            f"{percent(scores.recalls[np.isfinite(scores.recalls)].tolist())} | "
            f"{100 * scores.f:.1f} | {100 * scores.pair_f:.1f} | {100 * scores.placed:.0f}"
        )


def cost(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        index, extractor = Path(folder) / "index", PixelMaps()
        index_photos(make_photos(Path(folder) / "photos", count), index, extractor)
        begin = time.perf_counter()
        link_photos(index)
        print(f"{count} photos: {time.perf_counter() - begin:.0f} s, {peak_memory():.0f} MiB")
        begin = time.perf_counter()
        with IndexReader.open(index) as reader:
            found = recurring_objects(reader)
        print(f"{len(found)} objects: {time.perf_counter() - begin:.1f} s")


def main() -> None:
    parser: argparse.ArgumentParser = make_parser(__doc__)
    add_model_options(parser)
    parser.add_argument("--folders", type=Path, action="append", default=[])
    parser.add_argument("--scenes", type=Path, action="append", default=[])
    parser.add_argument("--photos", type=int, action="append", default=[])
    given = parser.parse_args()
    if given.folders or given.scenes:
        extractor = FeatureExtractor.load(given.model, given.device)
        for protocol, roots in (("folders", given.folders), ("scenes", given.scenes)):
            for root in roots:
                measure(protocol, root, extractor)
    for count in given.photos:
        cost(count)


if __name__ == "__main__":
    main()
