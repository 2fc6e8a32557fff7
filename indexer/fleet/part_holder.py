"""A worker that holds parts of a fleet open, and does work on their photos for others."""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.bucket.object_store import url_in
from indexer.bucket.remote_index import cached_index
from indexer.codec.kernels import FORCED_BY
from indexer.collection import Collection
from indexer.errors import IndexBusyError
from indexer.fleet.fleet_reader import FleetReader
from indexer.parts import read_fleet
from indexer.ray_cluster import not_seen, set_threads

# Is called with a collection and with the ids of photos in it, or with None for all.
Work = Callable[[Collection, Any], Any]


class PartHolder:
    """Holds parts of a fleet. address: of the fleet, an absolute path or a URL. device: where its
    work computes. threads: how many compute at a time. kernel: by which it compares on a CPU.
    """

    def __init__(self, address: str, device: str, threads: int, kernel: str) -> None:
        """Nothing that can fail is done here."""
        self._address, self._device = address, device
        self._threads, self._kernel = threads, kernel
        self._reader: FleetReader | None = None

    def come(self) -> None:
        """Set the threads and the kernel: it is the first that a worker is asked to do."""
        os.environ[FORCED_BY] = self._kernel
        set_threads(self._threads)

    def hold(self, generations: Mapping[int, int]) -> None:
        """Open parts, in place of those that are open.

        generations: the state that each part must be in, by the parts' numbers. Raises
        IndexMissingError where this machine does not see the fleet, IndexBusyError where a part
        has changed; and as `cached_index`, where the fleet lies in a bucket.
        """
        if self._reader is not None:
            self._reader.close()
        url = url_in(self._address)
        fleet = read_fleet(Path(self._address) if url is None else cached_index(url))
        if fleet is None:
            raise not_seen(self._address)
        self._reader = FleetReader.open(fleet, generations)
        if self._reader.generations != generations:
            raise IndexBusyError(f"{self._address}: was changed just now; search again")

    def do(self, packed: bytes, ids: NDArray[np.int64] | None) -> Any:
        """Do some work (`pack`) on photos of the parts that are held."""
        import torch

        from features.device import find_device

        assert self._reader is not None
        device = find_device(self._device)
        # What another process of the same run has packed.
        work: Work = torch.load(io.BytesIO(packed), map_location=device, weights_only=False)
        return work(self._reader, ids)


def pack(work: Work) -> bytes:
    """Some work with its tensors, which `PartHolder.do` takes to its own device."""
    import torch

    content = io.BytesIO()
    torch.save(work, content)
    return content.getvalue()
