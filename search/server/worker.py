"""One open index, asked by one thread: searches wait for each other in a line of bounded length."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from features.errors import WaldoError
from indexer.collection import Collection
from indexer.fleet.fleet_reader import open_collection
from search.index import Index, open_index
from search.server.request_bodies import RequestError

Result = TypeVar("Result")

# Requests that are worked on or wait; beyond them, people are asked to come back.
MOST_WAITING = 16


class SearchWorker:
    """An open index with its model, and the thread that asks it.

    Where a writer has committed since, the index is opened anew, and the model is kept.
    """

    def __init__(self, directory: Path, device: str) -> None:
        """Raises as `open_index`."""
        self._index = open_index(directory, device)
        self._device = device
        self._reader = self._index.reader
        self._refreshing = threading.Lock()
        self._free = threading.BoundedSemaphore(MOST_WAITING)
        self._thread = ThreadPoolExecutor(1, "search")
        self._thread.submit(self._warm_up)

    def close(self) -> None:
        """Finish the work at hand, drop what waits, and close the index."""
        self._thread.shutdown(cancel_futures=True)
        self._index.close()
        self._reader.close()

    def reader(self) -> Collection:
        """The index as of its last commit, for any thread: its photos, but not their maps.

        It reads files, so the event loop must not call it. Nobody closes what it returns.
        Raises IndexMissingError, IndexFormatError, IndexDamagedError, and WaldoError where the
        index was made anew by another model.
        """
        with self._refreshing:
            if not self._reader.is_current():
                opened = open_collection(self._reader.index_dir)
                if opened.fingerprint != self._reader.fingerprint:
                    opened.close()
                    raise WaldoError(
                        f"{opened.place}: was made anew with another model; start `waldo "
                        "serve` again"
                    )
                self._reader = opened
            return self._reader

    async def run(self, job: Callable[[Index], Result]) -> Result:
        """What a job returns or raises, which runs when those before it are done.

        Raises RequestError (503) where too many wait.
        """
        if not self._free.acquire(blocking=False):
            raise RequestError("too many searches wait; try again in a moment", 503)
        future = self._thread.submit(self._work, job)
        future.add_done_callback(lambda _: self._free.release())
        return await asyncio.wrap_future(future)

    def _warm_up(self) -> None:
        """Read the model and the recall index before anybody waits for them.

        What cannot be read is said to whoever asks for it first.
        """
        with contextlib.suppress(WaldoError):
            self._index.extractor.get_ready()
            _ = self._index.reader.word_recall

    def _work(self, job: Callable[[Index], Result]) -> Result:
        reader = self.reader()
        if reader is not self._index.reader:
            # The reader before is not closed: other threads may still use it. It goes when the last
            # of them lets go of it, and with it its threads and its lock.
            self._index = Index(reader, self._index.extractor, self._device)
        return job(self._index)
