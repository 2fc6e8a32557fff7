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
from indexer.build import Progress, index_photos
from indexer.codec import DEFAULT_QUALITY
from indexer.extractor import Extractor
from indexer.reader import IndexReader
from search.evaluation.absence import absence
from search.evaluation.baselines import HistogramExtractor, PatchExtractor
from search.evaluation.benchmark import Benchmark
from search.evaluation.methods import (
    DirectMethod,
    MapMethod,
    MapSource,
    Method,
    StoreMethod,
    WordMethod,
)
from search.evaluation.metrics import (
    average_precision,
    bootstrap_interval,
    found_within,
    recall_at,
)
from search.query import Query
from search.reference import Reference, make_reference
from search.rerank import score_maps
from search.scores import ScoringReference

# Gallery photos whose maps are in memory at once.
_GALLERY_BATCH = 64


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
    quality: str = DEFAULT_QUALITY,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[MethodResult]:
    """Score the whole gallery for every query by every method.

    Features go through a real index in a temporary folder, one for each kind of maps; quality: the
    codec's, for the model's maps (baselines' maps are kept as they are). Raises
    WaldoError where a gallery photo cannot be read: a number without it would be another number.
    """
    results: dict[str, NDArray[np.float32]] = {}
    by_maps: dict[MapSource, list[StoreMethod]] = {}
    for method in methods:
        if isinstance(method, DirectMethod):
            results[method.name] = method.scores(benchmark)
        else:
            by_maps.setdefault(method.maps, []).append(method)
    for maps, chosen in by_maps.items():
        source = _extractor_of(maps, extractor)
        kept = "none" if maps in ("rgb-patches", "rgb-histogram") else quality
        with tempfile.TemporaryDirectory(prefix="waldo-evaluate-") as folder:
            results.update(_score_all(benchmark, chosen, source, kept, Path(folder), on_progress))
    return [_result(benchmark, method, results[method.name]) for method in methods]


def summary(
    benchmark: Benchmark, result: MethodResult, default: MethodResult | None = None
) -> dict[str, Any]:
    """mAP with its 95 % bootstrap interval, Recall@1/5/10, the part of the relevant photos that is
    among the best 5 % of the gallery, mAP among the photos of the query's class alone, what
    confidence is worth (`absence`), and mAP over the confusable queries and those of each level.

    default: the product's own method; what this one has more than it is added, query by query, with
    the interval of that difference.
    """
    recalls: dict[str, float] = {}
    ranked = [
        (query.relevant[~query.ignored], scores[~query.ignored])
        for query, scores in zip(benchmark.queries, result.scores, strict=True)
    ]
    for k in (1, 5, 10):
        recalls[f"Recall@{k}"] = float(np.mean([recall_at(*query, k) for query in ranked]))
    recalls["found_in_5_percent"] = float(np.mean([found_within(*query, 0.05) for query in ranked]))
    precisions = np.array(result.average_precisions)
    confusable = precisions[[asked.confusable for asked in benchmark.queries]]
    return {
        **_mean_precision(precisions),
        **recalls,
        "mAP_same_class": _same_class(benchmark, result),
        "confidence": absence(benchmark, result.scores),
        "mAP_confusable": float(np.mean(confusable)) if len(confusable) else None,
        "levels": {
            level: _mean_precision(precisions[[q.level == level for q in benchmark.queries]])
            for level in benchmark.levels
        },
        **({} if default is None else _difference(precisions, default)),
    }


def _same_class(benchmark: Benchmark, result: MethodResult) -> float | None:
    """mAP where knowing the class helps nobody: other photos are left out of the ranking."""
    if benchmark.gallery_classes is None:
        return None
    precisions = []
    for asked, scores in zip(benchmark.queries, result.scores, strict=True):
        shown = np.array([asked.query.class_name in names for names in benchmark.gallery_classes])
        ranked = shown & ~asked.ignored
        precisions.append(average_precision(asked.relevant[ranked], scores[ranked]))
    return float(np.mean(precisions))


def _difference(precisions: NDArray[np.float64], default: MethodResult) -> dict[str, Any]:
    more = precisions - np.array(default.average_precisions)
    return {
        "more_than_default": float(np.mean(more)),
        "more_than_default_interval": list(bootstrap_interval(more)),
    }


def _mean_precision(precisions: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "mAP": float(np.mean(precisions)),
        "mAP_interval": list(bootstrap_interval(precisions)),
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
    methods: list[StoreMethod],
    extractor: Extractor,
    quality: str,
    folder: Path,
    on_progress: Callable[[Progress], None] | None,
) -> dict[str, NDArray[np.float32]]:
    """Each method's scores, (n_queries, n_gallery), over one kind of maps."""
    listing = folder / "gallery.txt"
    listing.write_text("\n".join(str(path.resolve()) for path in benchmark.gallery))
    index_photos([listing], folder / "index", extractor, quality=quality, on_progress=on_progress)
    with IndexReader.open(folder / "index") as reader:
        places = {record.path: record.id for record in reader.photos(reader.ids)}
        ids = np.array([_id_of(path, places) for path in benchmark.gallery], dtype=np.int64)
        device = _device_of(extractor)
        scores = {
            method.name: np.empty((len(benchmark.queries), len(ids)), dtype=np.float32)
            for method in methods
        }
        single = extractor
        if isinstance(extractor, FeatureExtractor):
            # Queries come one by one: nothing is gained by filling a batch up for each.
            single = FeatureExtractor(extractor.model, extractor.settings, batch_size=1)
        asked = {
            by_class: [
                _reference(method.asks(query.query), single).for_scoring(device)
                for query in benchmark.queries
            ]
            for by_class, method in {method.by_class: method for method in methods}.items()
        }
        for method in methods:
            if isinstance(method, WordMethod):
                for row, reference in enumerate(asked[method.by_class]):
                    scores[method.name][row] = _word_scores(reader, reference, ids)
        by_map = [method for method in methods if isinstance(method, MapMethod)]
        # The gallery's maps are read once, a batch at a time, and all questions put to each batch.
        for start in range(0, len(ids), _GALLERY_BATCH):
            columns = slice(start, start + _GALLERY_BATCH)
            maps = reader.read_maps(ids[columns])
            if maps.damaged:
                raise WaldoError(maps.damaged[0])
            for method in by_map:
                for row, reference in enumerate(asked[method.by_class]):
                    found = score_maps(reader, maps, reference, method.score)
                    scores[method.name][row, columns] = found
    return scores


def _word_scores(
    reader: IndexReader, reference: ScoringReference, ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Recall's score of each photo by visual words, (n,); ids: (n,), the whole gallery."""
    assert reader.word_recall is not None  # the index was made a moment ago
    cells = reference.tokens.cpu().numpy()
    found, scores = reader.word_recall.search(lambda codec: reader.words_in(cells, codec), len(ids))
    order = np.argsort(found)
    ranked: NDArray[np.float32] = scores[order][np.searchsorted(found[order], ids)]
    return ranked


def _reference(query: Query, extractor: Extractor) -> Reference:
    try:
        return make_reference(query, extractor)
    except RegionError as error:
        raise WaldoError(f"{query.photo}: {error}") from None


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


def _result(benchmark: Benchmark, method: Method, scores: NDArray[np.float32]) -> MethodResult:
    precisions = []
    for query, row in zip(benchmark.queries, scores, strict=True):
        ranked = ~query.ignored
        precisions.append(average_precision(query.relevant[ranked], row[ranked]))
    return MethodResult(method, scores, precisions)
