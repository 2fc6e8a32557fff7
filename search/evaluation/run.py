"""Running methods over a benchmark."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.photo import load_photo
from indexer.build import Progress, index_photos
from indexer.codec import DEFAULT_QUALITY
from indexer.extractor import Extractor
from indexer.reader import IndexReader
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
from search.reference import make_reference
from search.rerank import to_candidates
from search.scores import ScoringReference

# What is being done, how much of it is done, and how much there is.
OnStep = Callable[[str, int, int], None]

# Gallery photos whose maps are in memory at once.
_GALLERY_BATCH = 64


@dataclass(frozen=True)
class MethodResult:
    """One method's outcome on every query.

    scores: (n_queries, n_gallery) float32, higher is better.
    """

    method: Method
    scores: NDArray[np.float32]


def run_methods(
    benchmark: Benchmark,
    methods: list[Method],
    extractor: FeatureExtractor,
    quality: str = DEFAULT_QUALITY,
    on_progress: Callable[[Progress], None] | None = None,
    on_step: OnStep | None = None,
) -> list[MethodResult]:
    """Score the whole gallery for every query by every method.

    Features go through a real index in a temporary folder, one for each kind of maps; quality: the
    codec's, for the model's maps (baselines' maps are kept as they are). on_progress is told how
    far indexing is, on_step all else that takes its time. Raises WaldoError where a photo cannot be
    read: a number without it would be another number.
    """
    tell = on_step or _tell_nobody
    with tempfile.TemporaryDirectory(prefix="waldo-evaluate-") as folder:
        if benchmark.cut_queries:
            benchmark = _with_cut_queries(benchmark, Path(folder))
        results: dict[str, NDArray[np.float32]] = {}
        by_maps: dict[MapSource, list[StoreMethod]] = {}
        for method in methods:
            if isinstance(method, DirectMethod):
                tell(f"scoring by {method.name}", 0, 1)
                results[method.name] = method.scores(benchmark)
            else:
                by_maps.setdefault(method.maps, []).append(method)
        for maps, chosen in by_maps.items():
            source = _extractor_of(maps, extractor)
            kept = "none" if maps in ("rgb-patches", "rgb-histogram") else quality
            with tempfile.TemporaryDirectory(dir=folder) as own:
                found = _score_all(benchmark, chosen, source, kept, Path(own), on_progress, tell)
                results.update(found)
    return [MethodResult(method, results[method.name]) for method in methods]


def _tell_nobody(doing: str, done: int, total: int) -> None:
    pass


def _with_cut_queries(benchmark: Benchmark, folder: Path) -> Benchmark:
    """The same questions by photos that hold nothing but what was in the boxes, as files in a
    folder; the region is the whole of such a photo.
    """
    queries = []
    for number, asked in enumerate(benchmark.queries):
        box, photo = asked.query.box, asked.query.photo
        assert box is not None  # a benchmark whose queries are cut asks by boxes
        x0, y0, x1, y1 = map(round, box)
        # Not compressed: a photo's bytes seed its noise, and compressors differ by version.
        path = folder / f"{number:04}-{photo.stem}.bmp"
        load_photo(photo).image.crop((x0, y0, x1, y1)).save(path)
        whole = (0.0, 0.0, float(x1 - x0), float(y1 - y0))
        queries.append(replace(asked, query=replace(asked.query, photo=path, box=whole)))
    return replace(benchmark, queries=queries)


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
    tell: OnStep,
) -> dict[str, NDArray[np.float32]]:
    """Each method's scores, (n_queries, n_gallery), over one kind of maps."""
    import torch

    device = _device_of(extractor)
    single = extractor
    if isinstance(extractor, FeatureExtractor):
        # Queries come one by one: nothing is gained by filling a batch up for each.
        single = FeatureExtractor(extractor.model, extractor.settings, batch_size=1)
    # Before the gallery is indexed: what is wrong with a query is told at once.
    n_queries = len(benchmark.queries)
    asked: dict[bool, list[ScoringReference]] = {}
    for by_class, method in {method.by_class: method for method in methods}.items():
        asked[by_class] = []
        for row, query in enumerate(benchmark.queries):
            tell("features of the queries", row, n_queries)
            reference = make_reference(method.asks(query.query), single)
            asked[by_class].append(reference.for_scoring(device))
    listing = folder / "gallery.txt"
    listing.write_text("\n".join(str(path.resolve()) for path in benchmark.gallery))
    index_photos([listing], folder / "index", extractor, quality=quality, on_progress=on_progress)
    with IndexReader.open(folder / "index") as reader:
        places = {record.path: record.id for record in reader.photos(reader.ids)}
        ids = np.array([_id_of(path, places) for path in benchmark.gallery], dtype=np.int64)
        scores = {
            method.name: np.empty((len(benchmark.queries), len(ids)), dtype=np.float32)
            for method in methods
        }
        for method in methods:
            if isinstance(method, WordMethod):
                for row, scoring in enumerate(asked[method.by_class]):
                    tell(f"scoring queries by {method.name}", row, n_queries)
                    scores[method.name][row] = _word_scores(reader, scoring, ids)
        by_map = [method for method in methods if isinstance(method, MapMethod)]
        # The gallery's maps are read once, a batch at a time, and all questions put to each batch.
        for start in range(0, len(ids), _GALLERY_BATCH):
            tell(f"scoring photos for {n_queries} queries", start, len(ids))
            maps = reader.read_maps(ids[start : start + _GALLERY_BATCH])
            if maps.damaged:
                raise WaldoError(maps.damaged[0])
            for rows, part in maps.by_codec():
                with torch.inference_mode():
                    candidates = to_candidates(reader, part, device)
                    for method in by_map:
                        for row, scoring in enumerate(asked[method.by_class]):
                            found = method.score.function(scoring, candidates)
                            scores[method.name][row, start + rows] = found.cpu().numpy()
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
