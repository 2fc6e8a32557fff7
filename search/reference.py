"""The reference photo's side of a query."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps
from search.scores import ScoringReference

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reference:
    """One object in one photo.

    maps: its features. cells: (grid, grid) bool, the object's cells (M_r of PDM Eq. 3).
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

    def for_scoring(
        self, mean_appearance: NDArray[np.float32], device: "torch.device"
    ) -> ScoringReference:
        """This reference on a device. mean_appearance: (d,) float32, the collection's mean."""
        import torch

        vector = self.class_vector
        return ScoringReference(
            tokens=torch.from_numpy(self.tokens()).to(device),
            class_vector=None if vector is None else torch.from_numpy(vector).to(device),
            mean_appearance=torch.from_numpy(mean_appearance).to(device),
        )
