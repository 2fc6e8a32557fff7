"""The reference photo's side of a query."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.errors import ModelError, RegionError
from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import load_model_input
from features.regions import box_cells, load_mask, mask_cells, point_cells
from indexer.protocols import Extractor
from search.fusion import default_weights
from search.query import Query
from search.scores import NO_CLASS, FusionWeights, ScoringReference

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reference:
    """One object in one photo.

    maps: its features. cells: (grid, grid) bool, the object's cells (M_r of PDM Eq. 3).
    class_vector: C, (d,) float32, or None. rivals, weights: as `ScoringReference` has them.
    """

    maps: FeatureMaps
    cells: NDArray[np.bool_]
    class_vector: NDArray[np.float32] | None
    rivals: NDArray[np.float32] | None = None
    weights: FusionWeights = NO_CLASS

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
            rivals=None if self.rivals is None else torch.from_numpy(self.rivals).to(device),
            weights=self.weights,
        )


def make_reference(
    query: Query,
    extractor: Extractor,
    weights: FusionWeights | None = None,
    tau: float | None = None,
) -> Reference:
    """Features of the query's photo and the cells of its object.

    weights: for the scores that fuse evidence; None for the model's own. tau: of PDM Eq. 3, for an
    object that a class name alone finds; None for the model's own rule.

    A class name means something to a diffusion model only: other extractors look at regions. Raises
    RegionError where the query selects nothing, PhotoError for a broken photo, ModelError where the
    model gives no finite features.
    """
    try:
        return _make_reference(query, extractor, weights, tau)
    except RegionError as error:
        # Of several photos, which one is it about?
        raise RegionError(f"{query.photo}: {error}") from None


def _make_reference(
    query: Query, extractor: Extractor, weights: FusionWeights | None, tau: float | None
) -> Reference:
    model = extractor if isinstance(extractor, FeatureExtractor) else None
    name = query.class_name
    class_vector = None if model is None or name is None else model.class_vector(name)
    regions = [name for name in ("mask", "box", "point") if getattr(query, name) is not None]
    if len(regions) > 1:
        raise RegionError(f"give one of --mask, --box and --point, not {' and '.join(regions)}")
    if not regions and class_vector is None:
        raise RegionError(
            "say which object in the photo is meant: by --class NAME, "
            "or by --mask, --box or --point, or both"
        )
    photo = load_model_input(query.photo, extractor.image_size, extractor.grid)
    frame = photo.frame
    if query.mask is not None:
        cells = mask_cells(frame, load_mask(query.mask, frame.width, frame.height))
    [maps] = extractor.extract([photo])
    if not np.isfinite(maps.pooled()).all():
        raise ModelError(f"{query.photo}: the model gave no finite features for it")
    if query.box is not None:
        cells = box_cells(maps, query.box)
    elif query.point is not None:
        cells = point_cells(maps, query.point)
    elif query.mask is None:
        assert model is not None  # other extractors are asked by regions alone
        assert name is not None
        cells = model.class_cells(maps, name, tau)
    if weights is None:
        weights = default_weights("" if model is None else model.model.name)
    rivals = None
    if model is not None and class_vector is not None and weights.class_evidence:
        rivals = model.rival_vectors
    return Reference(maps, cells, class_vector, rivals, weights)
