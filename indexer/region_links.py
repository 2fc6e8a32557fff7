"""Regions of photos, and which of them show the same thing: what recurring objects are made of."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError, one_line
from indexer.store.files import write_bytes_atomically


@dataclass(frozen=True, eq=False)
class RegionLinks:
    """Regions of n photos, m regions in all, and l links between regions.

    contents: (n, 32) uint8, the content of each photo (SHA-256). compared: (n,) bool, whether the
    regions of a photo have been compared with those of other photos. photos: (m,) int64, the row of
    each region's photo; rising. cells: (m, grid * grid) bool. chance: (m, 2) float32, the mean and
    the standard deviation of the region's scores in photos that do not show it. pairs: (l, 2)
    int64, the numbers of two regions, the lower first; each pair once. strengths: (l,) float32.
    """

    contents: NDArray[np.uint8]
    compared: NDArray[np.bool_]
    photos: NDArray[np.int64]
    cells: NDArray[np.bool_]
    chance: NDArray[np.float32]
    pairs: NDArray[np.int64]
    strengths: NDArray[np.float32]

    @classmethod
    def none(cls, grid: int) -> "RegionLinks":
        return cls(
            np.empty((0, 32), np.uint8),
            np.empty(0, bool),
            np.empty(0, np.int64),
            np.empty((0, grid**2), bool),
            np.empty((0, 2), np.float32),
            np.empty((0, 2), np.int64),
            np.empty(0, np.float32),
        )

    def of_photos(self, kept: NDArray[np.bool_]) -> "RegionLinks":
        """The regions of some photos, and the links between these. kept: (n,) bool."""
        regions = kept[self.photos]
        photo_number, region_number = np.cumsum(kept) - 1, np.cumsum(regions) - 1
        links = regions[self.pairs].all(axis=1)
        return RegionLinks(
            self.contents[kept],
            self.compared[kept],
            photo_number[self.photos[regions]],
            self.cells[regions],
            self.chance[regions],
            region_number[self.pairs[links]].reshape(-1, 2),
            self.strengths[links],
        )

    def with_photos(
        self,
        contents: NDArray[np.uint8],
        photos: NDArray[np.int64],
        cells: NDArray[np.bool_],
        chance: NDArray[np.float32],
    ) -> "RegionLinks":
        """These and further photos, that are not compared yet. photos: rows among the further."""
        return replace(
            self,
            contents=np.concatenate([self.contents, contents]),
            compared=np.concatenate([self.compared, np.zeros(len(contents), bool)]),
            photos=np.concatenate([self.photos, photos + len(self.contents)]),
            cells=np.concatenate([self.cells, cells]),
            chance=np.concatenate([self.chance, chance]),
        )

    def with_links(
        self, pairs: NDArray[np.int64], strengths: NDArray[np.float32], compared: NDArray[np.int64]
    ) -> "RegionLinks":
        """These and further links, which may be known already. compared: rows of the photos whose
        regions are compared by now.
        """
        both = np.concatenate([self.pairs, np.sort(pairs.reshape(-1, 2), axis=1)])
        each, first = np.unique(both, axis=0, return_index=True)
        done = self.compared.copy()
        done[compared] = True
        every = np.concatenate([self.strengths, strengths])
        return replace(self, compared=done, pairs=each, strengths=every[first])


def links_name(number: int) -> str:
    """File name below the index folder."""
    return f"links-{number}.safetensors"


def write_links(path: Path, links: RegionLinks, basis: dict[str, Any]) -> None:
    """Write links, whole or not at all. basis: what they depend on besides photos; JSON-ready.

    Raises OSError.
    """
    from safetensors.numpy import save

    tensors = {
        "contents": links.contents,
        "compared": links.compared,
        "photos": links.photos,
        "cells": np.packbits(links.cells, axis=1),
        "chance": links.chance,
        "pairs": links.pairs,
        "strengths": links.strengths,
    }
    described = {"basis": basis, "cells": links.cells.shape[1]}
    arrays = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    write_bytes_atomically(path, save(arrays, {"links": json.dumps(described)}))


def read_links(path: Path) -> tuple[RegionLinks, dict[str, Any]]:
    """The links of a file, and what they depend on. Raises IndexDamagedError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            described = json.loads(file.metadata()["links"])
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        cells = np.unpackbits(found.pop("cells"), axis=1, count=described["cells"]).astype(bool)
        return RegionLinks(cells=cells, **found), described["basis"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IndexDamagedError(
            f"{path}: cannot be read ({one_line(error)}); run `waldo objects` to make it again"
        ) from error
