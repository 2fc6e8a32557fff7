"""What a person said of recurring objects: that some are one, that a photo does not show one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.errors import FROM_A_COPY, IndexDamagedError, one_line
from indexer.store.files import write_bytes_atomically


@dataclass(frozen=True, eq=False)
class Places:
    """A recurring object as it was when a person spoke of it. contents: (p, 32) uint8, of the
    photos that showed it (SHA-256). cells: (p, grid * grid) bool, where.
    """

    contents: NDArray[np.uint8]
    cells: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Correction:
    """What a person said once: `objects` are one object, and photos of the contents `without`, (w,
    32) uint8, do not show it.
    """

    objects: tuple[Places, ...]
    without: NDArray[np.uint8]


def corrections_name(number: int) -> str:
    """File name below the index folder."""
    return f"corrections-{number}.safetensors"


def write_corrections(path: Path, corrections: Sequence[Correction]) -> None:
    """Write at least one correction, the oldest first, whole or not at all. Raises OSError."""
    from safetensors.numpy import save

    objects = [places for one in corrections for places in one.objects]
    tensors = {
        "contents": np.concatenate([places.contents for places in objects]),
        "cells": np.packbits(np.concatenate([places.cells for places in objects]), axis=1),
        "without": np.concatenate([one.without for one in corrections]),
    }
    described = {
        "cells": objects[0].cells.shape[1],
        "corrections": [
            {
                "objects": [len(places.contents) for places in one.objects],
                "without": len(one.without),
            }
            for one in corrections
        ],
    }
    write_bytes_atomically(path, save(tensors, {"corrections": json.dumps(described)}))


def read_corrections(path: Path) -> tuple[Correction, ...]:
    """The corrections of a file, the oldest first. Raises IndexDamagedError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            described = json.loads(file.metadata()["corrections"])
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        cells = np.unpackbits(found["cells"], axis=1, count=described["cells"]).astype(bool)
        corrections, place, gone = [], 0, 0
        for told in described["corrections"]:
            objects = []
            for count in told["objects"]:
                part = slice(place, place + count)
                objects.append(Places(found["contents"][part], cells[part]))
                place += count
            without = found["without"][gone : gone + told["without"]]
            gone += told["without"]
            corrections.append(Correction(tuple(objects), without))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IndexDamagedError(
            f"{path}: cannot be read ({one_line(error)}); {FROM_A_COPY}"
        ) from error
    return tuple(corrections)
