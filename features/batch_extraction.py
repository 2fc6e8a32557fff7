"""Extracting photos in batches: what the extractors of all kinds of models share."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from features.device import Batches, download, how_many_fit
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import ModelInput

if TYPE_CHECKING:
    import torch

# Photos per batch where nobody says how many. On a GPU, small batches leave much of it idle.
_USUAL_BATCH = 8
_LARGEST_BATCH = 32


class BatchExtraction(ABC):
    """Extracts feature maps from photos with one model, in batches of one size.

    image_size: side of the model's square input, pixels. grid, dim: maps are (grid, grid, dim).
    """

    image_size: int
    grid: int
    dim: int

    def __init__(self, batch_size: int | None = None) -> None:
        """batch_size: photos per evaluation of the model; None for what suits the device, which
        `given_batch_size` then says too.
        """
        self.given_batch_size = batch_size

    @property
    @abstractmethod
    def device(self) -> "torch.device":
        """The model's device. Raises ModelError where it cannot be used."""

    @abstractmethod
    def get_ready(self) -> None:
        """Read what `features` needs, which takes most of the model's memory. Raises ModelError."""

    @abstractmethod
    def features(self, photos: Sequence[ModelInput]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """F_A and F_S of a whole batch, each (batch, cells, d), on the device."""

    @abstractmethod
    def with_batch_size(self, batch_size: int) -> "BatchExtraction":
        """The same model and settings in batches of another size."""

    @property
    def is_asynchronous(self) -> bool:
        """Whether `begin` returns before the maps are there."""
        return self.device.type == "cuda"

    @property
    def n_workers(self) -> int:
        """How many batches are extracted at the same time."""
        return 1

    @cached_property
    def batch_size(self) -> int:
        """Photos per evaluation of the model, or fewer where a GPU's memory does not suffice.

        Smaller batches are filled up, so that a photo's numbers do not depend on how many other
        photos share its batch. Where no number was given, an NVIDIA GPU takes as many as its free
        memory allows, which one photo shows; so this may read the model, and raise ModelError.
        """
        if self.given_batch_size is not None:
            return self.given_batch_size
        if self.device.type != "cuda":
            return _USUAL_BATCH
        one, size = self.with_batch_size(1), self.image_size
        grey = ModelInput(
            np.full((size, size, 3), 128, np.uint8), Frame(size, size, size, self.grid), "", None
        )
        return how_many_fit(self.device, lambda: one.extract([grey]), _LARGEST_BATCH)

    @cached_property
    def _batches(self) -> Batches:
        return Batches(self.batch_size)

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        """Feature maps of photos that were prepared for `image_size` and `grid`, in their order.

        Numbers beyond the range of float16 become infinite. Where the memory of a GPU does not
        suffice, it warns with LittleMemoryWarning and goes on in smaller batches. Raises ModelError
        where it does not suffice for one photo.
        """
        return self.begin(inputs)()

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        """Begin to extract photos; the function that is returned waits for what `extract` returns.

        A GPU is given all the work that it has to do for them. It raises likewise.
        """
        if inputs:
            self.get_ready()  # first, since a model that does not fit needs no smaller batch
        begun = self._batches.map(self._begin_batch, inputs)
        return lambda: list(itertools.chain.from_iterable(maps() for maps in begun))

    def _begin_batch(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        import torch

        size = self._batches.size
        found = self.features([*inputs, *[inputs[0]] * (size - len(inputs))])
        # The photos that only filled up the batch are dropped.
        both = download(torch.stack([values[: len(inputs)].half() for values in found]))

        def maps() -> list[FeatureMaps]:
            appearance, semantic = both().reshape(2, -1, self.grid, self.grid, self.dim)
            return [
                FeatureMaps(appearance[i], semantic[i], photo.frame, photo.content_hash)
                for i, photo in enumerate(inputs)
            ]

        return maps
