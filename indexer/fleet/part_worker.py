"""Workers that fit a fleet's codec and do work to its parts, in processes of their own on any
machine.
"""

import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.models import find_extractor
from indexer.bucket.object_store import Bucket
from indexer.bucket.transfer import put_sound
from indexer.bucket.working_copy import RUN_AGAIN
from indexer.errors import IndexBusyError
from indexer.fleet.new_fleet import NewFleet
from indexer.fleet.part_places import is_there
from indexer.fleet.part_update import check_visible
from indexer.fleet.part_work import PartWork
from indexer.parts import Fleet
from indexer.ray_cluster import not_seen, set_threads
from indexer.store.locks import LOCK_NAME

# Seconds to wait for a part that a worker of a killed run still holds. A network file system frees
# the locks of a machine that it lost after some 90.
_PATIENCE = 150.0
_SECONDS_BETWEEN_TRIES = 0.5


class CodecWorker:
    """Fits the codec of a new fleet. Another thread may ask for `progress`.

    model: its name, of which this machine decides the precision.
    """

    def __init__(self, new: NewFleet, model: str, device: str, threads: int) -> None:
        """Nothing that can fail is done here."""
        self._new = new
        self._model, self._device, self._threads = model, device, threads
        self._extracted = 0

    def fit(self) -> Fleet:
        """As `NewFleet.fit`; the codec of a fleet in a bucket is stored there.

        Raises SourceError also where this machine does not see the photos, BucketError.
        """
        new = self._new
        if new.url is None and not (new.index_dir / LOCK_NAME).exists():
            raise not_seen(str(new.index_dir))
        for found in new.chosen:
            check_visible(found.source)
        set_threads(self._threads)
        extractor = find_extractor(self._model, self._device, new.batch_size)
        if new.url is None:
            return new.fit(extractor, self._report)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            fleet = replace(new, index_dir=folder).fit(extractor, self._report)
            put_sound(Bucket(new.url), fleet.codec, folder, RUN_AGAIN)
        return replace(fleet, index_dir=new.index_dir)

    def progress(self) -> int:
        """How many photos are extracted."""
        return self._extracted

    def _report(self, extracted: int) -> None:
        self._extracted = extracted


class PartWorker:
    """Does some work to one part after another. Another thread may ask for `progress`, and `stop`
    the work.

    threads: how many compute at a time.
    """

    def __init__(self, work: PartWork, threads: int) -> None:
        """Nothing that can fail is done here."""
        self._work = work
        self._threads = threads
        self._stopped = threading.Event()
        self._progress: tuple[int, Any] | None = None

    def start(self) -> None:
        """Look whether this machine sees what the others see, and set the number of threads.

        Raises IndexMissingError, BucketError, and as `PartWork.check_machine`.
        """
        work = self._work
        if not is_there(work.fleet, work.url):
            raise not_seen(work.url or str(work.fleet.index_dir))
        work.check_machine()
        set_threads(self._threads)

    def do(self, number: int, given: Any) -> tuple[Any, tuple[int, Any] | None] | None:
        """Do the work to the part of this number; None if it was stopped.

        Returns its result, and the last progress, for which nobody may have asked. Raises as
        `PartWork.run`.
        """
        patient_until = time.monotonic() + _PATIENCE
        while True:
            try:
                result = self._work.run(number, given, lambda step: self._report(number, step))
            except KeyboardInterrupt:
                return None
            except IndexBusyError:
                if time.monotonic() > patient_until or self._stopped.wait(_SECONDS_BETWEEN_TRIES):
                    raise
            else:
                return result, self.progress()

    def progress(self) -> tuple[int, Any] | None:
        """The part that is worked on, and how far it is; None before the first one."""
        return self._progress

    def stop(self) -> None:
        """End the work at its next step, as Ctrl-C would: what is extracted is committed."""
        self._stopped.set()

    def _report(self, number: int, step: Any) -> None:
        self._progress = number, step
        if self._stopped.is_set():
            raise KeyboardInterrupt
