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
from features.photo import load_model_input
from features.regions import box_cells, load_mask, mask_cells, point_cells
from indexer.protocols import Extractor
from search.candidates import ScoringReference
from search.query import Query

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reference:
    """One object in one photo.

    maps: the photo's features. cells: (grid, grid) bool, the object's cells (M_r of PDM Eq. 3).
    class_vector: C, (d,) float32, or None.
    """

    maps: FeatureMaps
    cells: NDArray[np.bool_]
    class_vector: NDArray[np.float32] | None

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


def make_reference(query: Query, extractor: Extractor) -> Reference:
    """The features of a query's photo and the cells of its object; raises as `make_references`."""
    [reference] = make_references([query], extractor)
    return reference


def make_references(
    queries: Sequence[Query], extractor: Extractor, taus: Sequence[float | None] | None = None
) -> list[Reference]:
    """The references of queries that ask about one photo in several ways; it is extracted once.

    A class name is ignored by extractors that know no words. queries: at least one. taus: for each
    query the threshold of PDM Eq. 3, for an object that only a class name selects; None for the
    extractor's own rule. Raises RegionError where a query selects nothing, PhotoError for a broken
    photo, ModelError where the model gives no finite features.
    """
    [path] = {query.photo for query in queries}
    with _naming(path):
        vectors = [_class_vector(query, extractor) for query in queries]
        photo = load_model_input(path, extractor.image_size, extractor.grid)
        # Masks that do not fit the photo are refused before it is extracted.
        masks = [None if q.mask is None else _mask_cells(photo.frame, q.mask) for q in queries]
        [maps] = extractor.extract([photo])
        if not maps.is_finite:
            raise ModelError(f"{path}: the model gave no finite features for it")
        return [
            Reference(maps, _cells(query, maps, extractor, tau) if mask is None else mask, vector)
            for query, vector, mask, tau in zip(
                queries, vectors, masks, taus or [None] * len(queries), strict=True
            )
        ]


def _class_vector(query: Query, extractor: Extractor) -> NDArray[np.float32] | None:
    """C of a query, or None. Raises RegionError where the query does not select one object."""
    name = query.class_name
    vector = None if name is None else extractor.class_vector(name)
    regions = [kind for kind in ("mask", "box", "point") if getattr(query, kind) is not None]
    if len(regions) > 1:
        raise RegionError(f"give one of mask, box and point, not {' and '.join(regions)}")
    if not regions and vector is None:
        raise RegionError(
            "say which object in the photo is meant: by its class name, by a mask, a box or a "
            "point, or by a class name and one of these"
        )
    return vector


def _mask_cells(frame: Frame, mask: Path) -> NDArray[np.bool_]:
    return mask_cells(frame, load_mask(mask, frame.width, frame.height))


def _cells(
    query: Query, maps: FeatureMaps, extractor: Extractor, tau: float | None
) -> NDArray[np.bool_]:
    """The object's cells by box, point or class name, (grid, grid) bool."""
    if query.box is not None:
        return box_cells(maps, query.box)
    if query.point is not None:
        return point_cells(maps, query.point)
    assert query.class_name is not None  # `_class_vector` saw to that
    return extractor.class_cells(maps, query.class_name, tau)


@contextmanager
def _naming(photo: Path) -> Iterator[None]:
    """Begin a RegionError with the photo that it is about: a query may have several."""
    try:
        yield
    except RegionError as error:
        raise RegionError(f"{photo}: {error}") from None
