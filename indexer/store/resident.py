"""All maps of an index in the memory of a device, for many queries from one process."""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import WaldoError
from indexer.store.mapstore import MapStore, Place

if TYPE_CHECKING:
    import torch

_READ_BYTES = 64 * 2**20

# Memory of a GPU that is left to the model and to scoring, bytes; half of what is free where that
# is less.
_WORKSPACE = 6 * 2**30


class ResidentMaps:
    """Maps in the memory of a device, read and checked once; `read` is that of `MapStore`."""

    def __init__(
        self, rows: "torch.Tensor", row_of: dict[Place, int], damaged: dict[Place, str]
    ) -> None:
        self._rows = rows
        self._row_of = row_of
        self._damaged = damaged

    @classmethod
    def load(
        cls,
        store: MapStore,
        places: Collection[Place],
        device: "torch.device",
        progress: Callable[[int, int], None] | None = None,
    ) -> "ResidentMaps":
        """Read the maps at all places.

        progress: called with the number of photos whose maps are read, and the number of all.
        Raises WaldoError where the device has too little memory.
        """
        import torch

        size = store.photo_bytes
        # Photos that share maps share a row.
        ordered = sorted(set(places), key=lambda place: (place.shard, place.row, place.maps_id))
        needed, free = len(ordered) * size, free_memory(device)
        if free is not None and device.type != "cpu":
            free -= min(_WORKSPACE, free // 2)
        if free is not None and needed > free:
            raise WaldoError(
                f"the maps of {len(ordered)} photos need {needed / 2**30:.2f} GiB of memory, and "
                f"{free / 2**30:.2f} GiB are free for them on {device}; read maps from disk instead"
            )
        rows = torch.empty((len(ordered), size), dtype=torch.uint8, device=device)
        damaged: dict[Place, str] = {}
        batch = max(1, _READ_BYTES // size)
        for start in range(0, len(ordered), batch):
            some = ordered[start : start + batch]
            encoded, problems = store.read(some)
            rows[start : start + len(some)] = torch.from_numpy(encoded)
            damaged.update((some[at], problem) for at, problem in problems.items())
            if progress is not None:
                progress(start + len(some), len(ordered))
        return cls(rows, {place: row for row, place in enumerate(ordered)}, damaged)

    def read(self, places: Sequence[Place]) -> "tuple[torch.Tensor, dict[int, str]]":
        """As `MapStore.read`, on the device. Raises KeyError for a place that was not loaded."""
        import torch

        rows = torch.tensor([self._row_of[place] for place in places], dtype=torch.int64)
        problems = {
            at: self._damaged[place] for at, place in enumerate(places) if place in self._damaged
        }
        device = self._rows.device
        if device.type == "cuda":
            rows = rows.pin_memory()  # a GPU copies from there by itself, and nothing waits
        return self._rows.index_select(0, rows.to(device, non_blocking=True)), problems


def free_memory(device: "torch.device") -> int | None:
    """Free memory of a device, bytes, with what the system would give up; None where unknown."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        [free] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        return 1024 * int(free)
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
