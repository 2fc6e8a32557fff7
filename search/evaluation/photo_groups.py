"""How well recurring objects are found: photos are grouped by `waldo objects` and by baselines."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.models import MapExtractor
from features.photo import load_photo
from indexer.ingest.progress import Progress
from indexer.reader import IndexReader
from indexer.store.photos import read_pooled
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.benchmarks.shown_objects import ShownObjects
from search.evaluation.by_object import choose_methods
from search.evaluation.galleries import Indexing, index_gallery
from search.evaluation.methods.methods import MODEL
from search.evaluation.metrics.clustering import ClusteringScores, score_groups
from search.evaluation.metrics.ranking import bootstrap_interval
from search.evaluation.report import versions
from search.evaluation.steps import OnStep
from search.recurring.linking import link_photos
from search.recurring.recurrence import recurring_objects

# Numbers of photos, as `score_groups` takes them.
Groups = list[set[int]]

# Bins of each colour in a histogram.
_BINS = 8


@dataclass(frozen=True)
class Grouping:
    """What methods group. place: the number of each photo, by its resolved path."""

    photos: ShownObjects
    reader: IndexReader
    place: dict[Path, int]


def by_links(grouping: Grouping) -> Groups:
    """The objects that `waldo objects` lists."""
    return [
        {grouping.place[photo.record.path.resolve()] for photo in one.photos}
        for one in recurring_objects(grouping.reader)
    ]


def by_pooled(grouping: Grouping) -> Groups:
    """HDBSCAN over the mean appearance of photos, centred on the collection's mean."""
    reader = grouping.reader
    vectors: dict[int, NDArray[np.float32]] = {}
    for file in reader.manifest.photos:
        rows = read_pooled(reader.index_dir / file.name, reader.dim)
        vectors.update(zip(rows[0].tolist(), rows[1], strict=True))
    pooled = np.empty((len(grouping.place), reader.dim), np.float32)
    for record in reader.photos(reader.ids):
        pooled[grouping.place[record.path.resolve()]] = vectors[record.id][: reader.dim]
    return _hdbscan(pooled - pooled.mean(axis=0))


def by_colour(grouping: Grouping) -> Groups:
    """HDBSCAN over square roots of RGB histograms of photos, with 8 x 8 x 8 bins."""
    return _hdbscan(np.stack([_histogram(p) for p in grouping.photos.benchmark.gallery]))


def alone(grouping: Grouping) -> Groups:
    """No groups at all."""
    return []


def by_class(grouping: Grouping) -> Groups:
    """The photos of each true class."""
    groups: dict[str, set[int]] = defaultdict(set)
    for number, classes in enumerate(grouping.photos.benchmark.gallery_classes or []):
        for name in classes:
            groups[name].add(number)
    return [group for group in groups.values() if len(group) > 1]


GROUP_METHODS: dict[str, Callable[[Grouping], Groups]] = {
    "objects": by_links,
    "pooled-hdbscan": by_pooled,
    "rgb-hdbscan": by_colour,
    "alone": alone,
    "by-class": by_class,
}


def select_group_methods(
    names: Sequence[str], photos: ShownObjects
) -> dict[str, Callable[[Grouping], Groups]]:
    """Methods by name; without names, all that can run here.

    Raises WaldoError for an unknown name, and for a method that lacks the classes of photos or
    scikit-learn.
    """
    chosen = choose_methods(names, GROUP_METHODS)
    lacking = {}
    if photos.benchmark.gallery_classes is None:
        lacking["by-class"] = "the class of every photo (folders: classes.json)"
    if find_spec("sklearn") is None:
        reason = "scikit-learn: `pip install scikit-learn`"
        lacking |= dict.fromkeys(("pooled-hdbscan", "rgb-hdbscan"), reason)
    for name in names:
        if name in lacking:
            raise WaldoError(f"method {name}: needs {lacking[name]}")
    return {name: method for name, method in chosen.items() if name not in lacking}


def evaluate_groups(
    protocol: str,
    photos: ShownObjects,
    extractor: MapExtractor,
    methods: dict[str, Callable[[Grouping], Groups]],
    work: Path,
    quality: str,
    on_progress: Callable[[Progress], None] | None = None,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """The report, JSON-ready; metrics are fractions, 0..1.

    work, quality, on_progress: as for `run_methods`. Raises WaldoError where a photo cannot be
    read.
    """
    benchmark = photos.benchmark
    how = Indexing(extractor, work, quality, on_progress=on_progress)
    index = index_gallery(benchmark.protocol, FilesOnDisk(benchmark.gallery), MODEL, extractor, how)
    link_photos(index, str(extractor.device), on_step)
    place = {photo.resolve(): number for number, photo in enumerate(benchmark.gallery)}
    with IndexReader.open(index) as reader:
        if reader.n_photos < len(place):
            raise WaldoError(f"{len(place) - reader.n_photos} photos cannot be read; mend them")
        grouping = Grouping(photos, reader, place)
        groups = {name: method(grouping) for name, method in methods.items()}
    return {
        "protocol": protocol,
        "model": extractor.fingerprint(),
        "codec": quality,
        "versions": versions(),
        "n_queries": len(photos.names),
        "n_gallery": len(benchmark.gallery),
        "objects": photos.names,
        "methods": {
            name: {"groups": len(found), **_as_json(score_groups(found, photos.labels))}
            for name, found in groups.items()
        },
    }


def _as_json(scores: ClusteringScores) -> dict[str, Any]:
    known = scores.recalls[np.isfinite(scores.recalls)]
    return {
        "bcubed_precision": scores.precision,
        "bcubed_precision_interval": bootstrap_interval(scores.precisions),
        "bcubed_recall": scores.recall,
        "bcubed_recall_interval": bootstrap_interval(known),
        "bcubed_f": scores.f,
        "pair_precision": _number(scores.pair_precision),
        "pair_recall": _number(scores.pair_recall),
        "pair_f": _number(scores.pair_f),
        "placed": scores.placed,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _hdbscan(vectors: NDArray[np.float32]) -> Groups:
    """Groups of two photos or more, by HDBSCAN (Campello et al., PAKDD 2013). vectors: (n, d), are
    scaled to length 1. Noise is in no group.
    """
    from sklearn.cluster import HDBSCAN

    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    numbers = HDBSCAN(min_cluster_size=2, copy=True).fit_predict(units)
    return [set(np.flatnonzero(numbers == n).tolist()) for n in range(int(numbers.max()) + 1)]


def _histogram(photo: Path) -> NDArray[np.float32]:
    image = load_photo(photo, at_least=224).image.convert("RGB")
    levels = np.asarray(image).reshape(-1, 3) // (256 // _BINS)
    counts = np.bincount(levels @ np.array([_BINS**2, _BINS, 1]), minlength=_BINS**3)
    return np.sqrt(counts / counts.sum()).astype(np.float32)
