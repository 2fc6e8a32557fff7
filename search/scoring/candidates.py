"""What a score compares: a reference and a batch of candidates, as tensors on one device.

Candidates' maps are read from the index batch by batch, and compared in blocks that fit the device.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.device import upload
from indexer.codec.tokens import TokenMap
from indexer.collection import Collection, MapBatch
from search.clock import Clock
from search.scoring.hough import Placement, place

if TYPE_CHECKING:
    import torch

# Bytes of maps that are read at a time, while the maps before them are scored.
_READ_BYTES = 8 * 2**20

# Numbers (of tokens and cosines) in one block of candidates, which limit its memory.
_BLOCK_NUMBERS = {"cpu": 64_000_000, "gpu": 256_000_000}


@dataclass(frozen=True, eq=False)
class ScoringReference:
    """What a reference photo contributes to a score; float32 tensors on the scoring device.

    tokens: (n, d), F_AM_r of PDM Eq. 4, the appearance of the object's cells, n >= 1.
    semantic: (n, d), F_S of the same cells.
    class_vector: (d,), C, or None where no class name was given.
    positions: (n, 2), row and column of each token's cell.
    """

    tokens: "torch.Tensor"
    semantic: "torch.Tensor"
    class_vector: "torch.Tensor | None"
    positions: "torch.Tensor"


@dataclass(frozen=True)
class CandidateMaps:
    """A batch of candidates on the scoring device.

    appearance, semantic: F_A and F_S; cells are in row-major order of a square map, and cosines are
    centred on the collection's mean. valid: (batch, cells) bool, False in padding; every candidate
    has a valid cell. references: all references that will be compared with these candidates.
    """

    appearance: TokenMap
    semantic: TokenMap
    valid: "torch.Tensor"
    references: tuple[ScoringReference, ...] = ()

    def best(self, reference: ScoringReference) -> "tuple[torch.Tensor, torch.Tensor]":
        """Each token's most similar cell in each candidate, as `TokenMap.best` gives it.

        The tokens of all `references` share one matrix product. The result is kept for the other
        references and for other scores.
        """
        import torch

        if reference not in self._best:
            together = self.references if reference in self.references else (reference,)
            tokens = torch.cat([each.tokens for each in together])
            sizes = [len(each.tokens) for each in together]
            found = (part.split(sizes, dim=1) for part in self.appearance.best(tokens, self.valid))
            self._best.update(zip(together, zip(*found, strict=True), strict=True))
        return self._best[reference]

    @cached_property
    def _best(self) -> "dict[ScoringReference, tuple[torch.Tensor, torch.Tensor]]":
        return {}

    def placement(self, reference: ScoringReference) -> Placement:
        """Where the reference's object is voted to be in each candidate (see `hough`).

        The result is kept, as that of `best` is.
        """
        if reference not in self._placements:
            side = math.isqrt(self.valid.shape[1])
            best, cells = self.best(reference)
            self._placements[reference] = place(best, cells, reference.positions, side)
        return self._placements[reference]

    @cached_property
    def _placements(self) -> dict[ScoringReference, Placement]:
        return {}

    def rival_mass(self, rivals: "torch.Tensor") -> "torch.Tensor":
        """log(sum(exp(F_S . r / sqrt(d)))) over the rivals, at each cell, (batch, cells) float32.

        rivals: (m, d) float32. The result is kept for other references.
        """
        import torch

        for known, mass in self._masses:
            if torch.equal(known, rivals):
                return mass
        mass = (self.semantic.products(rivals) / math.sqrt(rivals.shape[1])).logsumexp(dim=2)
        self._masses.append((rivals, mass))
        return mass

    @cached_property
    def _masses(self) -> "list[tuple[torch.Tensor, torch.Tensor]]":
        return []

    @cached_property
    def pooled(self) -> "torch.Tensor":
        """The mean appearance of each candidate, (batch, d) float32."""
        tokens = self.appearance.decode().masked_fill(~self.valid[:, :, None], 0.0)
        return tokens.sum(dim=1) / self.valid.sum(dim=1, keepdim=True)


def photos_per_read(reader: Collection) -> int:
    """How many photos `read_ahead` reads at a time."""
    return max(1, _READ_BYTES // reader.photo_bytes)


def read_ahead(reader: Collection, ids: NDArray[np.int64], clock: Clock) -> Iterator[MapBatch]:
    """The maps of photos, batch by batch; the next batch is read while one is worked on.

    ids: (n,) int64, photos of the index. clock: gets the stage "fetch", the time spent waiting.
    """
    batch = photos_per_read(reader)
    parts = [ids[start : start + batch] for start in range(0, len(ids), batch)]
    with ThreadPoolExecutor(1) as thread:
        coming = [thread.submit(reader.read_maps, part) for part in parts[:1]]
        for number in range(len(parts)):
            with clock("fetch"):
                maps = coming.pop().result()
            coming += [thread.submit(reader.read_maps, p) for p in parts[number + 1 : number + 2]]
            yield maps


def scoring_blocks(
    reader: Collection, maps: MapBatch, references: Sequence[ScoringReference]
) -> Iterator[tuple[NDArray[np.intp], CandidateMaps]]:
    """Blocks of photos that suit the device, and each block's rows in `maps`.

    On a CPU there are enough blocks for all of torch's threads, where there are enough photos.

    references: at least one; all of them will be compared with the photos, on their device.
    """
    import torch

    device = references[0].tokens.device
    on_cpu = device.type == "cpu"
    numbers = _BLOCK_NUMBERS["cpu" if on_cpu else "gpu"]
    threads = torch.get_num_threads() if on_cpu else 1
    tokens = sum(len(reference.tokens) for reference in references)
    most = max(1, numbers // (reader.grid**2 * (reader.dim + tokens)))
    for rows, part in maps.by_codec():
        # As many blocks for each thread.
        block = -(-len(rows) // (threads * -(-len(rows) // (threads * most))))
        for start in range(0, len(rows), block):
            some = slice(start, start + block)
            yield rows[some], to_candidates(reader, part.rows(some), references)


def to_candidates(
    reader: Collection, maps: MapBatch, references: Sequence[ScoringReference]
) -> CandidateMaps:
    """Stored maps of one codec as candidates, on the device of the references.

    references: at least one; all of them will be compared with the candidates.
    """
    device = references[0].tokens.device
    appearance, semantic = reader.tokens(maps, device)
    valid = upload(maps.valid, device)
    return CandidateMaps(appearance, semantic, valid, tuple(references))
