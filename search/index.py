"""The Python API: open an index, ask it, get matches.

from search import Query, open_index

with open_index("holiday.waldo") as index:
    answer = index.search(Query(Path("my-dog.jpg"), class_name="dog"))
    for match in answer.matches:
        print(match.rank, match.path, match.score, match.box)
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.descriptors import ImageDescriptor, descriptor_name
from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.frame import Frame
from indexer.reader import IndexReader
from indexer.store.filters import PhotoFilter
from search.clock import Clock
from search.confidence import FEWEST, confidences, least_without_place
from search.fusion import default_weights, stored_weights
from search.query import Answer, Match, Query, SearchOptions
from search.recall import query_vector
from search.reference import Reference, make_reference
from search.rerank import Evidence, combine, localise, rerank
from search.scores import SCORES, Score

if TYPE_CHECKING:
    import torch

# Where maps are between queries.
MAPS = ("disk", "ram", "gpu")

# Finds the k best photos among those allowed: ids and scores.
Recall = Callable[[int, NDArray[np.int64] | None], tuple[NDArray[np.int64], NDArray[np.float32]]]


class Index:
    """A searchable collection: a store opened for reading, and the model that filled it.

    Use `open_index`. Not for several threads at once.
    """

    def __init__(self, reader: IndexReader, extractor: FeatureExtractor) -> None:
        self.reader = reader
        self.extractor = extractor
        stored = stored_weights(reader.weights, reader.index_dir)
        self._weights = stored or default_weights(extractor.model.name)
        self._descriptors: dict[str, ImageDescriptor] = {}

    def __enter__(self) -> "Index":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.reader.close()

    def reference(self, query: Query) -> Reference:
        """Features of the query's photo and the cells of its object.

        Raises RegionError where the query selects nothing, PhotoError for a broken photo,
        ModelError where the model gives no finite features.
        """
        return make_reference(query, self.extractor, self._weights)

    def search(self, query: Query, options: SearchOptions | None = None) -> Answer:
        """Rank the collection for one object.

        Raises WaldoError (see `reference`), also for a score or a descriptor that does not exist,
        a score that needs the class name which the query lacks, or a filter that leaves no photo.
        """
        options = options or SearchOptions()
        score = SCORES.get(options.score)
        if score is None:
            raise WaldoError(f"--score {options.score}: no such score; one of {', '.join(SCORES)}")
        if score.needs_class and query.class_name is None:
            raise WaldoError(f"--score {score.name} needs the object's --class NAME")
        if options.top < 1 or options.candidates < 1:
            raise WaldoError("--top and --candidates must be 1 or more")
        if options.min_confidence is not None and not options.rerank:
            raise WaldoError("--min-confidence needs re-ranking; leave --no-rerank away")
        descriptor = None if options.recall is None else self._descriptor(options.recall)
        clock = Clock()
        with clock("extract"):
            shown = (query, *query.also)
            # Rivals of a class are many words for a text encoder: not for nothing.
            weights = self._weights
            if not score.uses_rivals:
                weights = replace(weights, class_evidence=0.0)
            references = [make_reference(asked, self.extractor, weights) for asked in shown]
            unlike = [make_reference(asked, self.extractor, weights) for asked in query.unlike]
            recalls: list[Recall] = [partial(self._by_maps, each, score) for each in references]
            if descriptor is not None:
                by_descriptor = self.reader.descriptor_recall(descriptor.name).search
                views = zip(shown, references, strict=True)
                vectors = [query_vector(asked, each, descriptor) for asked, each in views]
                recalls = [partial(by_descriptor, vector) for vector in vectors]
        with clock("recall"):
            wanted = max(options.candidates, options.top) if options.rerank else options.top
            allowed = None if options.filter is None else self._allowed(options.filter)
            ids, recall_scores = _recall(recalls, wanted, allowed)
            if len(ids) == 0:
                raise WaldoError(
                    f"--recall {options.recall}: no photo that is searched has it yet; run `waldo "
                    f"index` over them again"
                )
        device = self.extractor.model.device
        prepared = [reference.for_scoring(device) for reference in references]
        prepared_unlike = [reference.for_scoring(device) for reference in unlike]
        damaged: list[str] = []
        if options.rerank:
            runs = [
                rerank(self.reader, ids, each, score, clock)
                for each in (*prepared, *prepared_unlike)
            ]
            scored, damaged = runs[0].ids, runs[0].damaged
            each_score = np.stack([run.scores for run in runs])
            scores = combine(each_score[: len(prepared)], each_score[len(prepared) :])
            likest = each_score[: len(prepared)].argmax(axis=0)
        else:
            scored, scores = ids, recall_scores
            likest = np.zeros(len(ids), dtype=np.int64)
        sure = confidences(scores) if options.rerank else None
        if sure is None and options.min_confidence is not None:
            raise WaldoError(
                f"--min-confidence: {len(scored)} photos are too few to tell what chance does; "
                f"at least {FEWEST} must be compared"
            )
        # Equal scores keep the order of their ids, whatever order recall gave.
        order = np.lexsort((scored, -scores))
        # Two at least: where the best is the reference photo, the next tells whether it is found.
        order = order[: max(2, options.top)]
        with clock("localise"):
            maps = self.reader.read_maps(scored[order])
            rows = order[np.isin(scored[order], maps.ids)]
            rest = np.full(len(rows), np.inf, dtype=np.float32)
            # A score that is a mean over the map hardly changes when a place is taken away.
            if options.rerank and score.recall == "words":
                rest = least_without_place(scores, scores[rows])
            evidence = localise(
                self.reader, maps, prepared, likest[rows], score, rest, prepared_unlike
            )
            recalled = dict(zip(ids.tolist(), recall_scores.tolist(), strict=True))
            best = self._matches(
                {reference.maps.content_hash for reference in references},
                maps.ids,
                evidence,
                scores[rows],
                None if sure is None else sure[rows],
                recalled,
            )
        others = [match.confidence for match in best if not match.is_query]
        least = options.min_confidence
        matches = [m for m in best[: options.top] if least is None or (m.confidence or 0) >= least]
        return Answer(
            query=query,
            options=options,
            reference_cells=references[0].cells,
            frame=references[0].maps.frame,
            matches=matches,
            best_confidence=others[0] if others else None,
            n_photos=self.reader.n_photos,
            damaged=[*damaged, *maps.damaged, *self._undescribed(descriptor)],
            timing=clock.stages(),
        )

    def _by_maps(
        self, reference: Reference, score: Score, k: int, allowed: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Recall in the score's own way."""
        by_words = self.reader.word_recall if score.recall == "words" else None
        if by_words is None:
            return self.reader.recall.search(reference.recall_vector(), k, allowed)
        tokens = reference.tokens()
        return by_words.search(lambda codec: self.reader.words_in(tokens, codec), k, allowed)

    def _descriptor(self, name: str) -> ImageDescriptor:
        """A descriptor that the index has, loaded when first asked for."""
        stored, name = self.reader.descriptors, descriptor_name(name)
        if name not in stored:
            has = f"it has {', '.join(stored)}" if stored else "it has none"
            raise WaldoError(
                f"--recall {name}: {self.reader.index_dir} has no such descriptor, {has}; "
                "`waldo index SOURCE... --descriptor NAME` adds one"
            )
        if name not in self._descriptors:
            device = str(self.extractor.model.device)
            self._descriptors[name] = ImageDescriptor.from_fingerprint(stored[name], device)
        return self._descriptors[name]

    def _undescribed(self, descriptor: ImageDescriptor | None) -> list[str]:
        """A line where photos cannot be found by a descriptor, because they have none."""
        if descriptor is None:
            return []
        lacking = self.reader.n_photos - len(self.reader.descriptor_recall(descriptor.name))
        if lacking == 0:
            return []
        return [
            f"{self.reader.index_dir}: {lacking} photos have no {descriptor.name} and were not "
            "searched; run `waldo index` over them again"
        ]

    def _allowed(self, photo_filter: PhotoFilter) -> NDArray[np.int64]:
        """Ids of the photos that pass, at least one."""
        ids = self.reader.matching(photo_filter)
        if len(ids) == 0:
            raise WaldoError("no photo of the index passes --path, --since and --until; widen them")
        return ids

    def _matches(
        self,
        query_hashes: set[str],
        ids: NDArray[np.int64],
        evidence: Evidence,
        scores: NDArray[np.float32],
        sure: NDArray[np.float64] | None,
        recalled: dict[int, float],
    ) -> list[Match]:
        """The answers, best first. ids: (n,), in that order."""
        grid = self.extractor.grid
        matches = []
        for row, record in enumerate(self.reader.photos(ids)):
            frame = Frame(record.width, record.height, self.extractor.image_size, grid)
            matches.append(
                Match(
                    rank=row + 1,
                    path=record.path,
                    id=record.id,
                    score=float(scores[row]),
                    recall_score=recalled[record.id],
                    confidence=None if sure is None else float(sure[row]),
                    boxes=tuple(
                        frame.box_of(cells.reshape(grid, grid))
                        for cells in evidence.places[row]
                        if cells.any()
                    ),
                    heatmap=evidence.heat[row].reshape(grid, grid),
                    frame=frame,
                    is_query=record.content_hash in query_hashes,
                )
            )
        return matches


def _recall(
    recalls: Sequence[Recall], k: int, allowed: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and scores of the k most promising photos, best first; by the likest of the recalls."""
    found: dict[int, float] = {}
    for recall in recalls:
        ids, scores = recall(k, allowed)
        for number, value in zip(ids.tolist(), scores.tolist(), strict=True):
            found[number] = max(value, found.get(number, -np.inf))
    best = sorted(found, key=lambda number: (-found[number], number))[:k]
    return (
        np.array(best, dtype=np.int64),
        np.array([found[number] for number in best], dtype=np.float32),
    )


def open_index(
    directory: Path | str,
    device: str = "auto",
    maps: str = "disk",
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Open an index and load the model that filled it.

    device: "auto" (a GPU where there is one) or a torch device. maps: "disk" reads candidates' maps
    for each query, "ram" and "gpu" (the model's device) hold those of all photos. progress: called
    with how many photos' maps are read, of how many. Raises WaldoError where the directory holds no
    index, its model is not to be had or has changed, or the maps cannot be held.
    """
    if maps not in MAPS:
        raise WaldoError(f"--maps {maps}: must be one of {', '.join(MAPS)}")
    reader = IndexReader.open(Path(directory))
    try:
        extractor = FeatureExtractor.from_fingerprint(reader.fingerprint, device)
        if maps != "disk":
            reader.hold_maps(_holder(maps, extractor.model.device), progress)
        return Index(reader, extractor)
    except BaseException:
        reader.close()
        raise


def _holder(maps: str, device: "torch.device") -> "torch.device":
    """The device that holds the maps. device: the model's."""
    import torch

    if maps == "gpu" and device.type == "cpu":
        raise WaldoError("--maps gpu: the model runs on the CPU; use --maps ram")
    return device if maps == "gpu" else torch.device("cpu")
