"""The Python API: open an index, ask it, get matches.

from search import Query, open_index

with open_index("holiday.waldo") as index:
    answer = index.search(Query(Path("my-dog.jpg"), class_name="dog"))
    for match in answer.matches:
        print(match.rank, match.path, match.score, match.box)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.frame import Frame
from features.maps import FeatureMaps
from features.models import extractor_of
from features.vision.descriptors import ImageDescriptor, descriptor_name
from indexer.collection import Collection
from indexer.fleet.fleet_reader import open_collection
from indexer.named_objects import NamedObject
from indexer.protocols import Extractor
from indexer.store.filters import PhotoFilter
from search.candidates import ScoringReference
from search.choosing import choose_object
from search.clock import Clock
from search.confidence import (
    MINIMUM_PHOTOS,
    confidences,
    minimum_remaining_score,
    probabilities,
)
from search.expansion import expand
from search.fusion import weights_of
from search.localise import localise
from search.pairs import in_pixels
from search.query import Answer, Match, Query, SearchOptions
from search.query_photos import QueryPhotos, named_view
from search.recall import Candidates, Recall, find_candidates, recall_by_descriptor, recall_by_maps
from search.reference import Reference
from search.rerank import combine, score_references
from search.scores import SCORES, Score, bind_score
from search.segmentation.match_masks import fit_boxes

if TYPE_CHECKING:
    import torch

# Where maps are between queries.
MAPS = ("disk", "ram", "gpu")


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order of their final scores, best first.

    ids: (n,) int64. scores: (n,) float32. own_scores: (n,) float32, by the query's photos without
    its first matches. recall_scores: (n,) float32, by recall.
    references: (n,) int64, the number of the reference that each photo resembles most.
    confidences, probabilities: (n,) float64, or None where they cannot be estimated.
    damaged: a line for each candidate that was left out.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    own_scores: NDArray[np.float32]
    recall_scores: NDArray[np.float32]
    references: NDArray[np.int64]
    confidences: NDArray[np.float64] | None
    probabilities: NDArray[np.float64] | None
    damaged: list[str]


@dataclass(frozen=True)
class _Asked:
    """A query in features.

    score: bound to the index's weights. references: the object, in each of its photos.
    prepared, unlike: the object and what it is not, on the scoring device.
    """

    score: Score
    references: tuple[Reference, ...]
    prepared: list[ScoringReference]
    unlike: list[ScoringReference]

    @property
    def hashes(self) -> set[str]:
        """The content hashes of the photos that show the object."""
        return {reference.maps.content_hash for reference in self.references}


class Index:
    """A searchable collection: a store opened for reading, and the model that filled it.

    Use `open_index`. Not for several threads at once.
    """

    def __init__(self, reader: Collection, extractor: Extractor, device: str = "auto") -> None:
        """device: of the models of global descriptors, as for `open_index`."""
        self.reader = reader
        self.extractor = extractor
        self._weights = weights_of(reader)
        self._device = device
        self._descriptors: dict[str, ImageDescriptor] = {}
        self._photos = QueryPhotos(reader, extractor)

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

    def search(self, query: Query, options: SearchOptions | None = None) -> Answer:
        """Rank the collection for one object.

        Raises RegionError where the query selects nothing, PhotoError for a broken photo,
        ModelError where the model gives no finite features, and WaldoError for a score or a
        descriptor that does not exist, a score that needs the class name which the query lacks, or
        a filter that no photo passes.
        """
        options = options or SearchOptions()
        query, known = self._photos.resolve(query)
        _check(query, options)
        descriptor = None if options.recall is None else self._descriptor(options.recall)
        clock = Clock()
        with clock("extract"):
            references = self._photos.references(query, known)
        with clock("recall"):
            allowed = self._allowed(options.filter)
        if options.rerank:
            references = self._chosen(query, references, allowed, clock)
        with clock("extract"):
            asked = self._asked(query, references, options)
        candidates = self._recall(query, asked, descriptor, allowed, options, clock)
        searched = self.reader.n_photos if allowed is None else len(allowed)
        ranking = self._rank(asked, candidates, searched, options, clock)
        with clock("localise"):
            best, damaged = self._matches(ranking, asked, options.top, options.rerank)
        least = options.min_confidence
        matches = [m for m in best if least is None or (m.confidence or 0) >= least]
        with clock("localise"):
            device = self.extractor.device
            matches = fit_boxes(self.reader, asked.references, device, matches)
        return Answer(
            query=query,
            options=options,
            references=asked.references,
            matches=matches,
            best_confidence=self._best_confidence(ranking, asked),
            n_photos=self.reader.n_photos,
            damaged=[*ranking.damaged, *damaged, *self._undescribed(descriptor)],
            timing=clock.stages(),
        )

    def preview(self, query: Query) -> Reference:
        """What a search of all photos takes as the object in a query's photo; those of `also` and
        `unlike` are ignored.

        Raises as `search` for the photo and its region.
        """
        _, views, _ = self._objects(replace(query, also=(), unlike=()))
        return views[0]

    def maps_of(self, photo: Path) -> FeatureMaps:
        """The features of a whole photo: as they are stored, where the index holds it, else by the
        model. Raises PhotoError for a broken photo, ModelError.
        """
        return self._photos.maps_of(photo)

    def object_named(self, name: str, query: Query) -> NamedObject:
        """What is to be kept of a query's object under a name, which `name_object` in
        `indexer.upkeep.naming` then does.

        Raises as `search` for the photos and their regions.
        """
        query, views, unlike = self._objects(query)
        return NamedObject(
            name,
            tuple(map(named_view, query.views, views)),
            tuple(map(named_view, query.unlike, unlike)),
        )

    def _objects(self, query: Query) -> tuple[Query, list[Reference], list[Reference]]:
        """A query without names, the object in each of its photos, and what it is not."""
        query, known = self._photos.resolve(query)
        references = self._photos.references(query, known)
        chosen = self._chosen(query, references, self._allowed(None), Clock())
        count = len(query.views)
        return query, chosen[:count], chosen[count:]

    def _chosen(
        self,
        query: Query,
        references: list[Reference],
        allowed: NDArray[np.int64] | None,
        clock: Clock,
    ) -> list[Reference]:
        """The references of all photos, each with the object that its query means."""
        return [
            choose_object(self.reader, view, reference, self.extractor, allowed, clock)
            for view, reference in zip(query.photos, references, strict=True)
        ]

    def _asked(self, query: Query, found: list[Reference], options: SearchOptions) -> _Asked:
        """The query in features. found: the object in each of its photos."""
        references, others = tuple(found[: len(query.views)]), found[len(query.views) :]
        device = self.extractor.device
        prepared = [reference.for_scoring(device) for reference in references]
        unlike = [reference.for_scoring(device) for reference in others]
        every = [*prepared, *unlike]
        score = bind_score(SCORES[options.score], self.extractor, every, self._weights)
        return _Asked(score, references, prepared, unlike)

    def _recall(
        self,
        query: Query,
        asked: _Asked,
        descriptor: ImageDescriptor | None,
        allowed: NDArray[np.int64] | None,
        options: SearchOptions,
        clock: Clock,
    ) -> Candidates:
        """The photos that are worth comparing."""
        reader, views = self.reader, zip(query.views, asked.references, strict=True)
        recalls: list[Recall] = []
        if descriptor is not None:
            with clock("extract"):
                recalls = [recall_by_descriptor(reader, *view, descriptor) for view in views]
        with clock("recall"):
            if descriptor is None:
                recalls = [recall_by_maps(reader, each, asked.score) for each in asked.references]
            wanted = max(options.candidates, options.top) if options.rerank else options.top
            candidates = find_candidates(recalls, wanted, allowed)
        if len(candidates.ids) == 0:
            raise WaldoError(
                f"recall {options.recall}: no photo that is searched has this descriptor yet; run "
                "`waldo index` over them again"
            )
        return candidates

    def _rank(
        self,
        asked: _Asked,
        candidates: Candidates,
        searched: int,
        options: SearchOptions,
        clock: Clock,
    ) -> Ranking:
        """Candidates by their final scores. searched: the photos that recall chose them from."""
        if not options.rerank:
            first = np.zeros(len(candidates.ids), dtype=np.int64)
            scores = candidates.scores
            return Ranking(candidates.ids, scores, scores, scores, first, None, None, [])
        every = [*asked.prepared, *asked.unlike]
        scored = score_references(
            self.reader, candidates.ids, every, [asked.score], clock, stage="score"
        )
        by_reference = scored.by_score[asked.score.name]
        wanted, unwanted = np.split(by_reference, [len(asked.prepared)])
        own = combine(wanted, unwanted)
        expanded = expand(
            *(self.reader, scored.ids, wanted, own, asked.prepared, asked.hashes, asked.score),
            clock,
        )
        scores = combine(expanded[None], unwanted)
        # By the query's own scores: a match that asks must not vouch for itself, nor for others.
        sure = confidences(own)
        if sure is None and options.min_confidence is not None:
            raise WaldoError(
                f"min-confidence: {len(scores)} photos are too few to estimate a confidence; at "
                f"least {MINIMUM_PHOTOS} must be compared"
            )
        likely = None
        if asked.score.recall == "words":  # means over the map are distributed otherwise
            is_own = self.reader.has_content(scored.ids, asked.hashes)
            likely = probabilities(scores, searched, is_own)
        by_id = dict(zip(candidates.ids.tolist(), candidates.scores.tolist(), strict=True))
        recalled = np.array([by_id[number] for number in scored.ids.tolist()], dtype=np.float32)
        # Equal scores are in the order of their ids, whatever the order of recall.
        order = np.lexsort((scored.ids, -scores))
        return Ranking(
            scored.ids[order],
            scores[order],
            own[order],
            recalled[order],
            wanted.argmax(axis=0)[order],
            None if sure is None else sure[order],
            None if likely is None else likely[order],
            scored.damaged,
        )

    def _matches(
        self, ranking: Ranking, asked: _Asked, count: int, reranked: bool
    ) -> tuple[list[Match], list[str]]:
        """The first matches of a ranking, and a line for each photo whose maps are damaged."""
        maps = self.reader.read_maps(ranking.ids[:count])
        rows = np.flatnonzero(np.isin(ranking.ids[:count], maps.ids))
        least = np.full(len(rows), np.inf, dtype=np.float32)
        # A score that is a mean over the map hardly changes when one place is masked out.
        if reranked and asked.score.recall == "words":
            least = minimum_remaining_score(ranking.own_scores, ranking.own_scores[rows])
        evidence = localise(
            *(self.reader, maps, asked.prepared, ranking.references[rows], asked.score, least),
            asked.unlike,
        )
        reader = self.reader
        size, grid = self.extractor.image_size, self.extractor.grid
        matches = []
        for place, (row, record) in enumerate(
            zip(rows.tolist(), self.reader.photos(maps.ids), strict=True)
        ):
            frame = Frame(record.width, record.height, size, grid)
            found = [cells.reshape(grid, grid) for cells in evidence.places[place] if cells.any()]
            reference = int(ranking.references[row])
            shown = asked.references[reference].maps.frame
            sure, likely = ranking.confidences, ranking.probabilities
            matches.append(
                Match(
                    rank=place + 1,
                    path=record.path,
                    id=record.id,
                    score=float(ranking.scores[row]),
                    recall_score=float(ranking.recall_scores[row]),
                    confidence=None if sure is None else float(sure[row]),
                    boxes=tuple(frame.box_of(cells) for cells in found),
                    heatmap=evidence.heat[place].reshape(grid, grid),
                    frame=frame,
                    is_query=record.content_hash in asked.hashes,
                    reference=reference,
                    copies=tuple(r.path for r in reader.photos(reader.copies_of(record.id))),
                    changed=record.is_changed(),
                    probability=None if likely is None else float(likely[row]),
                    pairs=in_pixels(evidence.pairs[place], shown, frame),
                )
            )
        return matches, maps.damaged

    def _best_confidence(self, ranking: Ranking, asked: _Asked) -> float | None:
        """The highest confidence of a photo other than the query's, if any can be estimated."""
        if ranking.confidences is None:
            return None
        others = ranking.confidences[~self.reader.has_content(ranking.ids, asked.hashes)]
        return float(others.max()) if len(others) else None

    def _descriptor(self, name: str) -> ImageDescriptor:
        """A descriptor that the index has; its model is found when it is first asked for."""
        stored, name = self.reader.descriptors, descriptor_name(name)
        if name not in stored:
            has = f"it has {', '.join(stored)}" if stored else "it has none"
            raise WaldoError(
                f"recall {name}: {self.reader.index_dir} has no such descriptor, {has}; "
                "`waldo index SOURCE... --descriptor NAME` adds one"
            )
        if name not in self._descriptors:
            self._descriptors[name] = ImageDescriptor.from_fingerprint(stored[name], self._device)
        return self._descriptors[name]

    def _undescribed(self, descriptor: ImageDescriptor | None) -> list[str]:
        """A line where photos cannot be found by a descriptor because they lack it."""
        if descriptor is None:
            return []
        lacking = self.reader.n_photos - len(self.reader.descriptor_recall(descriptor.name))
        if lacking == 0:
            return []
        return [
            f"{self.reader.index_dir}: {lacking} photos have no {descriptor.name} and were not "
            "searched; run `waldo index` over them again"
        ]

    def _allowed(self, photo_filter: PhotoFilter | None) -> NDArray[np.int64] | None:
        """Ids of the photos that pass, at least one, without copies; None for all photos."""
        if photo_filter is None:
            return self.reader.distinct()
        ids = self.reader.matching(photo_filter)
        if len(ids) == 0:
            raise WaldoError(
                "no photo of the index passes the filter (path, since, until); widen it"
            )
        return self.reader.distinct(ids)


def _check(query: Query, options: SearchOptions) -> None:
    """Raise WaldoError for options that do not exist or do not go with the query."""
    score = SCORES.get(options.score)
    if score is None:
        raise WaldoError(f"score {options.score}: no such score; one of {', '.join(SCORES)}")
    if score.needs_class and query.class_name is None:
        raise WaldoError(f"score {score.name}: needs the object's class name")
    if options.top < 1 or options.candidates < 1:
        raise WaldoError("top and candidates must be 1 or more")
    if options.min_confidence is not None and not options.rerank:
        raise WaldoError("min-confidence needs re-ranking")


def open_index(
    directory: Path | str,
    device: str = "auto",
    maps: str = "disk",
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Open an index, and find the model that filled it.

    The model's weights are read when a search first needs them, which raises ModelError where that
    is not possible.

    device: "auto" (a GPU where there is one) or a torch device. maps: "disk" reads candidates' maps
    for each query; "ram" and "gpu" (the model's device) hold the maps of all photos. progress:
    called with the number of photos whose maps were read, and the number of all photos. Raises
    WaldoError where the directory holds no index, where its model cannot be found or has changed,
    or where the maps do not fit into memory.
    """
    if maps not in MAPS:
        raise WaldoError(f"maps {maps}: must be one of {', '.join(MAPS)}")
    reader = open_collection(Path(directory))
    try:
        extractor = extractor_of(reader.fingerprint, device)
        if maps != "disk":
            reader.hold_maps(_holder(maps, extractor), progress)
        return Index(reader, extractor, device)
    except BaseException:
        reader.close()
        raise


def _holder(maps: str, extractor: Extractor) -> "torch.device":
    """The device that holds the maps."""
    import torch

    if maps == "ram":
        return torch.device("cpu")
    if extractor.device.type == "cpu":
        raise WaldoError("maps gpu: the model runs on the CPU; choose ram")
    extractor.get_ready()  # because the maps take memory that its weights leave
    return extractor.device
