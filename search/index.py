"""The Python API: open an index, ask it, get matches.

from search import Query, open_index

with open_index("holiday.waldo") as index:
    answer = index.search(Query(Path("my-dog.jpg"), class_name="dog"))
    for match in answer.matches:
        print(match.rank, match.path, match.score, match.box)
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.maps import FeatureMaps
from features.models import extractor_of
from features.vision.descriptors import ImageDescriptor, descriptor_name
from indexer.bucket.object_store import url_in
from indexer.bucket.remote_index import cached_index
from indexer.collection import Collection
from indexer.fleet.cluster_reader import ClusterReader, HiredHolders
from indexer.fleet.fleet_reader import open_collection
from indexer.named_objects import NamedObject
from indexer.protocols import Extractor
from indexer.ray_cluster import RayCluster
from indexer.store.filters import PhotoFilter
from search.answer import Answer
from search.choosing import choose_object
from search.clock import Clock
from search.query import Query, SearchOptions
from search.query_photos import QueryPhotos, named_view
from search.ranking.candidate_ranking import Asked, Ranking, check_confidence, keep_recall, rank
from search.ranking.matches import find_matches
from search.recall import Candidates, Recall, find_candidates, recall_by_descriptor, recall_by_maps
from search.reference import Reference
from search.scoring.fusion import weights_of
from search.scoring.scores import SCORES, Score, bind_score
from search.segmentation.match_masks import fit_boxes

if TYPE_CHECKING:
    import torch

# Where maps are between queries.
MAPS = ("disk", "ram", "gpu")


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
        clock = Clock()
        asked = self.ask(query, options, clock)
        ranking = self.rank(asked, self.candidates(asked, options, clock), options, clock)
        return self.answer(asked, ranking, options, clock)

    def ask(self, query: Query, options: SearchOptions, clock: Clock) -> Asked:
        """A query in features: the first step of a search, which raises as `search` does."""
        query, known = self._photos.resolve(query)
        _check(query, options)
        descriptor = None if options.recall is None else self._descriptor(options.recall)
        with clock("extract"):
            found = self._photos.references(query, known)
        with clock("recall"):
            allowed = self._allowed(options.filter)
        if options.rerank:
            found = self._chosen(query, found, allowed, clock)
        with clock("extract"):
            every = [reference.for_scoring(self.extractor.device) for reference in found]
            score = bind_score(SCORES[options.score], self.extractor, every, self._weights)
        count = len(query.views)
        recalls = self._recalls(query, found[:count], score, descriptor, clock)
        searched = self.reader.n_photos if allowed is None else len(allowed)
        return Asked(
            *(query, tuple(found), every[:count], every[count:]),
            *(score, recalls, allowed, searched),
        )

    def candidates(self, asked: Asked, options: SearchOptions, clock: Clock) -> Candidates:
        """The photos that are worth comparing: the second step of a search."""
        wanted = max(options.candidates, options.top) if options.rerank else options.top
        with clock("recall"):
            found = find_candidates(asked.recalls, wanted, asked.allowed)
        if len(found.ids) == 0:
            raise WaldoError(
                f"recall {options.recall}: no photo that is searched has this descriptor yet; run "
                "`waldo index` over them again"
            )
        return found

    def rank(
        self, asked: Asked, candidates: Candidates, options: SearchOptions, clock: Clock
    ) -> Ranking:
        """Candidates by their final scores: the third step of a search."""
        if not options.rerank:
            return keep_recall(candidates)
        ranking = rank(self.reader, asked, candidates, clock)
        check_confidence(ranking, options.min_confidence)
        return ranking

    def answer(
        self, asked: Asked, ranking: Ranking, options: SearchOptions, clock: Clock
    ) -> Answer:
        """The first photos of a ranking, and where in them the object is: the last step."""
        with clock("localise"):
            best, damaged = find_matches(self.reader, asked, ranking, options.top, options.rerank)
            least = options.min_confidence
            matches = [m for m in best if least is None or (m.confidence or 0) >= least]
            device = self.extractor.device
            matches = fit_boxes(self.reader, asked.references, device, matches)
        return Answer(
            query=asked.query,
            options=options,
            references=asked.references,
            matches=matches,
            best_confidence=self._best_confidence(ranking, asked),
            n_photos=self.reader.n_photos,
            damaged=[*ranking.damaged, *damaged, *self._undescribed(options.recall)],
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

    def _recalls(
        self,
        query: Query,
        references: list[Reference],
        score: Score,
        descriptor: ImageDescriptor | None,
        clock: Clock,
    ) -> list[Recall]:
        """How candidates are found: a recall for each reference."""
        if descriptor is None:
            with clock("recall"):
                return [recall_by_maps(self.reader, reference, score) for reference in references]
        views = zip(query.views, references, strict=True)
        with clock("extract"):
            return [recall_by_descriptor(self.reader, *view, descriptor) for view in views]

    def _best_confidence(self, ranking: Ranking, asked: Asked) -> float | None:
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
                f"recall {name}: {self.reader.place} has no such descriptor, {has}; "
                "`waldo index SOURCE... --descriptor NAME` adds one"
            )
        if name not in self._descriptors:
            self._descriptors[name] = ImageDescriptor.from_fingerprint(stored[name], self._device)
        return self._descriptors[name]

    def _undescribed(self, recall: str | None) -> list[str]:
        """A line where photos cannot be found by a descriptor because they lack it."""
        if recall is None:
            return []
        name = descriptor_name(recall)
        lacking = self.reader.n_photos - len(self.reader.descriptor_recall(name))
        if lacking == 0:
            return []
        return [
            f"{self.reader.place}: {lacking} photos have no {name} and were not searched; run "
            "`waldo index` over them again"
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
    address: Path | str,
    device: str = "auto",
    maps: str = "disk",
    progress: Callable[[int, int], None] | None = None,
    cluster: RayCluster | HiredHolders | None = None,
) -> Index:
    """Open an index or a fleet in a folder, or in a bucket by its URL, and find the model that
    filled it.

    The model's weights are read when a search first needs them, which raises ModelError where that
    is not possible.

    device: "auto" (a GPU where there is one) or a torch device. maps: "disk" reads candidates' maps
    for each query; "ram" and "gpu" (the model's device) hold the maps of all photos. progress:
    called with the number of photos whose maps were read, and the number of all photos. cluster:
    whose workers hold the parts of a fleet, and do recall and re-ranking; or workers that
    `hire_holders` has hired, for several fleets. Raises WaldoError where there is no index, where
    its model cannot be found or has changed, or where the maps do not fit into memory; and
    ClusterError.
    """
    check_maps(maps, cluster is not None)
    url = url_in(address)
    folder = Path(address) if url is None else cached_index(url)
    reader = open_collection(folder) if cluster is None else ClusterReader.open_on(folder, cluster)
    try:
        extractor = extractor_of(reader.fingerprint, device)
        if maps != "disk":
            reader.hold_maps(_holder(maps, extractor), progress)
        return Index(reader, extractor, device)
    except BaseException:
        reader.close()
        raise


def check_maps(maps: str, on_cluster: bool) -> None:
    """Raise WaldoError where maps cannot be held so. on_cluster: whether workers hold the parts."""
    if maps not in MAPS:
        raise WaldoError(f"maps {maps}: must be one of {', '.join(MAPS)}")
    if on_cluster and maps != "disk":
        raise WaldoError(f"maps {maps}: workers on a cluster read maps for each query; choose disk")


def _holder(maps: str, extractor: Extractor) -> "torch.device":
    """The device that holds the maps."""
    import torch

    if maps == "ram":
        return torch.device("cpu")
    if extractor.device.type == "cpu":
        raise WaldoError("maps gpu: the model runs on the CPU; choose ram")
    extractor.get_ready()  # because the maps take memory that its weights leave
    return extractor.device
