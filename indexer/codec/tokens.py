"""Encoded tokens, and the products and cosines that scores need, computed without decoding."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# On a CPU, photos are compared in blocks whose levels and products are about this many numbers, so
# that they fit in the cache.
_BLOCK_NUMBERS = 3_000_000

# Added to a number within 2^29 of 0, this makes it less than any such number, within 32 bits.
_NEVER = -(2**31) + 2**29


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
        win. The cells of encoded maps are chosen in int8 or bfloat16, so a cell that is worse by
        0.01 may win. The cosines are computed in float32.
        """
        import torch

        wanted = self._centred(vectors)
        n, cells = valid.shape
        on_cpu = valid.device.type == "cpu"
        block = max(1, _BLOCK_NUMBERS // (cells * sum(wanted.shape))) if on_cpu else n
        product: _FloatProduct | _Int8Product = _FloatProduct(wanted)
        if on_cpu and self.basis is not None and _has_int8():
            product = _Int8Product(wanted, block, cells)
        cosines = wanted.new_empty((n, len(wanted)))
        chosen = torch.empty((n, len(wanted)), dtype=torch.int64, device=valid.device)
        # Photos of one shape are compared together, without the cells that all of them pad.
        for photos in valid.int().argmin(dim=1).argsort().split(block):
            allowed = valid.index_select(0, photos)
            inside = allowed.any(dim=0).nonzero().squeeze(1)
            coded = self.coded.index_select(0, photos).index_select(1, inside)
            levels = self.unpack(coded)
            best = product.best(levels, allowed.index_select(1, inside))
            rows = best + len(inside) * torch.arange(len(photos), device=best.device)[:, None]
            found = levels.flatten(0, 1).index_select(0, rows.flatten()).float()
            found = found.unflatten(0, best.shape)
            lengths = _lengths(found).squeeze(2)
            cosines[photos] = found.mul_(wanted).sum(dim=2) / lengths
            chosen[photos] = inside[best]
        return cosines, chosen

    def _within(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """(..., d) vectors in the coordinates of the levels, (..., k)."""
        return vectors if self.basis is None else vectors @ self.basis.T

    def _centred(self, vectors: "torch.Tensor") -> "torch.Tensor":
        return self._within(unit(vectors - self.mean))


class _FloatProduct:
    """Compares in float32, or in bfloat16 on a GPU. wanted: (m, k) float32, of length 1."""

    def __init__(self, wanted: "torch.Tensor") -> None:
        import torch

        self._wanted = wanted if wanted.device.type == "cpu" else wanted.to(torch.bfloat16)

    def best(self, levels: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
        """The valid cell of each photo that is most similar to each vector, (n, m).

        levels: (n, cells, k), of any length. valid: (n, cells) bool.
        """
        import torch

        units = unit(levels.float()).to(self._wanted.dtype)
        cosines = self._wanted @ units.transpose(1, 2)
        cosines = cosines.masked_fill_(~valid[:, None], -torch.inf)
        if cosines.device.type == "cpu":
            # torch's own argmax takes several times as long.
            return torch.from_numpy(cosines.numpy().argmax(axis=2))
        return cosines.argmax(dim=2)


class _Int8Product:
    """Compares in int8, the fastest way on x86 CPUs, especially on those without bfloat16.

    wanted: as in `_FloatProduct`. photos, cells: the most that are compared at a time.
    """

    def __init__(self, wanted: "torch.Tensor", photos: int, cells: int) -> None:
        import torch

        most = wanted.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        # The codec spreads a vector evenly over its numbers. If these are many, none is near 1, and
        # the steps can be finer.
        self._steps = 254 if wanted.shape[1] > 64 else 127
        # The product of two vectors times the number of cells stays below 2^29, with rounding.
        steps = (127 / most).clamp(max=2**28 / (self._steps * cells))
        self._wanted = (
            (wanted * steps).round().T.to(torch.int8, memory_format=torch.contiguous_format)
        )
        # Allocating this each time would cost more than the products.
        self._products = torch.empty((photos * cells, len(wanted)), dtype=torch.int32)

    def best(self, levels: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
        """See `_FloatProduct.best`."""
        import torch

        n, cells, _ = levels.shape
        units = levels.to(torch.float32, copy=True)
        units *= self._steps / _lengths(units)
        units = units.round_().clamp_(-127, 127).char()
        products = self._products[: n * cells]
        torch._int_mm(units.flatten(0, 1), self._wanted, out=products)
        products = products.unflatten(0, (n, cells))
        # The cell is written into the last digit of its product, in base `cells`, so that the
        # largest product also tells its cell. Of equal products the first cell wins.
        digits = torch.arange(cells - 1, -1, -1, dtype=torch.int32)
        torch.add(digits.where(valid, _NEVER)[:, :, None], products, alpha=cells, out=products)
        return cells - 1 - products.amax(dim=1).remainder(cells)


@cache
def _has_int8() -> bool:
    """Whether torch has fast int8 products on this CPU."""
    import torch

    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return x86 and torch.backends.mkldnn.is_available()


def _lengths(vectors: "torch.Tensor") -> "torch.Tensor":
    """The lengths of (..., k) vectors, (..., 1), at least 1e-12."""
    import torch

    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12)


def unit(vectors: "torch.Tensor") -> "torch.Tensor":
    """Vectors scaled to length 1; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1)
