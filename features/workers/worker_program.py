"""The program of a worker process: it extracts what it is sent, until its input ends.

It answers each message with one, in their order. The first says what to load:

    fingerprint, device, batch_size, neighbours     ->  batch_size
    hashes, with pixels (n, size, size, 3) uint8    ->  maps (n, 2, grid, grid, d) float16
    nothing                                         ->  vectors of the vocabulary (v, d) float32

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
from typing import IO, Any

import numpy as np

from features.errors import WaldoError, is_full_memory
from features.frame import Frame
from features.models import MapExtractor, extractor_of
from features.photo import ModelInput
from features.workers.messages import Message

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
            Message({**answer.fields, "warnings": kept}, answer.array).write(self._stream)
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
    # Those who compute on the same cores share them.
    torch.set_num_threads(max(1, torch.get_num_threads() // asked["neighbours"]))
    if asked["device"].startswith("cuda"):
        torch.cuda.set_device(asked["device"])  # or pinned memory would belong to the first GPU
    extractor = extractor_of(asked["fingerprint"], asked["device"], asked["batch_size"])
    extractor.get_ready()
    return extractor


def begin(extractor: MapExtractor, request: Message) -> _Work:
    """Begin what a message asks for; the function that is returned waits for it."""
    if request.array is None:
        return lambda: Message(array=extractor.vocabulary_vectors())
    # What the pixels show of the photo is known to the one who asks.
    frame = Frame(extractor.image_size, extractor.image_size, extractor.image_size, extractor.grid)
    hashes = request.fields["hashes"]
    photos = zip(request.array, hashes, strict=True)
    try:
        maps = extractor.begin([ModelInput(pixels, frame, content) for pixels, content in photos])
    except Exception as error:
        return _raising(error)
    return lambda: Message(array=np.stack([(m.appearance, m.semantic) for m in maps()]))


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
    # While a GPU extracts one batch, the maps of the batch before are sent.
    with ThreadPoolExecutor(1) as sender:
        while True:
            sender.submit(answers.send, begin(loaded[0], inbox.get()))


if __name__ == "__main__":
    main()
