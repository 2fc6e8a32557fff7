"""An extractor whose work is done by several processes."""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from features.errors import LittleMemoryWarning
from features.maps import FeatureMaps
from features.models import MapExtractor
from features.photo import ModelInput
from indexer.codec.codec import Codec
from indexer.codec.encoded_maps import EncodedMaps, encode_photos
from indexer.workers.messages import Message
from indexer.workers.worker_process import WorkerProcess

if TYPE_CHECKING:
    import torch


class ExtractorPool:
    """Extracts photos as another extractor does, in worker processes; a context manager, whose end
    ends them.

    Where there is one worker only, there is no other process: that extractor does the work. The
    processes start when they are first needed. What does not extract photos is done in this
    process. Whatever needs a worker raises ModelError where one cannot load the model, fails, or is
    killed.
    """

    def __init__(self, one: MapExtractor, workers: int | None = None) -> None:
        """one: what each worker does. workers: how many; None for one per GPU where the model's
        device is "cuda" or "auto", and for one elsewhere. More workers than GPUs share these in
        turn.
        """
        self._one = one
        self._wanted = workers
        self._codec: Codec | None = None  # what the workers have
        self.image_size, self.grid, self.dim = one.image_size, one.grid, one.dim

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._codec = None
        for worker in self.__dict__.pop("_workers", []):
            worker.end()

    @property
    def n_workers(self) -> int:
        return len(self._devices)

    @property
    def is_asynchronous(self) -> bool:
        return self.n_workers > 1 or self._one.is_asynchronous

    @property
    def device(self) -> "torch.device":
        return self._one.device

    @cached_property
    def batch_size(self) -> int:
        if self._workers:
            # A GPU with less memory than another works on its batches in parts.
            return max(worker.ready.result().fields["batch_size"] for worker in self._workers)
        return self._one.batch_size

    def fingerprint(self) -> dict[str, str | int]:
        return self._one.fingerprint()

    def get_ready(self) -> None:
        if not self._workers:
            self._one.get_ready()
        for worker in self._workers:
            worker.ready.result()

    @property
    def knows_words(self) -> bool:
        return self._one.knows_words

    def check_class_name(self, name: str) -> None:
        self._one.check_class_name(name)

    def class_vector(self, name: str) -> NDArray[np.float32] | None:
        return self._one.class_vector(name)

    def class_cells(
        self, maps: FeatureMaps, name: str, tau: float | None = None
    ) -> NDArray[np.bool_]:
        return self._one.class_cells(maps, name, tau)

    def evidence_vector(self, name: str) -> NDArray[np.float32] | None:
        return self._one.evidence_vector(name)

    @property
    def rival_vectors(self) -> NDArray[np.float32]:
        return self._one.rival_vectors

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        if not self._workers:
            return self._one.vocabulary_vectors()
        return self._workers[0].ask(Message({"what": "vocabulary"})).result().arrays[0]

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        return self.begin(inputs)()

    def begin(self, inputs: Sequence[ModelInput]) -> Callable[[], list[FeatureMaps]]:
        if not self._workers or not inputs:
            return self._one.begin(inputs)
        answer = self._ask("maps", inputs)
        return lambda: [
            FeatureMaps(appearance, semantic, photo.frame, photo.content_hash)
            for (appearance, semantic), photo in zip(answer().arrays[0], inputs, strict=True)
        ]

    def begin_encoded(
        self, inputs: Sequence[ModelInput], codec: Codec
    ) -> Callable[[], dict[str, EncodedMaps]]:
        """As `indexer.protocols.EncodesMaps`. A worker encodes while it extracts what it was asked
        for next.
        """
        if not self._workers or not inputs:
            maps = self._one.begin(inputs)
            return lambda: encode_photos(codec, maps())
        if codec is not self._codec:
            self._send(codec)
        answer = self._ask("encoded", inputs)

        def encoded() -> dict[str, EncodedMaps]:
            told = answer()
            arrays = iter(told.arrays)
            return {
                content: EncodedMaps(next(arrays), next(arrays), next(arrays))
                for content in told.fields["hashes"]
            }

        return encoded

    def _send(self, codec: Codec) -> None:
        """Have each worker read a codec."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / "codec.safetensors"
            codec.save(file)
            request = Message({"what": "codec", "file": str(file)})
            for answer in [worker.ask(request) for worker in self._workers]:
                answer.result()
        self._codec = codec

    def _ask(self, what: str, inputs: Sequence[ModelInput]) -> Callable[[], Message]:
        """Give photos to a worker; the function that is returned waits for its answer."""
        # Of those with least to do, the one that was given its work first.
        worker = min(self._workers, key=lambda worker: worker.n_asked)
        self._workers.remove(worker)
        self._workers.append(worker)
        fields = {
            "what": what,
            "frames": [(photo.frame.width, photo.frame.height) for photo in inputs],
            "hashes": [photo.content_hash for photo in inputs],
        }
        asked = worker.ask(Message(fields, [np.stack([photo.pixels for photo in inputs])]))

        def answer() -> Message:
            told = asked.result()
            for warning in told.fields["warnings"]:
                warnings.warn(f"{worker.device}: {warning}", LittleMemoryWarning, stacklevel=2)
            return told

        return answer

    @cached_property
    def _devices(self) -> list[str]:
        """The device of each worker."""
        found = gpus(self.device)
        return [found[i % len(found)] for i in range(self._wanted or len(found))]

    @cached_property
    def _workers(self) -> list[WorkerProcess]:
        """The processes; none where this one does the work."""
        import torch

        devices = self._devices if self.n_workers > 1 else []
        task = {
            "fingerprint": self.fingerprint(),
            "batch_size": self._one.given_batch_size,
        }
        # They share the cores.
        threads = max(1, torch.get_num_threads() // max(1, len(devices)))
        return [WorkerProcess({**task, "device": device}, threads) for device in devices]


def gpus(device: "torch.device") -> list[str]:
    """The GPUs that a device stands for: all where it is "cuda" without a number; else itself."""
    import torch

    if device.type == "cuda" and device.index is None:
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [str(device)]
