"""What the indexer needs of a feature extractor."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps
from features.photo import ModelInput
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
