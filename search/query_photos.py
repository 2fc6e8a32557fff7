"""The photos of a query: extracted, stored in the index, or kept there under a name."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from features.errors import RegionError
from features.maps import FeatureMaps
from features.photo import load_model_input
from indexer.bucket.object_path import path_of
from indexer.collection import Collection
from indexer.named_objects import NamedView
from indexer.protocols import Extractor
from search.query import Query
from search.reference import (
    QueryPhoto,
    Reference,
    extract_maps,
    read_query_photo,
    references_in,
    stored_maps,
)

# The photos whose features are kept: people ask of one photo several times in a row.
_KEPT = 8

# The photos of a resolved query that come from a name, by their place among all of its photos.
Known = Mapping[int, Reference]

_Photo = tuple[Query, Reference | None]


class QueryPhotos:
    """Turns the photos of queries into references."""

    def __init__(self, reader: Collection, extractor: Extractor) -> None:
        self._reader = reader
        self._extractor = extractor
        self._extracted: OrderedDict[str, FeatureMaps] = OrderedDict()  # by content hash

    def resolve(self, query: Query) -> tuple[Query, Known]:
        """The query with photos in place of names, and the references of these photos.

        What a named object is not is added to `unlike`. Raises WaldoError for a name that the index
        does not know, RegionError where a name comes with a region, IndexDamagedError.
        """
        of_object: list[_Photo] = []
        unlike: list[_Photo] = []
        for view in query.views:
            views, others = self._resolve(view)
            of_object += views
            unlike += others
        for view in query.unlike:
            views, _ = self._resolve(view)  # what an unwanted object is not says nothing
            unlike += views
        first, *also = (view for view, _ in of_object)
        resolved = replace(first, also=tuple(also), unlike=tuple(view for view, _ in unlike))
        found = [reference for _, reference in (*of_object, *unlike)]
        return resolved, {at: one for at, one in enumerate(found) if one is not None}

    def references(self, query: Query, known: Known) -> list[Reference]:
        """The object in each photo of a resolved query.

        Raises as `read_query_photo`, `extract_maps` and `references_in`.
        """
        # All photos are read and checked before a model is loaded for them.
        photos = {
            at: read_query_photo([view], self._extractor)
            for at, view in enumerate(query.photos)
            if at not in known
        }
        found = dict(known)
        for (at, photo), maps in zip(photos.items(), self._maps(photos.values()), strict=True):
            [found[at]] = references_in(photo, maps, self._extractor)
        return [found[at] for at in sorted(found)]

    def maps_of(self, photo: Path) -> FeatureMaps:
        """The features of a whole photo: as the index stores them, else by the model.

        Raises as `load_model_input` and `extract_maps`.
        """
        size, grid = self._extractor.image_size, self._extractor.grid
        read = QueryPhoto([Query(photo)], load_model_input(photo, size, grid), [None])
        stored = stored_maps(read, self._reader)
        return self._extracted_maps([read])[0] if stored is None else stored

    def _resolve(self, view: Query) -> tuple[list[_Photo], list[_Photo]]:
        """The photos that one photo of a query stands for, and those of what it is not."""
        name = view.asked_name
        if name is None:
            return [(replace(view, also=(), unlike=()), None)], []
        if (view.mask, view.box, view.point) != (None, None, None):
            raise RegionError(
                f"{view.photo}: the name says where the object is; leave out the region"
            )
        named = self._reader.named(name)
        return (
            [self._of_name(view, name, one) for one in named.references],
            [self._of_name(view, name, one) for one in named.others],
        )

    def _of_name(self, view: Query, name: str, kept: NamedView) -> _Photo:
        """A photo that is kept under a name. A class name that is asked for comes first."""
        class_name, vector = kept.class_name, kept.class_vector
        if view.class_name is not None:
            class_name, vector = view.class_name, self._extractor.class_vector(view.class_name)
        query = Query(kept.photo, class_name, of_name=name)
        return query, Reference(kept.maps, kept.cells, vector)

    def _maps(self, photos: Iterable[QueryPhoto]) -> list[FeatureMaps]:
        """The features of query photos: of the index where they will do, else by the model, which
        extracts all others at once.
        """
        stored = [(photo, self._stored_maps(photo)) for photo in photos]
        extracted = iter(self._extracted_maps([photo for photo, maps in stored if maps is None]))
        return [next(extracted) if maps is None else maps for _, maps in stored]

    def _stored_maps(self, photo: QueryPhoto) -> FeatureMaps | None:
        # A point selects fewer of the object's cells in maps that were encoded.
        if all(query.class_name is None and query.point is None for query in photo.queries):
            return stored_maps(photo, self._reader)  # so that no model has to be loaded
        return None

    def _extracted_maps(self, photos: Sequence[QueryPhoto]) -> list[FeatureMaps]:
        """The features of query photos, by the model, except of those it was asked about lately."""
        keys = [photo.input.content_hash for photo in photos]
        new = {k: p for k, p in zip(keys, photos, strict=True) if k not in self._extracted}
        if new:
            self._extracted |= zip(
                new, extract_maps(list(new.values()), self._extractor), strict=True
            )
        found = [self._extracted[key] for key in keys]
        for key in keys:
            self._extracted.move_to_end(key)
        while len(self._extracted) > _KEPT:
            self._extracted.popitem(last=False)
        return found


def named_view(query: Query, reference: Reference) -> NamedView:
    """What is kept of a photo when its object gets a name."""
    return NamedView(
        path_of(query.photo).resolve(),
        reference.maps,
        np.asarray(reference.cells),
        query.class_name,
        reference.class_vector,
    )
