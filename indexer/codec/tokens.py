"""Encoded tokens, and the products and cosines that scores need, computed without decoding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from indexer.codec.kernels import prepare_kernel

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
        n, cells = valid.shape
        cosines = wanted.new_empty((n, len(wanted)))
        chosen = torch.empty((n, len(wanted)), dtype=torch.int64, device=valid.device)
        kernel = prepare_kernel(wanted, self.unpack(self.coded[:0]).dtype)
        for photos in _blocks(valid, _BLOCK_NUMBERS // (cells * sum(wanted.shape))):
            allowed = valid.index_select(0, photos)
            inside = allowed.any(dim=0).nonzero().squeeze(1)
            coded = _select(_select(self.coded, 0, photos), 1, inside)
            levels = self.unpack(coded)
            lengths = _lengths(levels.float())
            best = kernel.best(levels, lengths.squeeze(2), allowed.index_select(1, inside))
            rows = best + len(inside) * torch.arange(len(photos), device=best.device)[:, None]
            found = levels.flatten(0, 1).index_select(0, rows.flatten()).float()
            products = found.unflatten(0, best.shape).mul_(wanted).sum(dim=2)
            cosines[photos] = products / lengths.flatten()[rows]
            chosen[photos] = inside[best]
        return cosines, chosen

    def _within(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """(..., d) vectors in the coordinates of the levels, (..., k)."""
        return vectors if self.basis is None else vectors @ self.basis.T

    def _centred(self, vectors: "torch.Tensor") -> "torch.Tensor":
        return self._within(unit(vectors - self.mean))


def _blocks(valid: "torch.Tensor", most: int) -> "Iterator[torch.Tensor]":
    """The photos in blocks to compare at once, int64. valid: (n, cells) bool.

    On a CPU, the photos of a block have the same valid cells. So the others can be left out, and
    what is found in a photo does not depend on the photos beside it. A block has at most `most`
    photos, or 1. On a GPU there is one block.
    """
    import torch

    if valid.device.type != "cpu":
        yield torch.arange(len(valid), device=valid.device)
        return
    shapes = np.packbits(valid.numpy(), axis=1)
    _, which = np.unique(shapes, axis=0, return_inverse=True)
    for shape in range(which.max(initial=-1) + 1):
        photos = torch.from_numpy(np.flatnonzero(which == shape))
        yield from photos.tensor_split(-(-len(photos) // max(1, most)))


def _select(values: "torch.Tensor", dim: int, index: "torch.Tensor") -> "torch.Tensor":
    """As `index_select`, but no copy where the index is a run of consecutive numbers."""
    first = int(index[0])
    if bool((index[1:] - index[:-1] == 1).all()):
        return values.narrow(dim, first, len(index))
    return values.index_select(dim, index)


def _lengths(vectors: "torch.Tensor") -> "torch.Tensor":
    """The lengths of (..., k) vectors, (..., 1), at least 1e-12."""
    import torch

    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12)


def unit(vectors: "torch.Tensor") -> "torch.Tensor":
    """Vectors scaled to length 1; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1)
