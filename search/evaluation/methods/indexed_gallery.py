"""How methods ask an index of the gallery: the scores of all its photos, for some queries."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.frame import Frame
from features.photo import load_photo
from features.regions import Box
from features.vision.descriptors import ImageDescriptor
from indexer.collection import Collection, PhotoRecord
from indexer.protocols import Extractor
from search.choosing import choose_object
from search.clock import Clock
from search.evaluation.benchmarks.benchmark import BenchmarkQuery
from search.evaluation.methods.methods import (
    DescriptorMethod,
    MapMethod,
    Region,
    RerankedMethod,
    StoreMethod,
    WordMethod,
    candidates_first,
)
from search.evaluation.metrics.ranking import best_places
from search.evaluation.steps import OnStep
from search.query import SearchOptions
from search.ranking.expansion import expand
from search.ranking.localise import first_boxes
from search.reference import make_references
from search.scoring.candidates import ScoringReference
from search.scoring.rerank import score_references
from search.scoring.scores import Score, bind_score
from search.segmentation.match_masks import Box as PixelBox
from search.segmentation.match_masks import fit_in_photo
from search.segmentation.segment import ObjectTokens

# A search compares this many photos by default.
_CANDIDATES = SearchOptions().candidates

# The queries of a batch, by how the object is selected.
References = dict[Region, list[ObjectTokens]]

# Photos in which a box is fitted at the same time.
_THREADS = 3

# A query's scores, (n,) float32, higher is better.
Row = NDArray[np.float32]


@dataclass(frozen=True)
class QueryBatch:
    """Queries that are scored together. start: the place of the first in the benchmark, which has
    `total` of them.
    """

    queries: list[BenchmarkQuery]
    start: int
    total: int


@dataclass(frozen=True)
class FoundPlace:
    """Where a photo shows the object. cells: the box of its cells. fitted: fitted to its mask."""

    cells: Box
    fitted: Box


@dataclass(frozen=True)
class IndexedGallery:
    """The index of a benchmark's gallery, or its fleet, which methods ask.

    methods: the names of those that look at its maps. ids: (n_gallery,) int64, the photos' ids in
    it. source: the extractor that made it. extractor: its twin for queries. descriptors: those that
    methods need. clock: gets the stages "query features", "fetch" and "expand", and the time of
    each method by its name. on_step: called with the progress.
    """

    methods: set[str]
    reader: Collection
    ids: NDArray[np.int64]
    source: Extractor
    extractor: Extractor
    descriptors: Sequence[ImageDescriptor]
    clock: Clock
    on_step: OnStep

    def references(self, methods: Sequence[StoreMethod], batch: QueryBatch) -> References:
        """The queries of a batch as methods of each region ask them."""
        ways = {m.region: m for m in methods if not isinstance(m, DescriptorMethod)}
        if not ways:
            return {}
        self.on_step("features of the queries", batch.start, batch.total)
        with self.clock("query features"):
            return self._references(ways, batch.queries)

    def score(
        self, methods: Sequence[StoreMethod], asked: References, batch: QueryBatch
    ) -> Iterator[tuple[str, Iterable[Row]]]:
        """The name of each method with its scores of each query of a batch, (n_gallery,) float32.

        asked: what `references` gave for these methods.
        """
        photos = [asked.query.photo for asked in batch.queries]
        for method in methods:
            if isinstance(method, WordMethod | DescriptorMethod):
                self.on_step(f"scoring queries by {method.name}", batch.start, batch.total)
            if isinstance(method, WordMethod):
                references = [each.scoring for each in asked[method.region]]
                yield method.name, self._timed(method, self._word_scores, references)
            elif isinstance(method, DescriptorMethod):
                cosines = partial(self._cosines, method=method)
                yield method.name, self._timed(method, cosines, photos)
        last = batch.start + len(photos)
        doing = f"scoring photos for queries {batch.start + 1} to {last} of {batch.total}"
        for region, tokens in asked.items():
            references = [each.scoring for each in tokens]
            chosen = [m for m in methods if isinstance(m, MapMethod) and m.region == region]
            if chosen:
                yield from self._map_scores(chosen, self.ids, references, photos, doing).items()

    def reranked(
        self, method: RerankedMethod, first: Sequence[Row], asked: References, batch: QueryBatch
    ) -> Iterator[Row]:
        """The scores of each query of a batch by a method whose candidates are scored here.

        first: by the method that chooses the candidates. asked: as in `score`.
        """
        then = method.parts[1]
        for number, (row, query, tokens) in enumerate(
            zip(first, batch.queries, asked[then.region], strict=True), start=batch.start + 1
        ):
            best = best_places(row, method.candidates)
            doing = f"re-ranking photos by {method.name} for query {number} of {batch.total}"
            [found] = self._map_scores(
                [then], self.ids[best], [tokens.scoring], [query.query.photo], doing
            ).values()
            scores = row.copy()
            scores[best] = found[0]
            yield candidates_first(row, scores, method.candidates)

    def find(
        self,
        method: MapMethod,
        asked: References,
        batch: QueryBatch,
        query: int,
        places: NDArray[np.int64],
    ) -> dict[int, FoundPlace]:
        """Where photos show the object of a query, by their places in the gallery: the first box
        that a search by the method's score would give, before and after it is fitted to a mask.

        asked: as in `score`. query: its place in the batch. places: (n,) int64.
        """
        if len(places) == 0:
            return {}
        # Of many relevant photos this takes longer than all else.
        self.on_step(f"fitting boxes by {method.name}", batch.start + query, batch.total)
        tokens = asked[method.region][query]
        score = bind_score(method.score, self.source, [tokens.scoring])
        ids = self.ids[places]
        with self.clock("localise"):
            cells = first_boxes(self.reader, ids, tokens.scoring, score)
        with self.clock("fit boxes"), ThreadPoolExecutor(_THREADS) as threads:
            fitted = list(threads.map(partial(self._fit, tokens, cells), self.reader.photos(ids)))
        return {
            place: FoundPlace(cells[number], box)
            for place, number, box in zip(places.tolist(), ids.tolist(), fitted, strict=True)
        }

    def _fit(self, tokens: ObjectTokens, cells: Mapping[int, PixelBox], record: PhotoRecord) -> Box:
        frame = Frame(record.width, record.height, self.reader.image_size, self.reader.grid)
        [box] = fit_in_photo(
            self.reader, tokens, record.id, record.path, frame, (cells[record.id],)
        )
        return box

    def _timed(
        self, method: StoreMethod, scores: Callable[[Any], Row], asked: Iterable[Any]
    ) -> Iterator[Row]:
        for query in asked:
            with self.clock(method.name):
                row = scores(query)
            yield row

    def _references(
        self, ways: dict[Region, StoreMethod], queries: list[BenchmarkQuery]
    ) -> References:
        """The queries as a method of each region asks them; each photo is extracted once."""
        asked: References = {region: [] for region in ways}
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
                tokens = ObjectTokens.of(reference, self.extractor.device)
                if not query.boxes:  # no box is fitted, for which alone the background is needed
                    tokens = replace(tokens, background=tokens.background[:0].clone())
                asked[region, tau].append(tokens)
        return asked

    def _map_scores(
        self,
        methods: list[MapMethod],
        ids: NDArray[np.int64],
        references: list[ScoringReference],
        photos: list[Path],
        doing: str,
    ) -> dict[str, NDArray[np.float32]]:
        """Scores by full maps, (n_references, n) float32 for each method.

        ids: (n,) int64, of the photos. photos: those that show the references.
        """
        # By the extractor that fitted the codec: it knows the class vectors of all nouns already.
        scores = [
            replace(bind_score(method.score, self.source, references), name=method.name)
            for method in methods
        ]
        total = len(ids)
        scored = score_references(
            *(self.reader, ids, references, scores, self.clock),
            on_photos=lambda done: self.on_step(doing, done, total),
        )
        if scored.damaged:
            raise WaldoError(scored.damaged[0])
        for method, score in zip(methods, scores, strict=True):
            if method.expanded:
                rows = scored.by_score[score.name]
                scored.by_score[score.name] = np.stack(
                    [
                        self._expanded(*asked, ids, score)
                        for asked in zip(rows, references, photos, strict=True)
                    ]
                )
        return scored.by_score

    def _expanded(
        self,
        row: Row,
        reference: ScoringReference,
        photo: Path,
        ids: NDArray[np.int64],
        score: Score,
    ) -> Row:
        """A query's scores, (n,) float32, after its first matches were asked with. row: (n,),
        before. ids: (n,), of the photos.
        """
        own = {hashlib.sha256(photo.read_bytes()).hexdigest()}
        best = best_places(row, _CANDIDATES)
        some = row[best]
        then = row.copy()
        then[best] = expand(
            *(self.reader, ids[best], some[None], some, [reference], own, score, self.clock)
        )
        return candidates_first(row, then, _CANDIDATES)

    def _word_scores(self, reference: ScoringReference) -> NDArray[np.float32]:
        """Recall's score of each photo by visual words, (n_gallery,) float32."""
        reader = self.reader
        assert reader.word_recall is not None  # every index of this version has it
        cells = reference.tokens.cpu().numpy()
        found = reader.word_recall.score_all(lambda codec: reader.words_in(cells, codec))
        return in_order_of(self.ids, *found)

    def _cosines(self, photo: Path, method: DescriptorMethod) -> NDArray[np.float32]:
        """The cosine of a whole photo's descriptor with each photo's, (n_gallery,) float32."""
        [descriptor] = [each for each in self.descriptors if each.name == method.descriptor]
        shown = load_photo(photo, at_least=2 * self.extractor.image_size)
        [vector] = descriptor.describe([descriptor.prepare(shown)])
        recall = self.reader.descriptor_recall(descriptor.name)
        if len(recall) < self.reader.n_photos or not np.isfinite(vector).all():
            raise WaldoError(f"method {method.name}: gave no finite numbers for some photo")
        return in_order_of(self.ids, *recall.score_all(vector))


def in_order_of(
    ids: NDArray[np.int64], found: NDArray[np.int64], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores in the order of ids, (n,) float32. found: (m,), rising, the ids among others. scores:
    (m,), theirs.
    """
    ranked: NDArray[np.float32] = scores[np.searchsorted(found, ids)]
    return ranked
