"""The reference photo's side of a query."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.errors import ModelError, RegionError
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import ModelInput, load_model_input
from features.regions import (
    box_cells,
    check_box,
    check_point,
    load_mask,
    mask_cells,
    point_cells,
)
from indexer.collection import Collection
from indexer.protocols import Extractor
from search.query import Query
from search.scoring.candidates import ScoringReference

if TYPE_CHECKING:
    import torch

# The codec qualities whose maps answer queries as well as extracted ones.
_AS_GOOD = ("none", "high", "standard")

_NO_OBJECT = (
    "say which object in the photo is meant: by its class name, by a mask, a box or a point, or by "
    "a class name and one of these"
)


@dataclass(frozen=True)
class Reference:
    """One object in one photo.

    maps: the photo's features. cells: (grid, grid) bool, the object's cells (M_r of PDM Eq. 3).
    class_vector: C, (d,) float32, or None.
    """

    maps: FeatureMaps
    cells: NDArray[np.bool_]
    class_vector: NDArray[np.float32] | None

    @property
    def box(self) -> tuple[int, int, int, int]:
        """[x0, y0, x1, y1] around the object's cells, in pixels of the upright photo."""
        return self.maps.frame.box_of(self.cells)

    def tokens(self) -> NDArray[np.float32]:
        """F_AM_r of PDM Eq. 4, (n, d) float32."""
        return self.maps.appearance[self.cells].astype(np.float32)

    def recall_vector(self) -> NDArray[np.float32]:
        """[a_r ; C] / 2, (2 d,) float32; [a_r ; 0] / 2 without a class name.

        Its inner product with a photo's pooled vector is the mean of S_DF over that photo's map.
        """
        mean = self.tokens().mean(axis=0)
        other = np.zeros_like(mean) if self.class_vector is None else self.class_vector
        return (np.concatenate([mean, other]) / 2).astype(np.float32)

    def for_scoring(self, device: "torch.device") -> ScoringReference:
        """This reference on a device."""
        import torch

        vector = self.class_vector
        semantic = self.maps.semantic[self.cells].astype(np.float32)
        return ScoringReference(
            tokens=torch.from_numpy(self.tokens()).to(device),
            semantic=torch.from_numpy(semantic).to(device),
            class_vector=None if vector is None else torch.from_numpy(vector).to(device),
            positions=torch.from_numpy(np.argwhere(self.cells)).float().to(device),
        )


@dataclass(frozen=True)
class QueryPhoto:
    """A photo that queries ask about: decoded, and their regions fit it.

    queries: at least one. input: the photo. masks: for each query the cells of its mask, (grid,
    grid) bool, or None.
    """

    queries: Sequence[Query]
    input: ModelInput
    masks: list[NDArray[np.bool_] | None]


def read_query_photo(queries: Sequence[Query], extractor: Extractor) -> QueryPhoto:
    """Read the photo of queries that ask about one photo in several ways, and check them.

    This loads no model, so that whatever is wrong with a query is said at once. queries: at least
    one. Raises RegionError where a query says nothing or too much, where its region does not fit
    the photo, and where the class name is certainly unknown; PhotoError for a broken photo.
    """
    [path] = {query.photo for query in queries}
    with _naming(path):
        for query in queries:
            _check_object(query, extractor)
        photo = load_model_input(path, extractor.image_size, extractor.grid)
        return QueryPhoto(queries, photo, [_check_region(photo.frame, query) for query in queries])


def make_reference(query: Query, extractor: Extractor) -> Reference:
    """The features of a query's photo and the cells of its object; raises as `make_references`."""
    [reference] = make_references([query], extractor)
    return reference


def make_references(
    queries: Sequence[Query], extractor: Extractor, taus: Sequence[float | None] | None = None
) -> list[Reference]:
    """The references of queries that ask about one photo in several ways; it is extracted once.

    Raises as `read_query_photo`, `extract_maps` and `references_in`.
    """
    photo = read_query_photo(queries, extractor)
    [maps] = extract_maps([photo], extractor)
    return references_in(photo, maps, extractor, taus)


def extract_maps(photos: Sequence[QueryPhoto], extractor: Extractor) -> list[FeatureMaps]:
    """The features of the photos of queries, extracted together.

    Raises ModelError where the model cannot be loaded or gives no finite features.
    """
    found = extractor.extract([photo.input for photo in photos])
    for photo, maps in zip(photos, found, strict=True):
        if not maps.is_finite:
            raise ModelError(f"{photo.queries[0].photo}: the model gave no finite features for it")
    return found


def stored_maps(photo: QueryPhoto, reader: Collection) -> FeatureMaps | None:
    """The features that an index holds of a query's photo, by its content; None where it has none,
    or they are damaged, or the codec loses too much.

    They are as good as extracted ones (docs/evaluation.md), and need no model.
    """
    if reader.quality not in _AS_GOOD:
        return None
    known = reader.find(photo.input.content_hash)
    return None if known is None else decoded_maps(reader, known)


def decoded_maps(reader: Collection, photo_id: int) -> FeatureMaps | None:
    """The features that an index holds of one of its photos; None where they are damaged."""
    batch = reader.read_maps([photo_id])
    if batch.damaged:
        return None
    shape = (reader.grid, reader.grid, reader.dim)
    appearance, semantic = (
        values.numpy().astype(np.float16).reshape(shape) for values in reader.decode(batch)
    )
    [record] = reader.photos([photo_id])
    frame = Frame(record.width, record.height, reader.image_size, reader.grid)
    return FeatureMaps(appearance, semantic, frame, record.content_hash)


def references_in(
    photo: QueryPhoto,
    maps: FeatureMaps,
    extractor: Extractor,
    taus: Sequence[float | None] | None = None,
) -> list[Reference]:
    """The references of queries, in the features of their photo.

    A class name is ignored by extractors that know no words. taus: for each query the threshold of
    PDM Eq. 3, for an object that only a class name selects; None for the extractor's own rule.
    Raises RegionError where a query selects nothing, ModelError where a class name needs the model
    and it cannot be loaded.
    """
    with _naming(photo.queries[0].photo):
        vectors = [
            None if query.class_name is None else extractor.class_vector(query.class_name)
            for query in photo.queries
        ]
        return [
            Reference(maps, _cells(query, maps, extractor, tau) if mask is None else mask, vector)
            for query, vector, mask, tau in zip(
                *(photo.queries, vectors, photo.masks, taus or [None] * len(vectors)), strict=True
            )
        ]


def _check_object(query: Query, extractor: Extractor) -> None:
    """Raise RegionError where a query certainly does not select one object."""
    if query.asked_name is not None:
        raise RegionError(
            f"{query.photo}: objects with a name are known to `waldo query` and `waldo name` alone"
        )
    regions = [kind for kind in ("mask", "box", "point") if getattr(query, kind) is not None]
    if len(regions) > 1:
        raise RegionError(f"give one of mask, box and point, not {' and '.join(regions)}")
    if query.class_name is not None:
        extractor.check_class_name(query.class_name)
    elif not regions:
        raise RegionError(_NO_OBJECT)
    if not regions and not extractor.knows_words:
        model = extractor.fingerprint()["model"]
        raise RegionError(
            f"class name {query.class_name!r}: the model {model} knows no words; give a mask, a "
            "box or a point of the object"
        )


def _check_region(frame: Frame, query: Query) -> NDArray[np.bool_] | None:
    """The cells of a query's mask, (grid, grid) bool. Raises RegionError for a mask, box or point
    that does not fit the photo.
    """
    if query.box is not None:
        check_box(frame, query.box)
    if query.point is not None:
        check_point(frame, query.point)
    if query.mask is None:
        return None
    return mask_cells(frame, load_mask(query.mask, frame.width, frame.height))


def _cells(
    query: Query, maps: FeatureMaps, extractor: Extractor, tau: float | None
) -> NDArray[np.bool_]:
    """The object's cells by box, point or class name, (grid, grid) bool."""
    if query.box is not None:
        return box_cells(maps, query.box)
    if query.point is not None:
        return point_cells(maps, query.point)
    assert query.class_name is not None  # `_check_object` saw to that
    return extractor.class_cells(maps, query.class_name, tau)


@contextmanager
def _naming(photo: Path) -> Iterator[None]:
    """Begin a RegionError with the photo that it is about: a query may have several."""
    try:
        yield
    except RegionError as error:
        raise RegionError(f"{photo}: {error}") from None
