"""A worker that brings parts of a fleet up to date, within its own process on any machine."""

import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from features.models import MapExtractor, extractor_of
from features.vision.descriptors import ImageDescriptor
from indexer.errors import IndexBusyError, IndexMissingError, SourceError
from indexer.fleet.part_update import PartUpdate
from indexer.fleet.parts import read_fleet
from indexer.ingest.progress import IndexReport, Progress

# Photos per batch of descriptors where nobody says how many.
_DESCRIBED_AT_ONCE = 8
# Seconds to wait for a part that a worker of a killed run still holds. A network file system frees
# the locks of a machine that it lost after some 90.
_PATIENCE = 150.0
_SECONDS_BETWEEN_TRIES = 0.5


@dataclass(frozen=True)
class PartWork:
    """What workers need to know before they are given parts.

    fingerprint, descriptors: of the extractor and the descriptors, which each worker loads once.
    device: its name on the worker's machine. threads: how many compute at a time.
    """

    update: PartUpdate
    fingerprint: Mapping[str, Any]
    descriptors: tuple[Mapping[str, Any], ...]
    device: str
    threads: int


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

        Raises IndexMissingError, SourceError.
        """
        fleet, sources = self._work.update.fleet, self._work.update.shares.sources
        here = socket.gethostname()
        if read_fleet(fleet.index_dir) != fleet:
            raise IndexMissingError(
                f"{fleet.index_dir}: is not this fleet on the machine {here}; every machine of the "
                "cluster must see its folder at the same path"
            )
        for source in sources:
            if not source.path.exists():
                raise SourceError(
                    f"{source.path}: is not there on the machine {here}; every machine of the "
                    "cluster must see the photos at the same paths"
                )
        self._set_threads()

    def update(self, number: int) -> tuple[IndexReport, Progress] | None:
        """Bring the part of this number up to date; None if the work was stopped.

        Returns the report, and the last progress, for which nobody may have asked.

        Raises as `index_photos`.
        """
        patient_until = time.monotonic() + _PATIENCE
        while True:
            try:
                report = self._work.update.run(
                    number,
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

    def _set_threads(self) -> None:
        """Each worker computes with as many threads as it has cores: where there are more, they
        wait for each other.
        """
        threads = self._work.threads
        # Read when torch is first imported.
        os.environ.update(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE")
        import faiss
        import torch

        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)

    @cached_property
    def _extractor(self) -> MapExtractor:
        work = self._work
        return extractor_of(work.fingerprint, work.device, work.update.batch_size)

    @cached_property
    def _descriptors(self) -> list[ImageDescriptor]:
        work = self._work
        size = work.update.batch_size or _DESCRIBED_AT_ONCE
        return [
            ImageDescriptor.from_fingerprint(dict(fingerprint), work.device, size)
            for fingerprint in work.descriptors
        ]
