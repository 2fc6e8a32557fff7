"""Tokens as the codec keeps them, and what scores need of them, without decoding them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Best cells are looked for in so many photos at a time that levels and products are about this many
# numbers: a CPU's cache holds them then.
_BLOCK_NUMBERS = 3_000_000

# Added to a number within 2^29 of 0, it makes it less than any such number, and fits in 32 bits.
_NEVER = -(2**31) + 2**29


@dataclass(frozen=True)
class TokenMap:
    """One map of n photos, each token being mean + step * (levels @ basis).

    coded: (n, cells, width), tokens in the form that `unpack` takes: (..., width) to levels,
    (..., k). scale: gives steps, when first needed. mean: (d,) float32. basis: (k, d) float32, None
    for the identity. The cosines are right where the basis is orthonormal, as that of appearance
    maps is.
    """

    coded: "torch.Tensor"
    unpack: "Callable[[torch.Tensor], torch.Tensor]"
    scale: "Callable[[], torch.Tensor]"
    mean: "torch.Tensor"
    basis: "torch.Tensor | None"

    @classmethod
    def plain(cls, tokens: "torch.Tensor", mean: "torch.Tensor") -> "TokenMap":
        """Tokens, (n, cells, d) float32, that went through no codec; mean: (d,), for cosines."""
        ones = tokens.new_ones(tokens.shape[:2])
        return cls(tokens, lambda some: some - mean, lambda: ones, mean, None)

    @cached_property
    def levels(self) -> "torch.Tensor":
        """(n, cells, k): int8 or int16 of a codec's levels, else float32."""
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
        """Inner product of every token with vectors, (m, d): (n, cells, m) float32."""
        within = self.levels.float() @ self._within(vectors).T
        return within * self.steps[:, :, None] + vectors @ self.mean

    def cosines(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """Cosine of every token with vectors, (m, d), about the mean: (n, cells, m) float32."""
        return self._units @ self._centred(vectors).T

    @cached_property
    def _units(self) -> "torch.Tensor":
        return unit(self.levels.float())

    def best(
        self, vectors: "torch.Tensor", valid: "torch.Tensor"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Each vector's most similar cell in each photo: cosines (n, m) float32, cells (n, m).

        vectors: (m, d). valid: (n, cells) bool, at least one a photo; the others never win. Encoded
        maps' cells are chosen in int8 or bfloat16, so a cell worse by 0.01 may win; the cosines are
        in float32.
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
        # Photos of one shape come together, and cells that are padding in all of them are left out.
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
        """Vectors, (..., d), in the coordinates of the levels, (..., k)."""
        return vectors if self.basis is None else vectors @ self.basis.T

    def _centred(self, vectors: "torch.Tensor") -> "torch.Tensor":
        return self._within(unit(vectors - self.mean))


class _FloatProduct:
    """Compares in float32, on a GPU in bfloat16. wanted: (m, k) float32, units."""

    def __init__(self, wanted: "torch.Tensor") -> None:
        import torch

        self._wanted = wanted if wanted.device.type == "cpu" else wanted.to(torch.bfloat16)

    def best(self, levels: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
        """The valid cell, (n, m), most like each vector. levels: (n, cells, k), of any length.
        valid: (n, cells) bool.
        """
        import torch

        units = unit(levels.float()).to(self._wanted.dtype)
        cosines = self._wanted @ units.transpose(1, 2)
        cosines = cosines.masked_fill_(~valid[:, None], -torch.inf)
        if cosines.device.type == "cpu":
            # torch's own takes several times as long
            return torch.from_numpy(cosines.numpy().argmax(axis=2))
        return cosines.argmax(dim=2)


class _Int8Product:
    """Compares in int8, which x86 CPUs are fastest at, by far those that lack bfloat16.

    wanted: as of `_FloatProduct`. photos, cells: the most that will be compared at a time.
    """

    def __init__(self, wanted: "torch.Tensor", photos: int, cells: int) -> None:
        import torch

        most = wanted.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        # Codecs spread a vector over all its numbers: of many, none is near 1, so steps are finer.
        self._steps = 254 if wanted.shape[1] > 64 else 127
        # Products of two vectors times the number of cells stay below 2^29, rounding included.
        steps = (127 / most).clamp(max=2**28 / (self._steps * cells))
        self._wanted = (
            (wanted * steps).round().T.to(torch.int8, memory_format=torch.contiguous_format)
        )
        # Memory that is new costs more than the products.
        self._products = torch.empty((photos * cells, len(wanted)), dtype=torch.int32)

    def best(self, levels: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
        """As `_FloatProduct.best`."""
        import torch

        n, cells, _ = levels.shape
        units = levels.to(torch.float32, copy=True)
        units *= self._steps / _lengths(units)
        units = units.round_().clamp_(-127, 127).char()
        products = self._products[: n * cells]
        torch._int_mm(units.flatten(0, 1), self._wanted, out=products)
        products = products.unflatten(0, (n, cells))
        # The largest product tells its cell if that is written into its last digit; the first wins.
        digits = torch.arange(cells - 1, -1, -1, dtype=torch.int32)
        torch.add(digits.where(valid, _NEVER)[:, :, None], products, alpha=cells, out=products)
        return cells - 1 - products.amax(dim=1).remainder(cells)


@cache
def _has_int8() -> bool:
    """Whether torch multiplies int8 matrices by fast code on this CPU."""
    import torch

    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return x86 and torch.backends.mkldnn.is_available()


def _lengths(vectors: "torch.Tensor") -> "torch.Tensor":
    """(..., 1), of (..., k), not 0."""
    import torch

    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12)


def unit(vectors: "torch.Tensor") -> "torch.Tensor":
    """Vectors scaled to length 1; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1)
