"""What the indexer needs of a feature extractor, and of a global descriptor."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps
from features.photo import ModelInput, Photo
from indexer.manifest import Fingerprint


class Extractor(Protocol):
    """Photos in, feature maps out.

    image_size: side of the model's square input, pixels. grid: side of the feature map, cells.
    dim: d, channels of one map.
    """

    @property
    def image_size(self) -> int: ...

    @property
    def grid(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def fingerprint(self) -> Fingerprint:
        """Everything that decides the numbers: model, revision, block, timestep, ..."""
        ...

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        """(v, d) vectors that semantic maps will be multiplied with; the codec is fitted to them.

        (0, d) for extractors that know no words.
        """
        ...

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        """One FeatureMaps an input, in order, the same whichever photos share the call."""
        ...


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
        """(n, d) vectors of length 1, the same whichever photos share the call; NaN for none."""
        ...
