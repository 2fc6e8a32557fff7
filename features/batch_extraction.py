"""Extracting photos in batches: what the extractors of all kinds of models share."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from features.device import Batches, download, how_many_fit, upload
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
        """batch_size: photos per batch; None for what suits the device, which `given_batch_size`
        then says too.
        """
        self.given_batch_size = batch_size

    @property
    @abstractmethod
    def device(self) -> "torch.device":
        """The model's device. Raises ModelError where it cannot be used."""

    @abstractmethod
    def get_ready(self) -> None:
        """Read what `features` needs, which takes most of the model's memory. Raises ModelError."""

    @property
    @abstractmethod
    def takes_any_shape(self) -> bool:
        """Whether the model sees photos without padding. Then it sees one at a time, because they
        differ in shape.
        """

    @abstractmethod
    def features(self, photos: Sequence[ModelInput]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """F_A and F_S of a whole batch, each (batch, cells, d), on the device.

        The photos are of one shape: all with their padding, or one without it.
        """

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
        """Photos per batch, or fewer where a GPU's memory does not suffice.

        A batch of padded photos is one evaluation of the model. Smaller batches are filled up, so
        that a photo's numbers do not depend on how many other photos share its batch. Where no
        number was given, an NVIDIA GPU takes as many as its free memory allows, which one photo
        shows; so this may read the model, and raise ModelError.
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

        find = self._features_without_padding if self.takes_any_shape else self._filled_up
        both = download(torch.stack([values.half() for values in find(inputs)]))

        def maps() -> list[FeatureMaps]:
            appearance, semantic = both().reshape(2, -1, self.grid, self.grid, self.dim)
            return [
                FeatureMaps(appearance[i], semantic[i], photo.frame, photo.content_hash)
                for i, photo in enumerate(inputs)
            ]

        return maps

    def _filled_up(self, photos: Sequence[ModelInput]) -> "list[torch.Tensor]":
        """F_A and F_S of at most one batch of padded photos, (photos, grid * grid, d) each."""
        found = self.features([*photos, *[photos[0]] * (self._batches.size - len(photos))])
        return [values[: len(photos)] for values in found]

    def _features_without_padding(self, photos: Sequence[ModelInput]) -> "list[torch.Tensor]":
        """F_A and F_S of photos that are seen without padding, (photos, grid * grid, d) each.

        In the place of padding stand copies of the nearest cell.
        """
        import torch

        each = []
        for photo in photos:
            frame, found = photo.frame, self.features([photo.without_padding()])
            # Made on the CPU: a GPU would have to wait for an index of its own.
            rows = torch.arange(self.grid).clamp(max=frame.rows - 1)
            columns = torch.arange(self.grid).clamp(max=frame.cols - 1)
            nearest = (rows[:, None] * frame.cols + columns).flatten()
            each.append([values[0, upload(nearest.numpy(), values.device)] for values in found])
        return [torch.stack(values) for values in zip(*each, strict=True)]
