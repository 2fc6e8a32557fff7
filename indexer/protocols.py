"""The contracts of what turns photos into numbers.

An `Extractor` gives feature maps, a `Descriptor` one vector per photo. Any class with these members
will do. A subclass of `Extractor` inherits the answers of an extractor that knows no class names.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from features.errors import RegionError
from features.maps import FeatureMaps
from features.photo import ModelInput, Photo
from indexer.codec.codec import Codec
from indexer.codec.encoded_maps import EncodedMaps
from indexer.store.manifest import Fingerprint

if TYPE_CHECKING:
    import torch


class Extractor(Protocol):
    """Photos in, feature maps out.

    image_size: side of the model's square input in pixels. grid: side of the feature map in cells.
    dim: d, the channels of one map.
    """

    image_size: int
    grid: int
    dim: int

    @property
    def device(self) -> "torch.device":
        """The device of the model, on which maps are best compared."""
        import torch

        return torch.device("cpu")

    @property
    def is_asynchronous(self) -> bool:
        """Whether `begin` returns before the maps are there: something else computes them."""
        return False

    @property
    def n_workers(self) -> int:
        """How many batches are extracted at the same time."""
        return 1

    @property
    def batch_size(self) -> int:
        """Photos per batch that suit the extractor. It may load a model to tell."""
        return 8

    def fingerprint(self) -> Fingerprint:
        """Everything that decides the numbers: model, revision, block, timestep, ..."""
        ...

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        """One FeatureMaps per input, in order; none depends on the other photos of the call."""
        ...

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        """Begin to extract photos; the function that is returned waits for what `extract` returns.

        It may be called in another thread.
        """
        maps = self.extract(inputs)
        return lambda: maps

    def get_ready(self) -> None:
        """Load what `extract` needs, if it needs anything. Raises ModelError where it cannot.

        It is called before a new index is made, so that none is made for a model that is broken.
        Elsewhere, `extract` itself loads what it needs.
        """
        return

    @property
    def knows_words(self) -> bool:
        """Whether it knows class names."""
        return False

    def check_class_name(self, name: str) -> None:
        """Raise RegionError for a class name that is certainly unknown.

        Whatever takes long, such as loading a model, is left to `class_vector`.
        """
        return

    def class_vector(self, name: str) -> NDArray[np.float32] | None:
        """C of PDM Eq. 3 for a class name, (d,); None if the extractor knows no class names.

        Raises RegionError if it knows class names, but not this one.
        """
        return None

    def class_cells(
        self, maps: FeatureMaps, name: str, tau: float | None = None
    ) -> NDArray[np.bool_]:
        """The cells that show an object of a class, (grid, grid) bool (PDM Eq. 3).

        tau: the threshold of Eq. 3; None for the extractor's own rule. Raises RegionError if the
        name selects no cell.
        """
        raise RegionError(f"class name {name!r}: these features know no words; give a region")

    def evidence_vector(self, name: str) -> NDArray[np.float32] | None:
        """The vector whose inner product with F_S is the evidence that a cell shows a class rather
        than the background, (d,) float32; None if the extractor has none.
        """
        return None

    @property
    def rival_vectors(self) -> NDArray[np.float32]:
        """The class vectors of the names that a class name competes with, (m, d), m >= 0."""
        return np.empty((0, self.dim), dtype=np.float32)

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        """The vectors that semantic maps will be multiplied with, (v, d), v >= 0.

        A codec that loses something is fitted to them. They may take minutes to make.
        """
        return np.empty((0, self.dim), dtype=np.float32)


@runtime_checkable
class EncodesMaps(Protocol):
    """What an extractor has besides where it encodes maps itself, such as in other processes."""

    def begin_encoded(
        self, inputs: Sequence[ModelInput], codec: Codec
    ) -> Callable[[], dict[str, EncodedMaps]]:
        """Begin to extract and encode photos; the function that is returned waits for what
        `encode_photos` makes of the maps that `extract` returns.

        It may be called in another thread.
        """
        ...


class Descriptor(Protocol):
    """Photos in, one vector each.

    name: of its column in the index. dim: the length of a vector.
    """

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def fingerprint(self) -> Fingerprint:
        """Everything that decides the numbers."""
        ...

    def get_ready(self) -> None:
        """As `Extractor.get_ready`; it is called before an index gets a column for the vectors."""
        return

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """The input that `describe` takes for a photo; safe for threads. Raises as `load_photo`."""
        ...

    def describe(self, inputs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """(n, dim) vectors of length 1, in order; a row of NaN for a photo that has none.

        None depends on the other photos of the call.
        """
        ...
