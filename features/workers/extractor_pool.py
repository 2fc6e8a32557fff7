"""An extractor whose work is done by several processes."""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from features.device import Precision
from features.diffusion.model import DiffusionModel
from features.diffusion.presets import FeatureSettings
from features.errors import LittleMemoryWarning
from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import ModelInput
from features.workers.messages import Message
from features.workers.worker_process import WorkerProcess

if TYPE_CHECKING:
    import torch


class ExtractorPool(FeatureExtractor):
    """Extracts photos in worker processes; a context manager, whose end ends them.

    Where there is one worker only, there is no other process: it extracts as a FeatureExtractor.
    The processes start when they are first needed. Class vectors are made in this process. Whatever
    needs a worker raises ModelError where one cannot load the model, fails, or is killed.
    """

    def __init__(
        self,
        model: DiffusionModel,
        settings: FeatureSettings,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> None:
        """workers: how many; None for one per GPU where the model's device is "cuda" or "auto",
        and for one elsewhere. More workers than GPUs share these in turn.
        """
        super().__init__(model, settings, batch_size)
        self._wanted = workers

    @classmethod
    def load(
        cls,
        name: str,
        device: str = "auto",
        batch_size: int | None = None,
        precision: Precision | None = None,
        workers: int | None = None,
    ) -> "ExtractorPool":
        """As `FeatureExtractor.load`; workers: see above."""
        one = FeatureExtractor.load(name, device, batch_size, precision)
        return cls(one.model, one.settings, batch_size, workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for worker in self.__dict__.pop("_workers", []):
            worker.end()

    @property
    def n_workers(self) -> int:
        return len(self._devices)

    @property
    def is_asynchronous(self) -> bool:
        return self.n_workers > 1 or super().is_asynchronous

    @cached_property
    def batch_size(self) -> int:
        if self._given_batch_size is None and self._workers:
            # A GPU with less memory than another works on its batches in parts.
            return max(worker.ready.result().fields["batch_size"] for worker in self._workers)
        return super().batch_size

    def get_ready(self) -> None:
        if not self._workers:
            super().get_ready()
        for worker in self._workers:
            worker.ready.result()

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        if not self._workers:
            return super().vocabulary_vectors()
        vectors = self._workers[0].ask(Message()).result().array
        assert vectors is not None
        return vectors

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        if not self._workers or not inputs:
            return super().begin(inputs)
        # Of those with least to do, the one that was given its work first.
        worker = min(self._workers, key=lambda worker: worker.n_asked)
        self._workers.remove(worker)
        self._workers.append(worker)
        hashes = [photo.content_hash for photo in inputs]
        pixels = np.stack([photo.pixels for photo in inputs])
        answer = worker.ask(Message({"hashes": hashes}, pixels))

        def maps() -> list[FeatureMaps]:
            told = answer.result()
            for warning in told.fields["warnings"]:
                warnings.warn(f"{worker.device}: {warning}", LittleMemoryWarning, stacklevel=2)
            assert told.array is not None
            return [
                FeatureMaps(appearance, semantic, photo.frame, photo.content_hash)
                for (appearance, semantic), photo in zip(told.array, inputs, strict=True)
            ]

        return maps

    @cached_property
    def _devices(self) -> list[str]:
        """The device of each worker."""
        found = gpus(self.device)
        return [found[i % len(found)] for i in range(self._wanted or len(found))]

    @cached_property
    def _workers(self) -> list[WorkerProcess]:
        """The processes; none where this one does the work."""
        devices = self._devices if self.n_workers > 1 else []
        task = {
            "fingerprint": self.fingerprint(),
            "batch_size": self._given_batch_size,
            "neighbours": len(devices),
        }
        return [WorkerProcess({**task, "device": device}) for device in devices]


def gpus(device: "torch.device") -> list[str]:
    """The GPUs that a device stands for: all where it is "cuda" without a number; else itself."""
    import torch

    if device.type == "cuda" and device.index is None:
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [str(device)]
