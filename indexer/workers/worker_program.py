"""The program of a worker process: it extracts what it is sent, until its input ends.

It answers each message with one, in their order. The first says what to load:

    fingerprint, device, batch_size         ->  batch_size
    "maps": frames, hashes, and pixels      ->  maps (n, 2, grid, grid, d) float16
            (n, size, size, 3) uint8
    "codec": the file of one                ->  nothing
    "encoded": as for "maps"                ->  hashes of finite maps; of each, the arrays of
                                                `EncodedMaps`, by the codec
    "vocabulary"                            ->  vectors of the vocabulary (v, d) float32

An error that is for people is the last answer; after any other, Python tells what went wrong. An
answer may bring warnings.
"""

import os
import queue
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np

from features.errors import WaldoError, is_full_memory
from features.frame import Frame
from features.maps import FeatureMaps
from features.models import MapExtractor, extractor_of
from features.photo import ModelInput
from indexer.codec.codec import Codec
from indexer.codec.encoded_maps import encode_photos
from indexer.workers.messages import Message

_Work = Callable[[], Message]


class Answers:
    """Sends answers. A failure ends the process, because what it was asked next is void."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._warnings: list[str] = []
        self._usual = warnings.showwarning
        warnings.showwarning = self._keep_warning

    def send(self, work: _Work) -> None:
        """Send what some work comes to."""
        try:
            answer = work()
        except Exception as error:
            if isinstance(error, WaldoError):
                self._write(Message({"error": str(error)}))
            elif is_full_memory(error):
                message = "the device's memory is full; use another one, such as cpu"
                self._write(Message({"error": message}))
            else:
                traceback.print_exc()
            os._exit(1)
        self._write(answer)

    def _write(self, answer: Message) -> None:
        kept, self._warnings = self._warnings, []
        try:
            Message({**answer.fields, "warnings": kept}, answer.arrays).write(self._stream)
        except OSError:
            os._exit(0)  # nobody waits for it any more

    def _keep_warning(
        self, message: Warning | str, category: type[Warning], *where: Any, **more: Any
    ) -> None:
        """Waldo's own warnings are for the one who asked; others are shown as usual."""
        if category.__module__ == "features.errors":
            self._warnings.append(str(message))
        else:
            self._usual(message, category, *where, **more)


def load(task: Message) -> MapExtractor:
    """The extractor that the first message asks for, with its weights. Raises ModelError."""
    import torch

    asked = task.fields
    if asked["device"].startswith("cuda"):
        torch.cuda.set_device(asked["device"])  # or pinned memory would belong to the first GPU
    extractor = extractor_of(asked["fingerprint"], asked["device"], asked["batch_size"])
    extractor.get_ready()
    return extractor


class Worker:
    """Does what messages ask for."""

    def __init__(self, extractor: MapExtractor) -> None:
        self._extractor = extractor
        self._codec: Codec | None = None

    def begin(self, request: Message) -> _Work:
        """Begin what a message asks for; the function that is returned waits for it."""
        what = request.fields["what"]
        if what == "vocabulary":
            return lambda: Message(arrays=[self._extractor.vocabulary_vectors()])
        try:
            if what == "codec":
                self._codec = Codec.load(Path(request.fields["file"]))
                return Message
            maps = self._extractor.begin(self._photos(request))
        except Exception as error:
            return _raising(error)
        codec = self._codec if what == "encoded" else None
        return lambda: _of_maps(maps()) if codec is None else _encoded(codec, maps())

    def _photos(self, request: Message) -> list[ModelInput]:
        size, grid = self._extractor.image_size, self._extractor.grid
        told = zip(
            request.arrays[0], request.fields["frames"], request.fields["hashes"], strict=True
        )
        return [
            ModelInput(pixels, Frame(width, height, size, grid), content)
            for pixels, (width, height), content in told
        ]


def _of_maps(photos: list[FeatureMaps]) -> Message:
    return Message(arrays=[np.stack([(maps.appearance, maps.semantic) for maps in photos])])


def _encoded(codec: Codec, photos: list[FeatureMaps]) -> Message:
    found = encode_photos(codec, photos)
    arrays = [array for one in found.values() for array in (one.encoded, one.pooled, one.words)]
    return Message({"hashes": list(found)}, arrays)


def _raising(error: Exception) -> _Work:
    def fail() -> Message:
        raise error

    return fail


def _receive(stream: IO[bytes], inbox: "queue.SimpleQueue[Message]") -> None:
    """Take in messages, whatever the process is at; where they end, end it."""
    while (message := Message.read(stream)) is not None:
        inbox.put(message)
    os._exit(0)


def main() -> None:
    # What a library prints must not get between the answers.
    answers = Answers(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, inbox), daemon=True).start()
    loaded: list[MapExtractor] = []

    def get_ready() -> Message:
        loaded.append(load(inbox.get()))
        return Message({"batch_size": loaded[0].batch_size})

    answers.send(get_ready)
    worker = Worker(loaded[0])
    # While one batch is extracted, the maps of the batch before are encoded and sent.
    with ThreadPoolExecutor(1) as sender:
        while True:
            sender.submit(answers.send, worker.begin(inbox.get()))


if __name__ == "__main__":
    main()
