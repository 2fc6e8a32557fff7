"""A worker that holds parts of fleets open, and does work on their photos for others."""

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
    """Holds parts of fleets. device: where its work computes. threads: how many compute at a time.
    kernel: by which it compares on a CPU.

    The address of a fleet is an absolute path or a URL.
    """

    def __init__(self, device: str, threads: int, kernel: str) -> None:
        """Nothing that can fail is done here."""
        self._device, self._threads, self._kernel = device, threads, kernel
        self._readers: dict[str, FleetReader] = {}

    def come(self) -> None:
        """Set the threads and the kernel: it is the first that a worker is asked to do."""
        os.environ[FORCED_BY] = self._kernel
        set_threads(self._threads)

    def hold(self, address: str, generations: Mapping[int, int]) -> None:
        """Open parts of a fleet, in place of those of it that are open.

        generations: the state that each part must be in, by the parts' numbers. Raises
        IndexMissingError where this machine does not see the fleet, IndexBusyError where a part
        has changed; and as `cached_index`, where the fleet lies in a bucket.
        """
        if address in self._readers:
            self._readers.pop(address).close()
        url = url_in(address)
        fleet = read_fleet(Path(address) if url is None else cached_index(url))
        if fleet is None:
            raise not_seen(address)
        reader = self._readers[address] = FleetReader.open(fleet, generations)
        if reader.generations != generations:
            raise IndexBusyError(f"{address}: was changed just now; search again")

    def do(self, address: str, packed: bytes, ids: NDArray[np.int64] | None) -> Any:
        """Do some work (`pack`) on photos of those parts of a fleet that are held."""
        import torch

        from features.device import find_device

        device = find_device(self._device)
        # What another process of the same run has packed.
        work: Work = torch.load(io.BytesIO(packed), map_location=device, weights_only=False)
        return work(self._readers[address], ids)


def pack(work: Work) -> bytes:
    """Some work with its tensors, which `PartHolder.do` takes to its own device."""
    import torch

    content = io.BytesIO()
    torch.save(work, content)
    return content.getvalue()
