"""The feature maps of one photo."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame


@dataclass(frozen=True)
class FeatureMaps:
    """The features of one photo.

    appearance: (grid, grid, d) float16, F_A of PDM Eq. 1, row-major from the top left.
    semantic: (grid, grid, d) float16, F_S of PDM Eq. 2.
    frame: the mapping to source pixels; cells outside `frame.valid()` are padding.
    content_hash: SHA-256 of the photo's file, hexadecimal.
    """

    appearance: NDArray[np.float16]
    semantic: NDArray[np.float16]
    frame: Frame
    content_hash: str

    def valid_cells(self, values: NDArray[np.float16]) -> NDArray[np.float32]:
        """The cells of one of the maps that are not padding, (n, d) float32, in row-major order."""
        return values[self.frame.valid()].astype(np.float32)

    def pooled(self) -> NDArray[np.float32]:
        """[mean(F_A) ; mean(F_S)] over the valid cells, (2 d,) float32.

        Its inner product with `[a_r ; C] / 2` is the mean of S_DF over the map (PDM Eq. 5 to 7).
        """
        return self._pooled

    @cached_property
    def _pooled(self) -> NDArray[np.float32]:
        rows, cols = self.frame.rows, self.frame.cols
        means = [
            maps[:rows, :cols].astype(np.float32).mean(axis=(0, 1))
            for maps in (self.appearance, self.semantic)
        ]
        return np.concatenate(means)

    @property
    def is_finite(self) -> bool:
        """Whether all numbers in the valid cells are finite; float16 overflows to infinity."""
        return bool(np.isfinite(self.pooled()).all())
