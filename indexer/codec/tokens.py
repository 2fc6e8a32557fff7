"""Encoded tokens, and the products and cosines that scores need, computed without decoding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from indexer.codec.kernels import best_on_gpu, lengths, prepare_kernel

if TYPE_CHECKING:
    import torch

# On a CPU, photos are compared in blocks whose levels and products are about this many numbers, so
# that they fit in the cache.
_BLOCK_NUMBERS = 3_000_000


@dataclass(frozen=True)
class TokenMap:
    """One map of n photos, in which each token is mean + step * (levels @ basis).

    coded: (n, cells, width), the encoded tokens. unpack: takes (..., width) of these to levels,
    (..., k). scale: gives the steps when they are first needed. mean: (d,) float32. basis: (k, d)
    float32; None for the identity. Cosines are right only for an orthonormal basis, which is what
    appearance maps have.
    """

    coded: "torch.Tensor"
    unpack: "Callable[[torch.Tensor], torch.Tensor]"
    scale: "Callable[[], torch.Tensor]"
    mean: "torch.Tensor"
    basis: "torch.Tensor | None"

    @classmethod
    def plain(cls, tokens: "torch.Tensor", mean: "torch.Tensor") -> "TokenMap":
        """Tokens, (n, cells, d) float32, that are not encoded. mean: (d,), for cosines."""
        ones = tokens.new_ones(tokens.shape[:2])
        return cls(tokens, lambda some: some - mean, lambda: ones, mean, None)

    @cached_property
    def levels(self) -> "torch.Tensor":
        """(n, cells, k): int8 or int16 for encoded tokens, float32 for plain ones."""
        return self.unpack(self.coded)

    @cached_property
    def steps(self) -> "torch.Tensor":
        """(n, cells) float32, positive."""
        return self.scale()

    def decode(self) -> "torch.Tensor":
        """The tokens, (n, cells, d) float32."""
        import torch

        scaled = self.levels.float() * self.steps[:, :, None]
        if self.basis is None:
            return scaled + self.mean
        tokens = torch.addmm(self.mean, scaled.flatten(0, 1), self.basis)
        return tokens.unflatten(0, self.steps.shape)

    def products(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """The inner product of every token with (m, d) vectors: (n, cells, m) float32."""
        within = self.levels.float() @ self._within(vectors).T
        return within * self.steps[:, :, None] + vectors @ self.mean

    def cosines(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """The cosine of every token with (m, d) vectors about the mean: (n, cells, m) float32."""
        return self._units @ self._centred(vectors).T

    @cached_property
    def _units(self) -> "torch.Tensor":
        return unit(self.levels.float())

    def best(
        self, vectors: "torch.Tensor", valid: "torch.Tensor"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """The most similar cell of each photo to each vector: cosines (n, m) float32, cells (n, m).

        vectors: (m, d). valid: (n, cells) bool, at least one True per photo; only valid cells can
        win. A cell that is worse by `kernels.LARGEST_LOSS` in cosine may win. The cosines are
        computed in float32.
        """
        import torch

        wanted = self._centred(vectors)
        if valid.device.type != "cpu":
            chosen = best_on_gpu(wanted, self.levels, valid)
            return _pair_cosines(wanted, self.levels, chosen), chosen
        n, cells = valid.shape
        cosines = wanted.new_empty((n, len(wanted)))
        chosen = torch.empty((n, len(wanted)), dtype=torch.int64)
        kernel = prepare_kernel(wanted, self.unpack(self.coded[:0]).dtype)
        for photos, inside in _blocks(valid, _BLOCK_NUMBERS // (cells * sum(wanted.shape))):
            levels = self.unpack(_select(_select(self.coded, 0, photos), 1, inside))
            best = kernel.best(levels)
            cosines[photos] = _pair_cosines(wanted, levels, best)
            chosen[photos] = inside[best]
        return cosines, chosen

    def _within(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """(..., d) vectors in the coordinates of the levels, (..., k)."""
        return vectors if self.basis is None else vectors @ self.basis.T

    def _centred(self, vectors: "torch.Tensor") -> "torch.Tensor":
        return self._within(unit(vectors - self.mean))


def _pair_cosines(
    wanted: "torch.Tensor", levels: "torch.Tensor", cells: "torch.Tensor"
) -> "torch.Tensor":
    """The cosine of each vector with its cell of each photo, (n, m) float32.

    wanted: (m, k), of length 1 or 0. levels: (n, cells, k). cells: (n, m) int64.
    """
    import torch

    rows = cells + levels.shape[1] * torch.arange(len(cells), device=cells.device)[:, None]
    found = levels.flatten(0, 1).index_select(0, rows.flatten()).float().unflatten(0, cells.shape)
    return (found * wanted).sum(dim=2) / lengths(found).squeeze(2)


def _blocks(valid: "torch.Tensor", most: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
    """The photos in blocks to compare at once, and their valid cells: rising numbers, int64.

    The photos of a block have the same valid cells. So the others can be left out, and what is
    found in a photo does not depend on the photos beside it. A block has at most `most` photos, or
    1. valid: (n, cells) bool on the CPU.
    """
    import torch

    shapes = np.packbits(valid.numpy(), axis=1)
    left = np.arange(len(shapes))
    while len(left):
        same = (shapes[left] == shapes[left[0]]).all(axis=1)
        inside = valid[left[0]].nonzero().squeeze(1)
        photos = torch.from_numpy(left[same])
        for block in photos.tensor_split(-(-len(photos) // max(1, most))):
            yield block, inside
        left = left[~same]


def _select(values: "torch.Tensor", dim: int, index: "torch.Tensor") -> "torch.Tensor":
    """As `index_select` by rising numbers, but no copy where these are a run."""
    first, last = int(index[0]), int(index[-1])
    if last - first + 1 == len(index):
        return values.narrow(dim, first, len(index))
    return values.index_select(dim, index)


def unit(vectors: "torch.Tensor") -> "torch.Tensor":
    """Vectors scaled to length 1; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1)
