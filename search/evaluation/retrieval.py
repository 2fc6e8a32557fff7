"""Running methods over a benchmark: a query's scores are measured, and its best photos are kept."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.models import MapExtractor
from features.vision.descriptors import ImageDescriptor
from indexer.codec.quality import DEFAULT_QUALITY
from indexer.collection import Collection
from indexer.ingest.progress import Progress
from indexer.protocols import Extractor
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, with_cut_queries
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.galleries import (
    GalleryFleet,
    Indexing,
    gallery_ids,
    index_gallery,
    open_galleries,
)
from search.evaluation.methods.indexed_gallery import (
    FoundPlace,
    IndexedGallery,
    QueryBatch,
    References,
)
from search.evaluation.methods.methods import (
    CombinedMethod,
    DirectMethod,
    MapMethod,
    Method,
    RerankedMethod,
    StoreMethod,
    TogetherMethod,
    single_methods,
    whole_gallery_methods,
)
from search.evaluation.methods.same_maps import (
    SameMaps,
    check_class_names,
    extractors_of,
    group_by_maps,
)
from search.evaluation.metrics.localised import Overlaps, overlap, photos_to_localise
from search.evaluation.metrics.measured import QueryResult, Row, query_result
from search.evaluation.run_store import DEPTH, RunScores, open_scores, run_folder
from search.evaluation.steps import OnStep, ignore_step

# Finds where photos show the object of a query, which is given by its place in the batch. Photos
# are given, and the answers are, by the photos' places in the gallery.
Find = Callable[[int, NDArray[np.int64]], Mapping[int, FoundPlace]]


@dataclass(frozen=True)
class MethodResult:
    """One method's outcome on every query.

    queries: what is kept of each query's scores; read from disk when looked at.
    """

    method: Method
    queries: Sequence[QueryResult]


@dataclass(frozen=True)
class Evaluation:
    """What a run found.

    results: one per method. seconds: by stage ("indexing", "query features", "fetch", "expand") and
    by method (its scoring), including those of interrupted runs before it; what methods share
    counts for the first of them. folder: where the results lie; to be deleted when they are no
    longer needed.
    """

    results: list[MethodResult]
    seconds: dict[str, float]
    folder: Path


@dataclass(frozen=True)
class _Run:
    """What all steps of a run share.

    gallery, indexed: the photos of the gallery and of its index, as they lie on the disk. scores:
    what is stored so far. depth: how many of each query's best photos are kept.
    """

    benchmark: Benchmark
    gallery: FilesOnDisk
    indexed: FilesOnDisk
    indexing: Indexing
    scores: RunScores
    depth: int
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
    depth: int = DEPTH,
    fleet: GalleryFleet | None = None,
) -> Evaluation:
    """Score the whole gallery for every query by every method, and keep what is measured of it.

    work: a folder, made where it is missing, for the gallery's indexes, one for each kind of maps,
    for this run and later ones. Queries are taken in batches, whose results are stored there too: a
    run that is killed at any instant continues after its last batch when it is called again. The
    scores of a batch are in memory, and those of no other queries anywhere.

    quality: the codec's, for the model's maps. on_progress: called with the progress of indexing.
    on_step: called with the progress of all other work. descriptors: those that the methods need
    (`methods.descriptors_of`). depth: the scores of so many photos are kept, the best of each
    query. fleet: None where the gallery's indexes are ordinary ones. Raises ClusterError, and
    WaldoError where a photo cannot be read: a number that leaves it out would be another number.
    """
    groups = group_by_maps(single_methods(methods), extractor)
    for group in groups:
        check_class_names(benchmark, group)
    decides = [*_what_decides(extractor, groups, quality, descriptors), depth]
    if fleet is not None:  # workers may compare by another kernel
        decides.append([fleet.parts, fleet.cluster is not None])
    gallery = FilesOnDisk(benchmark.gallery)
    indexed = FilesOnDisk(benchmark.indexed) if benchmark.indexed else gallery
    folder = run_folder(work, benchmark, gallery, decides)
    n_queries, n_gallery = len(benchmark.queries), len(benchmark.gallery)
    with (
        open_scores(folder, n_queries, n_gallery, depth) as scores,
        _shown_queries(benchmark) as shown,
    ):
        indexing = Indexing(extractor, work, quality, descriptors, on_progress, fleet)
        run = _Run(shown, gallery, indexed, indexing, scores, depth, on_step or ignore_step)
        lacking = {
            batch: [method for method in methods if not scores.is_done(method.name, batch)]
            for batch in range(scores.n_batches)
        }
        _score_batches(run, groups, {batch: some for batch, some in lacking.items() if some})
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


def _score_batches(run: _Run, groups: Sequence[SameMaps], lacking: dict[int, list[Method]]) -> None:
    """Score the queries of batches by the methods that each lacks.

    All methods take a batch before any takes the next, because some combine the scores of others.
    """
    needed = {part.name: part for methods in lacking.values() for part in single_methods(methods)}
    indexed = [
        _index(run, group)
        for group in groups
        if any(method.name in needed for method in group.methods)
    ]
    with open_galleries([one.index for one in indexed], run.indexing) as readers:
        galleries = [_open(run, *one) for one in zip(indexed, readers, strict=True)]
        # These go through the queries of all their batches.
        direct = {
            name: method.scores(replace(run.benchmark, queries=_queries_of(run, name, lacking)))
            for name, method in needed.items()
            if isinstance(method, DirectMethod)
        }
        for batch, methods in lacking.items():
            _Batch(run, batch, methods, galleries, direct).score()


def _queries_of(run: _Run, part: str, lacking: dict[int, list[Method]]) -> list[BenchmarkQuery]:
    """The queries of the batches in which the scores of a single method are needed."""
    batches = [
        batch
        for batch, methods in lacking.items()
        if any(method.name == part for method in single_methods(methods))
    ]
    return [
        asked for batch in batches for asked in run.benchmark.queries[run.scores.queries(batch)]
    ]


@dataclass(frozen=True)
class _Indexed:
    """The gallery as some methods look at it.

    index: its folder. source, single: as `extractors_of` gives them.
    """

    methods: Sequence[StoreMethod]
    index: Path
    source: Extractor
    single: Extractor


def _index(run: _Run, group: SameMaps) -> _Indexed:
    """Index the gallery by one kind of maps."""
    source, single = extractors_of(group)
    with run.scores.clock("indexing"):
        protocol = run.benchmark.protocol
        index = index_gallery(protocol, run.indexed, group.maps, source, run.indexing)
    return _Indexed(group.methods, index, source, single)


def _open(run: _Run, indexed: _Indexed, reader: Collection) -> IndexedGallery:
    return IndexedGallery(
        {method.name for method in indexed.methods},
        *(reader, gallery_ids(reader, run.gallery), indexed.source, indexed.single),
        descriptors=run.indexing.descriptors,
        clock=run.scores.clock,
        on_step=run.on_step,
    )


@dataclass(frozen=True)
class _Batch:
    """The queries that are scored together.

    methods: those that lack their results. galleries: of all kinds of maps that the methods need.
    direct: by the name of a method that needs no maps, the scores of its next queries.
    """

    run: _Run
    number: int
    methods: Sequence[Method]
    galleries: Sequence[IndexedGallery]
    direct: Mapping[str, Iterator[Row]]

    def score(self) -> None:
        """Keep the results of each method as soon as they are there."""
        run, place = self.run, self.run.scores.queries(self.number)
        queries = QueryBatch(run.benchmark.queries[place], place.start, len(run.benchmark.queries))
        singles = whole_gallery_methods(self.methods)
        combined = [method for method in self.methods if isinstance(method, CombinedMethod)]
        # The scores of these are needed again below.
        parts: dict[str, list[Row]] = {part.name: [] for part in whole_gallery_methods(combined)}
        for single in singles:
            if isinstance(single, DirectMethod):
                run.on_step(f"scoring queries by {single.name}", place.start, queries.total)
                with run.scores.clock(single.name):
                    rows = list(islice(self.direct[single.name], len(queries.queries)))
                self._take(single.name, rows, parts)
        again = [method for method in combined if isinstance(method, RerankedMethod)]
        by_name = {single.name: single for single in singles}
        rerankings = []
        for gallery in self.galleries:
            own = [m for m in singles if isinstance(m, StoreMethod) and m.name in gallery.methods]
            later = [method for method in again if method.parts[1].name in gallery.methods]
            asked = gallery.references([*own, *(m.parts[1] for m in later)], queries)
            for name, found in gallery.score(own, asked, queries):
                self._take(name, found, parts, _finding(by_name[name], gallery, asked, queries))
            rerankings += [(method, gallery, asked) for method in later]
        for reranked, gallery, asked in rerankings:
            first, then = parts[reranked.parts[0].name], reranked.parts[1]
            rows_of = gallery.reranked(reranked, first, asked, queries)
            self._take(reranked.name, rows_of, parts, _finding(then, gallery, asked, queries))
        for method in combined:
            if isinstance(method, TogetherMethod):
                each = zip(*(parts[part.name] for part in method.parts), strict=True)
                self._take(method.name, (method.scores(*rows) for rows in each), parts)

    def _take(
        self,
        name: str,
        found: Iterable[Row],
        parts: dict[str, list[Row]],
        find: Find | None = None,
    ) -> None:
        """Measure the scores of a method, one query after the other, and keep the results.

        parts: gets the scores of the methods that it has. find: how the method finds the object in
        photos; None where it does not.
        """
        run, results = self.run, []
        place = run.scores.queries(self.number)
        kept = any(method.name == name for method in self.methods)
        for query, row in zip(range(place.start, place.stop), found, strict=True):
            if kept:
                overlaps = None
                if find is not None:
                    asked = run.benchmark.queries[query]
                    boxes = find(query - place.start, photos_to_localise(asked, row))
                    overlaps = Overlaps(
                        {at: overlap(box.cells, asked.boxes[at]) for at, box in boxes.items()},
                        {at: overlap(box.fitted, asked.boxes[at]) for at, box in boxes.items()},
                    )
                results.append(query_result(run.benchmark, query, row, run.depth, overlaps))
            if name in parts:
                parts[name].append(row)
        if kept:
            run.scores.keep(self.number, name, results)


def _finding(
    method: Method, gallery: IndexedGallery, asked: References, batch: QueryBatch
) -> Find | None:
    """How a method finds the object of a query of a batch in photos; None for one that compares no
    maps.
    """
    if not isinstance(method, MapMethod):
        return None
    return lambda query, places: gallery.find(method, asked, batch, query, places)
