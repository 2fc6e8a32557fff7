"""Workers that fit a fleet's codec and bring its parts up to date, in processes of their own on any
machine.
"""

import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from features.models import MapExtractor, extractor_of, find_extractor
from features.vision.descriptors import ImageDescriptor
from indexer.bucket.object_store import Bucket, url_in
from indexer.bucket.transfer import put_sound
from indexer.bucket.working_copy import RUN_AGAIN
from indexer.errors import IndexBusyError, SourceError
from indexer.fleet.new_fleet import NewFleet
from indexer.fleet.part_places import is_there
from indexer.fleet.part_update import PartUpdate
from indexer.fleet.shares import Share
from indexer.ingest.progress import IndexReport, Progress
from indexer.ingest.sources import Source
from indexer.parts import Fleet
from indexer.ray_cluster import not_seen, set_threads
from indexer.store.locks import LOCK_NAME

# Photos per batch of descriptors where nobody says how many.
_DESCRIBED_AT_ONCE = 8
# Seconds to wait for a part that a worker of a killed run still holds. A network file system frees
# the locks of a machine that it lost after some 90.
_PATIENCE = 150.0
_SECONDS_BETWEEN_TRIES = 0.5


@dataclass(frozen=True)
class PartWork:
    """What workers need to know before they are given parts.

    descriptors: their fingerprints. device: its name on the worker's machine. threads: how many
    compute at a time.
    """

    update: PartUpdate
    descriptors: tuple[Mapping[str, Any], ...]
    device: str
    threads: int


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
        _check_visible(found.source for found in new.chosen)
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
    """Brings one part after another up to date. Another thread may ask for `progress`, and `stop`
    the work.
    """

    def __init__(self, work: PartWork) -> None:
        """Nothing that can fail is done here."""
        self._work = work
        self._stopped = threading.Event()
        self._progress: tuple[int, Progress] | None = None

    def start(self) -> None:
        """Look whether this machine sees what the others see, and set the number of threads.

        Raises IndexMissingError, SourceError, BucketError.
        """
        update = self._work.update
        if not is_there(update.fleet, update.url):
            raise not_seen(update.url or str(update.fleet.index_dir))
        _check_visible(update.sources)
        set_threads(self._work.threads)

    def update(self, number: int, share: Share) -> tuple[IndexReport, Progress] | None:
        """Bring the part of this number up to date with its share of the listing; None if the work
        was stopped.

        Returns the report, and the last progress, for which nobody may have asked.

        Raises as `PartUpdate.run`.
        """
        patient_until = time.monotonic() + _PATIENCE
        while True:
            try:
                report = self._work.update.run(
                    number,
                    share,
                    self._extractor,
                    self._descriptors,
                    on_progress=lambda progress: self._report(number, progress),
                )
                assert self._progress is not None
                return report, self._progress[1]
            except KeyboardInterrupt:
                return None
            except IndexBusyError:
                if time.monotonic() > patient_until or self._stopped.wait(_SECONDS_BETWEEN_TRIES):
                    raise

    def progress(self) -> tuple[int, Progress] | None:
        """The part that is worked on, and how far it is; None before the first one."""
        return self._progress

    def stop(self) -> None:
        """End the update at the next batch, as Ctrl-C would: what is extracted is committed."""
        self._stopped.set()

    def _report(self, number: int, progress: Progress) -> None:
        self._progress = number, progress
        if self._stopped.is_set():
            raise KeyboardInterrupt

    @cached_property
    def _extractor(self) -> MapExtractor:
        work = self._work
        return extractor_of(work.update.fingerprint, work.device, work.update.batch_size)

    @cached_property
    def _descriptors(self) -> list[ImageDescriptor]:
        work = self._work
        size = work.update.batch_size or _DESCRIBED_AT_ONCE
        return [
            ImageDescriptor.from_fingerprint(dict(fingerprint), work.device, size)
            for fingerprint in work.descriptors
        ]


def _check_visible(sources: Iterable[Source]) -> None:
    for source in sources:
        # Buckets are the same for all; who may not read them is told when a photo is fetched.
        if url_in(source.path) is None and not source.path.exists():
            raise SourceError(
                f"{source.path}: is not there on the machine {socket.gethostname()}; every machine "
                "of the cluster must see the photos at the same paths"
            )
