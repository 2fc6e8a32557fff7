"""The contracts that the engine has with what turns photos into numbers.

`Extractor` gives feature maps, `Descriptor` one vector. Any class with these members will do; one
that subclasses `Extractor` inherits the answers of an extractor that knows no words.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from features.errors import RegionError
from features.maps import FeatureMaps
from features.photo import ModelInput, Photo
from indexer.store.manifest import Fingerprint

if TYPE_CHECKING:
    import torch


class Extractor(Protocol):
    """Photos in, feature maps out.

    image_size: side of the model's square input, pixels. grid: side of the feature map, cells.
    dim: d, channels of one map.
    """

    image_size: int
    grid: int
    dim: int

    @property
    def device(self) -> "torch.device":
        """Where maps are compared best: the model's own device."""
        import torch

        return torch.device("cpu")

    def fingerprint(self) -> Fingerprint:
        """Everything that decides the numbers: model, revision, block, timestep, ..."""
        ...

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        """One FeatureMaps per input, in order; they do not depend on which photos share the call."""
        ...

    def class_vector(self, name: str) -> NDArray[np.float32] | None:
        """C of PDM Eq. 3 for a class name, (d,); None where the extractor knows no words.

        Raises RegionError where it knows words, but none of this name.
        """
        return None

    def class_cells(
        self, maps: FeatureMaps, name: str, tau: float | None = None
    ) -> NDArray[np.bool_]:
        """The cells of the object that a class name means, (grid, grid) bool (PDM Eq. 3).

        tau: the threshold of Eq. 3; None for the extractor's own rule. Raises RegionError where the
        name selects nothing.
        """
        raise RegionError(f"class name {name!r}: these features know no words; give a region")

    @property
    def rival_vectors(self) -> NDArray[np.float32]:
        """Class vectors of the names that a class competes with, (m, d), m >= 0."""
        return np.empty((0, self.dim), dtype=np.float32)

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        """The vectors that semantic maps will be multiplied with, (v, d), v >= 0; the codec is
        fitted to them.
        """
        return np.empty((0, self.dim), dtype=np.float32)


class Descriptor(Protocol):
    """Photos in, one vector each. name: that of its column. dim: d, length of a vector."""

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def fingerprint(self) -> Fingerprint:
        """Everything that decides the numbers."""
        ...

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """What `describe` takes of a photo; safe for threads. Raises what `load_photo` raises."""
        ...

    def describe(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """(n, d) vectors of length 1, in order; a row of NaN for a photo that has none.

        They do not depend on which photos share the call.
        """
        ...
