"""Running methods over a benchmark."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.descriptors import ImageDescriptor
from features.diffusion.presets import FeatureSettings
from features.errors import RegionError, WaldoError
from features.extractor import FeatureExtractor
from features.photo import load_photo
from indexer.codec.codec import DEFAULT_QUALITY
from indexer.ingest.build import index_photos
from indexer.ingest.progress import Progress
from indexer.protocols import Extractor
from indexer.reader import IndexReader
from search.clock import Clock
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, with_cut_queries
from search.evaluation.methods.ablation import changed_settings
from search.evaluation.methods.baselines import HistogramExtractor, PatchExtractor
from search.evaluation.methods.methods import (
    DescriptorMethod,
    DirectMethod,
    MapMethod,
    MapSource,
    Method,
    Region,
    RerankedMethod,
    SingleMethod,
    StoreMethod,
    WordMethod,
)
from search.evaluation.run_store import RunScores, gallery_folder, open_scores, run_folder
from search.reference import make_reference
from search.rerank import read_ahead, scoring_blocks
from search.scores import FusionWeights, ScoringReference

# What is being done, how much of it is done, and how much there is.
OnStep = Callable[[str, int, int], None]

# References whose tokens go through one matrix product; more would leave blocks of few photos.
_TOGETHER = 8


@dataclass(frozen=True)
class MethodResult:
    """One method's outcome on every query.

    scores: (n_queries, n_gallery) float32, higher is better; of `run_methods`, read from the disk
    as they are looked at.
    """

    method: Method
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """What a run found.

    results: of each method. seconds: by stage ("indexing", "query features", "fetch") and by method
    (its scoring), those of interrupted runs before it included; what methods share counts for the
    first of them. folder: where the scores lie; deleted when nobody needs them any more.
    """

    results: list[MethodResult]
    seconds: dict[str, float]
    folder: Path


def run_methods(
    benchmark: Benchmark,
    methods: list[Method],
    extractor: FeatureExtractor,
    work: Path,
    quality: str = DEFAULT_QUALITY,
    on_progress: Callable[[Progress], None] | None = None,
    on_step: OnStep | None = None,
    descriptors: Sequence[ImageDescriptor] = (),
    weights: FusionWeights | None = None,
) -> Evaluation:
    """Score the whole gallery for every query by every method.

    work: a folder, made if need be, where the gallery's indexes lie, one for each kind of maps, for
    this run and later ones. Queries are taken in batches, and a batch's scores are kept there too:
    killed at any instant, the same call goes on behind the last batch.

    quality: the codec's, for the model's maps (baselines' maps are kept as they are). on_progress
    is told how far indexing is, on_step all else that takes its time. descriptors: those that the
    methods need (`methods.descriptors_of`). weights: of scores that fuse evidence; None for the
    model's own. Raises WaldoError where a photo cannot be read: a number without it would be
    another number.
    """
    import torch

    tell, parts = on_step or _tell_nobody, _parts(methods)
    by_maps = _by_maps(parts, extractor)
    _check_class_names(benchmark, parts, extractor)
    settings = [extractor.fingerprint(), quality, extractor.model.device.type, torch.__version__]
    settings += [descriptor.fingerprint() for descriptor in descriptors]
    settings += [] if weights is None else [asdict(weights)]
    folder = run_folder(work, benchmark, settings)
    with (
        open_scores(folder, len(benchmark.queries), len(benchmark.gallery)) as kept,
        tempfile.TemporaryDirectory(prefix="waldo-evaluate-") as cut,
    ):
        if benchmark.cut_queries:
            benchmark = with_cut_queries(benchmark, Path(cut))
        for part in parts:
            if isinstance(part, DirectMethod):
                _score_directly(benchmark, part, kept, tell)
        for (maps, wanted), chosen in by_maps.items():
            batches = _missing(chosen, kept)
            if not batches:
                continue
            source = _extractor_of(maps, wanted, extractor)
            stored = "none" if maps in ("rgb-patches", "rgb-histogram") else quality
            place = gallery_folder(work, benchmark, maps, source, stored)
            with kept.clock("indexing"):
                index_photos(
                    [place / "gallery.txt"],
                    place / "index",
                    source,
                    batch_size=extractor.batch_size,
                    quality=stored,
                    descriptors=descriptors if source is extractor else (),
                    on_progress=on_progress,
                )
            with IndexReader.open(place / "index") as reader:
                known = {descriptor.name: descriptor for descriptor in descriptors}
                gallery = _Gallery(reader, _ids(reader, benchmark), source, known, weights)
                for batch, missing in batches.items():
                    kept.keep(batch, gallery.score(benchmark, missing, batch, kept, tell))
        for method in methods:
            if isinstance(method, RerankedMethod):
                _rerank(method, kept)
        results = [MethodResult(method, kept.of(method.name)) for method in methods]
        return Evaluation(results, kept.clock.seconds, folder)


def _parts(methods: list[Method]) -> list[SingleMethod]:
    """The methods that scores are taken from, each once."""
    parts: dict[str, SingleMethod] = {}
    for method in methods:
        if isinstance(method, RerankedMethod):
            parts |= {method.first.name: method.first, method.then.name: method.then}
        else:
            parts[method.name] = method
    return list(parts.values())


def _by_maps(
    parts: list[SingleMethod], extractor: FeatureExtractor
) -> dict[tuple[MapSource, FeatureSettings], list[StoreMethod]]:
    """Methods by whose maps they look at, and the settings by which those are made."""
    by_maps: dict[tuple[MapSource, FeatureSettings], list[StoreMethod]] = {}
    for part in parts:
        if not isinstance(part, DirectMethod):
            settings = changed_settings(part.name, part.changes, extractor)
            by_maps.setdefault((part.maps, settings), []).append(part)
    return by_maps


def _rerank(method: RerankedMethod, kept: RunScores) -> None:
    first, then = kept.of(method.first.name), kept.of(method.then.name)
    for batch in range(kept.n_batches):
        if not kept.is_done(method.name, batch):
            rows = kept.queries(batch)
            kept.keep(batch, {method.name: method.scores(first[rows], then[rows])})


def _missing(methods: list[StoreMethod], kept: RunScores) -> dict[int, list[StoreMethod]]:
    """Batches that are not done by all methods, and the methods that they lack."""
    lacking = {
        batch: [method for method in methods if not kept.is_done(method.name, batch)]
        for batch in range(kept.n_batches)
    }
    return {batch: methods for batch, methods in lacking.items() if methods}


def _check_class_names(
    benchmark: Benchmark, methods: list[SingleMethod], extractor: FeatureExtractor
) -> None:
    """What is wrong with one of many queries is told before hours of work."""
    if not any(isinstance(m, MapMethod | WordMethod) and m.maps == "model" for m in methods):
        return
    known: set[str] = set()
    for asked in benchmark.queries:
        name = asked.query.class_name
        if name is not None and name not in known:
            try:
                extractor.class_vector(name)
            except RegionError as error:
                raise RegionError(f"{asked.query.photo}: {error}") from None
            known.add(name)


def _score_directly(
    benchmark: Benchmark, method: DirectMethod, kept: RunScores, tell: OnStep
) -> None:
    places = {
        batch: kept.queries(batch)
        for batch in range(kept.n_batches)
        if not kept.is_done(method.name, batch)
    }
    queries = [asked for place in places.values() for asked in benchmark.queries[place]]
    scores = method.scores(replace(benchmark, queries=queries))
    for batch, place in places.items():
        tell(f"scoring queries by {method.name}", place.start, len(benchmark.queries))
        with kept.clock(method.name):
            found = np.stack(list(islice(scores, place.stop - place.start)))
        kept.keep(batch, {method.name: found})


def _tell_nobody(doing: str, done: int, total: int) -> None:
    pass


def _extractor_of(
    maps: MapSource, settings: FeatureSettings, extractor: FeatureExtractor
) -> Extractor:
    if maps == "rgb-patches":
        return PatchExtractor()
    if maps == "rgb-histogram":
        return HistogramExtractor()
    if maps == "random-weights":
        twin = extractor.model.with_random_weights()
        return FeatureExtractor(twin, settings, extractor.batch_size)
    if settings == extractor.settings:
        return extractor
    return FeatureExtractor(extractor.model, settings, extractor.batch_size)


@dataclass(frozen=True)
class _Gallery:
    """An index of the gallery.

    ids: (n_gallery,), the photos' ids in it. extractor: that made it. descriptors: by their names.
    weights: as for `make_reference`.
    """

    reader: IndexReader
    ids: NDArray[np.int64]
    extractor: Extractor
    descriptors: Mapping[str, ImageDescriptor]
    weights: FusionWeights | None

    def score(
        self,
        benchmark: Benchmark,
        methods: list[StoreMethod],
        batch: int,
        kept: RunScores,
        tell: OnStep,
    ) -> dict[str, NDArray[np.float32]]:
        """Each method's scores of a batch of queries, (batch, n_gallery)."""
        place, n_queries = kept.queries(batch), len(benchmark.queries)
        queries = benchmark.queries[place]
        asked: dict[Region, list[ScoringReference]] = {}
        with kept.clock("query features"):
            for method in methods:
                if not isinstance(method, DescriptorMethod) and method.region not in asked:
                    tell("features of the queries", place.start, n_queries)
                    asked[method.region] = self._references(method, queries)
        scores: dict[str, NDArray[np.float32]] = {}
        for method in methods:
            if isinstance(method, WordMethod):
                tell(f"scoring queries by {method.name}", place.start, n_queries)
                with kept.clock(method.name):
                    rows = [self._word_scores(reference) for reference in asked[method.region]]
                    scores[method.name] = np.stack(rows)
            elif isinstance(method, DescriptorMethod):
                tell(f"scoring queries by {method.name}", place.start, n_queries)
                with kept.clock(method.name):
                    rows = [self._cosines(query.query.photo, method) for query in queries]
                    scores[method.name] = np.stack(rows)
        by_map = [method for method in methods if isinstance(method, MapMethod)]
        if by_map:
            doing = f"scoring photos for queries {place.start + 1} to {place.stop} of {n_queries}"
            scores |= score_maps_by_many(
                *(self.reader, self.ids, by_map, asked, kept.clock),
                on_photos=lambda done: tell(doing, done, len(self.ids)),
            )
        return scores

    def _references(
        self, method: StoreMethod, queries: list[BenchmarkQuery]
    ) -> list[ScoringReference]:
        single, device = self.extractor, _device_of(self.extractor)
        if isinstance(single, FeatureExtractor):
            # Queries come one by one: nothing is gained by filling a batch up for each.
            single = FeatureExtractor(single.model, single.settings, batch_size=1)
        weights, tau = self.weights, method.changes.tau
        return [
            make_reference(method.asks(asked.query), single, weights, tau).for_scoring(device)
            for asked in queries
        ]

    def _word_scores(self, reference: ScoringReference) -> NDArray[np.float32]:
        """Recall's score of each photo by visual words, (n_gallery,)."""
        reader = self.reader
        assert reader.word_recall is not None  # this version's indexes have it
        cells = reference.tokens.cpu().numpy()
        found, scores = reader.word_recall.search(
            lambda codec: reader.words_in(cells, codec), len(self.ids)
        )
        return self._of_gallery(found, scores)

    def _cosines(self, photo: Path, method: DescriptorMethod) -> NDArray[np.float32]:
        """The cosine of a whole photo's descriptor with each photo's, (n_gallery,)."""
        descriptor = self.descriptors[method.descriptor]
        shown = load_photo(photo, at_least=2 * self.extractor.image_size)
        [vector] = descriptor.describe([descriptor.prepare(shown)])
        recall = self.reader.descriptor_recall(descriptor.name)
        if len(recall) < self.reader.n_photos or not np.isfinite(vector).all():
            raise WaldoError(f"--method {method.name}: gave no finite numbers for some photo")
        return self._of_gallery(*recall.search(vector, self.reader.n_photos))

    def _of_gallery(
        self, found: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Scores of photos by their ids, all of them, in the gallery's order."""
        order = np.argsort(found)
        ranked: NDArray[np.float32] = scores[order][np.searchsorted(found[order], self.ids)]
        return ranked


def score_maps_by_many(
    reader: IndexReader,
    ids: NDArray[np.int64],
    methods: list[MapMethod],
    asked: dict[Region, list[ScoringReference]],
    clock: Clock,
    on_photos: Callable[[int], None] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Photos' scores by full maps, for many queries at once, (n_queries, n_photos) by each method.

    The maps are read once; several queries' tokens go through one matrix product with a block of
    photos, whose levels are unpacked once for them.

    ids: (n_photos,). asked: the queries' references, by the methods' `region`. clock: gets the
    stage "fetch", and each method by its name. on_photos is told how many are done. Raises
    WaldoError for damaged maps.
    """
    import torch

    scores = {
        method.name: np.empty((len(asked[method.region]), len(ids)), dtype=np.float32)
        for method in methods
    }
    start = 0
    for maps in read_ahead(reader, ids, clock):
        if on_photos is not None:
            on_photos(start)
        if maps.damaged:
            raise WaldoError(maps.damaged[0])
        for region, references in asked.items():
            chosen = [method for method in methods if method.region == region]
            for first in range(0, len(references) if chosen else 0, _TOGETHER):
                group = references[first : first + _TOGETHER]
                rows = slice(first, first + len(group))
                with torch.inference_mode():
                    for columns, candidates in scoring_blocks(reader, maps, group):
                        for method in chosen:
                            with clock(method.name):
                                found = [method.score.function(r, candidates) for r in group]
                                values = torch.stack(found).cpu().numpy()
                            scores[method.name][rows, start + columns] = values
        start += len(maps.ids)
    return scores


def _device_of(extractor: Extractor) -> Any:
    import torch

    if isinstance(extractor, FeatureExtractor):
        return extractor.model.device
    return torch.device("cpu")


def _ids(reader: IndexReader, benchmark: Benchmark) -> NDArray[np.int64]:
    """The gallery's ids in its index, (n_gallery,)."""
    places = {record.path: record.id for record in reader.photos(reader.ids)}
    ids = np.empty(len(benchmark.gallery), dtype=np.int64)
    for row, path in enumerate(benchmark.gallery):
        try:
            ids[row] = places[path.resolve()]
        except KeyError:
            raise WaldoError(f"{path}: cannot be read; a benchmark needs all its photos") from None
    return ids
