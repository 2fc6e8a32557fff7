"""Running methods over a benchmark: every method scores the whole gallery for every query."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.models import MapExtractor
from features.photo import load_photo
from features.vision.descriptors import ImageDescriptor
from indexer.codec.quality import DEFAULT_QUALITY
from indexer.ingest.progress import Progress
from indexer.protocols import Extractor
from indexer.reader import IndexReader
from search.choosing import choose_object
from search.clock import Clock
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, with_cut_queries
from search.evaluation.galleries import Indexing, index_gallery
from search.evaluation.methods.methods import (
    CombinedMethod,
    DescriptorMethod,
    DirectMethod,
    MapMethod,
    Method,
    Region,
    StoreMethod,
    WordMethod,
    candidates_first,
    single_methods,
)
from search.evaluation.methods.same_maps import (
    SameMaps,
    check_class_names,
    extractors_of,
    group_by_maps,
)
from search.evaluation.metrics.summary import Scores
from search.evaluation.run_store import RunScores, open_scores, run_folder
from search.evaluation.steps import OnStep, ignore_step
from search.query import SearchOptions
from search.ranking.expansion import expand
from search.reference import make_references
from search.scoring.candidates import ScoringReference
from search.scoring.rerank import score_references
from search.scoring.scores import Score, bind_score

# A search compares this many photos by default.
_CANDIDATES = SearchOptions().candidates


@dataclass(frozen=True)
class MethodResult:
    """One method's outcome on every query.

    scores: (n_gallery,) float32 for each query, higher is better; read from disk when looked at.
    """

    method: Method
    scores: Scores


@dataclass(frozen=True)
class Evaluation:
    """What a run found.

    results: one per method. seconds: by stage ("indexing", "query features", "fetch", "expand") and
    by method (its scoring), including those of interrupted runs before it; what methods share
    counts for the first of them. folder: where the scores lie; to be deleted when they are no
    longer needed.
    """

    results: list[MethodResult]
    seconds: dict[str, float]
    folder: Path


@dataclass(frozen=True)
class _Run:
    """What all steps of a run share.

    scores: what is stored so far.
    """

    benchmark: Benchmark
    indexing: Indexing
    scores: RunScores
    on_step: OnStep


def run_methods(
    benchmark: Benchmark,
    methods: list[Method],
    extractor: MapExtractor,
    work: Path,
    quality: str = DEFAULT_QUALITY,
    on_progress: Callable[[Progress], None] | None = None,
    on_step: OnStep | None = None,
    descriptors: Sequence[ImageDescriptor] = (),
) -> Evaluation:
    """Score the whole gallery for every query by every method.

    work: a folder, made where it is missing, for the gallery's indexes, one for each kind of maps,
    for this run and later ones. Queries are taken in batches, whose scores are stored there too: a
    run that is killed at any instant continues after its last batch when it is called again.

    quality: the codec's, for the model's maps. on_progress: called with the progress of indexing.
    on_step: called with the progress of all other work. descriptors: those that the methods need
    (`methods.descriptors_of`). Raises WaldoError where a photo cannot be read: a number that leaves
    it out would be another number.
    """
    parts = single_methods(methods)
    groups = group_by_maps(parts, extractor)
    for group in groups:
        check_class_names(benchmark, group)
    folder = run_folder(work, benchmark, _what_decides(extractor, groups, quality, descriptors))
    with (
        open_scores(folder, len(benchmark.queries), len(benchmark.gallery)) as scores,
        _shown_queries(benchmark) as shown,
    ):
        indexing = Indexing(extractor, work, quality, descriptors, on_progress)
        run = _Run(shown, indexing, scores, on_step or ignore_step)
        for part in parts:
            if isinstance(part, DirectMethod):
                _score_directly(run, part)
        for group in groups:
            _score_by_maps(run, group)
        for method in methods:
            if isinstance(method, CombinedMethod):
                _combine(method, scores)
        results = [MethodResult(method, scores.of(method.name)) for method in methods]
        return Evaluation(results, scores.clock.seconds, folder)


def _what_decides(
    extractor: MapExtractor,
    groups: Sequence[SameMaps],
    quality: str,
    descriptors: Sequence[ImageDescriptor],
) -> list[Any]:
    """What decides the scores of methods on a benchmark, ready for JSON."""
    import torch

    settings = [extractor.fingerprint(), quality, extractor.device.type, torch.__version__]
    others = [group.extractor for group in groups if group.methods[0].changes.model is not None]
    return settings + [each.fingerprint() for each in (*descriptors, *others)]


@contextmanager
def _shown_queries(benchmark: Benchmark) -> Iterator[Benchmark]:
    """The benchmark with its queries as methods are shown them: cut out where it says so."""
    if not benchmark.cut_queries:
        yield benchmark
        return
    with tempfile.TemporaryDirectory(prefix="waldo-evaluate-") as folder:
        yield with_cut_queries(benchmark, Path(folder))


def _score_directly(run: _Run, method: DirectMethod) -> None:
    """Score the queries that are not done by a method that needs no maps."""
    places = {
        batch: run.scores.queries(batch)
        for batch in range(run.scores.n_batches)
        if not run.scores.is_done(method.name, batch)
    }
    benchmark = run.benchmark
    queries = [asked for place in places.values() for asked in benchmark.queries[place]]
    rows = method.scores(replace(benchmark, queries=queries))
    for batch, place in places.items():
        run.on_step(f"scoring queries by {method.name}", place.start, len(benchmark.queries))
        with run.scores.clock(method.name):
            found = np.stack(list(islice(rows, place.stop - place.start)))
        run.scores.keep(batch, {method.name: found})


def _score_by_maps(run: _Run, group: SameMaps) -> None:
    """Index the gallery by one kind of maps, and score the queries that are not done."""
    lacking = {
        batch: [method for method in group.methods if not run.scores.is_done(method.name, batch)]
        for batch in range(run.scores.n_batches)
    }
    batches = {batch: missing for batch, missing in lacking.items() if missing}
    if not batches:
        return
    source, single = extractors_of(group)
    with run.scores.clock("indexing"):
        index = index_gallery(run.benchmark, group.maps, source, run.indexing)
    with IndexReader.open(index) as reader:
        gallery = _Gallery(run, reader, _ids(reader, run.benchmark), source, single)
        for batch, missing in batches.items():
            run.scores.keep(batch, gallery.score(missing, batch))


def _combine(method: CombinedMethod, scores: RunScores) -> None:
    """Scores of a method that follow from those of its parts."""
    parts = [scores.of(part.name) for part in method.parts]
    for batch in range(scores.n_batches):
        if not scores.is_done(method.name, batch):
            rows = scores.queries(batch)
            found = method.scores(*(np.stack(part[rows]) for part in parts))
            scores.keep(batch, {method.name: found})


@dataclass(frozen=True)
class _Gallery:
    """An index of the gallery.

    ids: (n_gallery,) int64, the photos' ids in it. source: the extractor that made it. extractor:
    its twin for queries.
    """

    run: _Run
    reader: IndexReader
    ids: NDArray[np.int64]
    source: Extractor
    extractor: Extractor

    def score(self, methods: list[StoreMethod], batch: int) -> dict[str, NDArray[np.float32]]:
        """Each method's scores of a batch of queries, (batch, n_gallery) float32."""
        run, place = self.run, self.run.scores.queries(batch)
        queries, total = run.benchmark.queries[place], len(run.benchmark.queries)
        asked: dict[Region, list[ScoringReference]] = {}
        ways = {m.region: m for m in methods if not isinstance(m, DescriptorMethod)}
        if ways:
            run.on_step("features of the queries", place.start, total)
            with run.scores.clock("query features"):
                asked = self._references(ways, queries)
        scores: dict[str, NDArray[np.float32]] = {}
        for method in methods:
            if not isinstance(method, WordMethod | DescriptorMethod):
                continue
            run.on_step(f"scoring queries by {method.name}", place.start, total)
            with run.scores.clock(method.name):
                if isinstance(method, WordMethod):
                    rows = [self._word_scores(reference) for reference in asked[method.region]]
                else:
                    rows = [self._cosines(query.query.photo, method) for query in queries]
                scores[method.name] = np.stack(rows)
        doing = f"scoring photos for queries {place.start + 1} to {place.stop} of {total}"
        for region, references in asked.items():
            chosen = [m for m in methods if isinstance(m, MapMethod) and m.region == region]
            if chosen:
                photos = [query.query.photo for query in queries]
                scores |= self._map_scores(chosen, references, photos, doing)
        return scores

    def _references(
        self, ways: dict[Region, StoreMethod], queries: list[BenchmarkQuery]
    ) -> dict[Region, list[ScoringReference]]:
        """The queries as a method of each region asks them; each photo is extracted once."""
        asked: dict[Region, list[ScoringReference]] = {region: [] for region in ways}
        taus = [method.changes.tau for method in ways.values()]
        for query in queries:
            views = [method.asks(query.query) for method in ways.values()]
            references = make_references(views, self.extractor, taus)
            for (region, tau), view, reference in zip(ways, views, references, strict=True):
                if tau is None:
                    # Its stages count as "query features".
                    reference = choose_object(
                        self.reader, view, reference, self.extractor, None, Clock()
                    )
                asked[region, tau].append(reference.for_scoring(self.extractor.device))
        return asked

    def _map_scores(
        self,
        methods: list[MapMethod],
        references: list[ScoringReference],
        photos: list[Path],
        doing: str,
    ) -> dict[str, NDArray[np.float32]]:
        """Scores by full maps, (n_references, n_gallery) float32 for each method.

        photos: those that show the references.
        """
        # By the extractor that fitted the codec: it knows the class vectors of all nouns already.
        scores = [
            replace(bind_score(method.score, self.source, references), name=method.name)
            for method in methods
        ]
        run, total = self.run, len(self.ids)
        scored = score_references(
            *(self.reader, self.ids, references, scores, run.scores.clock),
            on_photos=lambda done: run.on_step(doing, done, total),
        )
        if scored.damaged:
            raise WaldoError(scored.damaged[0])
        for method, score in zip(methods, scores, strict=True):
            if method.expanded:
                rows = scored.by_score[score.name]
                scored.by_score[score.name] = np.stack(
                    [
                        self._expanded(*asked, score)
                        for asked in zip(rows, references, photos, strict=True)
                    ]
                )
        return scored.by_score

    def _expanded(
        self, row: NDArray[np.float32], reference: ScoringReference, photo: Path, score: Score
    ) -> NDArray[np.float32]:
        """A query's scores, (n_gallery,) float32, after its first matches were asked with."""
        own = {hashlib.sha256(photo.read_bytes()).hexdigest()}
        best = np.argsort(-row, kind="stable")[:_CANDIDATES]
        some, clock = row[best], self.run.scores.clock
        then = row.copy()
        then[best] = expand(
            *(self.reader, self.ids[best], some[None], some, [reference], own, score, clock)
        )
        return candidates_first(row, then, _CANDIDATES)

    def _word_scores(self, reference: ScoringReference) -> NDArray[np.float32]:
        """Recall's score of each photo by visual words, (n_gallery,) float32."""
        reader = self.reader
        assert reader.word_recall is not None  # every index of this version has it
        cells = reference.tokens.cpu().numpy()
        found, scores = reader.word_recall.search(
            lambda codec: reader.words_in(cells, codec), reader.n_photos
        )
        return self._of_gallery(found, scores)

    def _cosines(self, photo: Path, method: DescriptorMethod) -> NDArray[np.float32]:
        """The cosine of a whole photo's descriptor with each photo's, (n_gallery,) float32."""
        known: Mapping[str, ImageDescriptor] = {
            each.name: each for each in self.run.indexing.descriptors
        }
        descriptor = known[method.descriptor]
        shown = load_photo(photo, at_least=2 * self.extractor.image_size)
        [vector] = descriptor.describe([descriptor.prepare(shown)])
        recall = self.reader.descriptor_recall(descriptor.name)
        if len(recall) < self.reader.n_photos or not np.isfinite(vector).all():
            raise WaldoError(f"method {method.name}: gave no finite numbers for some photo")
        return self._of_gallery(*recall.search(vector, self.reader.n_photos))

    def _of_gallery(
        self, found: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Scores of photos by their ids, all of them, in the gallery's order."""
        order = np.argsort(found)
        ranked: NDArray[np.float32] = scores[order][np.searchsorted(found[order], self.ids)]
        return ranked


def _ids(reader: IndexReader, benchmark: Benchmark) -> NDArray[np.int64]:
    """The gallery's ids in its index, (n_gallery,) int64."""
    places = {record.path: record.id for record in reader.photos(reader.ids)}
    ids = np.empty(len(benchmark.gallery), dtype=np.int64)
    for row, path in enumerate(benchmark.gallery):
        try:
            ids[row] = places[path.resolve()]
        except KeyError:
            raise WaldoError(f"{path}: cannot be read; a benchmark needs all its photos") from None
    return ids
