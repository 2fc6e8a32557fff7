"""Running methods over a benchmark."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import RegionError, WaldoError
from features.extractor import FeatureExtractor
from features.photo import load_model_input
from indexer.build import Progress, index_photos
from indexer.extractor import Extractor
from indexer.reader import IndexReader
from search.clock import Clock
from search.evaluation.baselines import HistogramExtractor, PatchExtractor
from search.evaluation.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.methods import MapSource, Method
from search.evaluation.metrics import average_precision, bootstrap_interval, recall_at
from search.reference import Reference
from search.rerank import rerank


@dataclass(frozen=True)
class MethodResult:
    """One method's outcome on every query.

    scores: (n_queries, n_gallery) float32, higher is better. average_precisions: (n_queries,).
    """

    method: Method
    scores: NDArray[np.float32]
    average_precisions: list[float]


def run_methods(
    benchmark: Benchmark,
    methods: list[Method],
    extractor: FeatureExtractor,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[MethodResult]:
    """Score the whole gallery for every query by every method.

    Features go through a real index in a temporary folder, one for each kind of maps. Raises
    WaldoError where a gallery photo cannot be read: a number without it would be another number.
    """
    results: dict[str, NDArray[np.float32]] = {}
    for maps in dict.fromkeys(method.maps for method in methods):
        chosen = [method for method in methods if method.maps == maps]
        if maps == "none":
            results.update({method.name: _oracle(benchmark) for method in chosen})
            continue
        source = _extractor_of(maps, extractor)
        with tempfile.TemporaryDirectory(prefix="waldo-evaluate-") as folder:
            results.update(_score_all(benchmark, chosen, source, Path(folder), on_progress))
    return [_result(benchmark, method, results[method.name]) for method in methods]


def summary(benchmark: Benchmark, result: MethodResult) -> dict[str, Any]:
    """mAP with its 95 % bootstrap interval, Recall@1/5/10, and mAP over confusable queries."""
    recalls: dict[str, float] = {}
    for k in (1, 5, 10):
        found = []
        for query, scores in zip(benchmark.queries, result.scores, strict=True):
            ranked = ~query.ignored
            found.append(recall_at(query.relevant[ranked], scores[ranked], k))
        recalls[f"Recall@{k}"] = float(np.mean(found))
    confusable = [
        value
        for query, value in zip(benchmark.queries, result.average_precisions, strict=True)
        if query.confusable
    ]
    return {
        "mAP": float(np.mean(result.average_precisions)),
        "mAP_interval": list(bootstrap_interval(result.average_precisions)),
        **recalls,
        "mAP_confusable": float(np.mean(confusable)) if confusable else None,
    }


def _extractor_of(maps: MapSource, extractor: FeatureExtractor) -> Extractor:
    if maps == "rgb-patches":
        return PatchExtractor()
    if maps == "rgb-histogram":
        return HistogramExtractor()
    if maps == "random-weights":
        twin = extractor.model.with_random_weights()
        return FeatureExtractor(twin, extractor.settings, extractor.batch_size)
    return extractor


def _score_all(
    benchmark: Benchmark,
    methods: list[Method],
    extractor: Extractor,
    folder: Path,
    on_progress: Callable[[Progress], None] | None,
) -> dict[str, NDArray[np.float32]]:
    """Each method's scores, (n_queries, n_gallery), over one kind of maps."""
    listing = folder / "gallery.txt"
    listing.write_text("\n".join(str(path.resolve()) for path in benchmark.gallery))
    index_photos([listing], folder / "index", extractor, batch_size=8, on_progress=on_progress)
    with IndexReader.open(folder / "index") as reader:
        places = {record.path: record.id for record in reader.photos(reader.ids)}
        ids = np.array([_id_of(path, places) for path in benchmark.gallery], dtype=np.int64)
        mean = reader.mean_pooled[: extractor.dim]
        device = _device_of(extractor)
        scores = {
            method.name: np.empty((len(benchmark.queries), len(ids)), dtype=np.float32)
            for method in methods
        }
        single = extractor
        if isinstance(extractor, FeatureExtractor):
            # Queries come one by one: nothing is gained by filling a batch up for each.
            single = FeatureExtractor(extractor.model, extractor.settings, batch_size=1)
        for row, query in enumerate(benchmark.queries):
            prepared = _reference(query, single).for_scoring(mean, device)
            for method in methods:
                assert method.score is not None
                scored = rerank(reader, ids, prepared, method.score, Clock())
                if scored.damaged:
                    raise WaldoError(scored.damaged[0])
                scores[method.name][row] = scored.scores
    return scores


def _reference(query: BenchmarkQuery, extractor: Extractor) -> Reference:
    photo = load_model_input(query.photo, extractor.image_size, extractor.grid)
    [maps] = extractor.extract([photo])
    vector = None
    if isinstance(extractor, FeatureExtractor) and query.class_name is not None:
        try:
            found = extractor.model.class_vector(query.class_name, extractor.settings.block)
            vector = found.cpu().numpy()
        except RegionError as error:
            raise WaldoError(f"{query.photo}: {error}") from None
    elif query.class_name is not None:
        vector = np.zeros(extractor.dim, dtype=np.float32)
    return Reference(maps, query.region(maps), vector)


def _device_of(extractor: Extractor) -> Any:
    import torch

    if isinstance(extractor, FeatureExtractor):
        return extractor.model.device
    return torch.device("cpu")


def _id_of(path: Path, places: dict[Path, int]) -> int:
    try:
        return places[path.resolve()]
    except KeyError:
        raise WaldoError(f"{path}: cannot be read; a benchmark needs all its photos") from None


def _oracle(benchmark: Benchmark) -> NDArray[np.float32]:
    """1 for photos of the query's class, else 0."""
    classes = benchmark.gallery_classes
    assert classes is not None  # `select_methods` saw to that
    return np.array(
        [[name == query.class_name for name in classes] for query in benchmark.queries],
        dtype=np.float32,
    )


def _result(benchmark: Benchmark, method: Method, scores: NDArray[np.float32]) -> MethodResult:
    precisions = []
    for query, row in zip(benchmark.queries, scores, strict=True):
        ranked = ~query.ignored
        precisions.append(average_precision(query.relevant[ranked], row[ranked]))
    return MethodResult(method, scores, precisions)
