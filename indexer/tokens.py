"""Tokens as the codec keeps them, and what scores need of them, without decoding them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TokenMap:
    """One map of n photos, each token being mean + step * (levels @ basis).

    unpack: gives levels and steps, when first needed. mean: (d,) float32. basis: (k, d) float32,
    None for the identity. The cosines are right where the basis is orthonormal, as that of
    appearance maps is.
    """

    unpack: "Callable[[], tuple[torch.Tensor, torch.Tensor]]"
    mean: "torch.Tensor"
    basis: "torch.Tensor | None"

    @classmethod
    def plain(cls, tokens: "torch.Tensor", mean: "torch.Tensor") -> "TokenMap":
        """Tokens, (n, cells, d) float32, that went through no codec; mean: (d,), for cosines."""
        return cls(lambda: (tokens - mean, tokens.new_ones(tokens.shape[:2])), mean, None)

    @cached_property
    def _unpacked(self) -> "tuple[torch.Tensor, torch.Tensor]":
        return self.unpack()

    @property
    def levels(self) -> "torch.Tensor":
        """(n, cells, k), bfloat16 where they are exact in it, else float32."""
        return self._unpacked[0]

    @property
    def steps(self) -> "torch.Tensor":
        """(n, cells) float32, positive."""
        return self._unpacked[1]

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

        vectors: (m, d). valid: (n, cells) bool, at least one a photo; the others never win. Cells
        are chosen in bfloat16, so a cell worse by 0.01 may win; the cosines are in float32.
        """
        import torch

        wanted = self._centred(vectors)
        directions = self.levels.bfloat16()
        lengths = torch.linalg.vector_norm(directions, dim=2, keepdim=True, dtype=torch.float32)
        directions = directions * lengths.clamp(min=1e-12).reciprocal().bfloat16()
        # Padding takes the place of a valid cell: cheaper than masking the cosines, far more.
        first = valid.int().argmax(dim=1)
        photo, padding = (~valid).nonzero(as_tuple=True)
        directions[photo, padding] = directions[photo, first[photo]]
        cells = _argmax(wanted.bfloat16() @ directions.transpose(1, 2))
        cells = torch.where(valid.gather(1, cells), cells, first[:, None])
        photos = torch.arange(len(cells), device=cells.device)[:, None]
        return (unit(self.levels[photos, cells].float()) * wanted).sum(dim=2), cells

    def _within(self, vectors: "torch.Tensor") -> "torch.Tensor":
        """Vectors, (..., d), in the coordinates of the levels, (..., k)."""
        return vectors if self.basis is None else vectors @ self.basis.T

    def _centred(self, vectors: "torch.Tensor") -> "torch.Tensor":
        return self._within(unit(vectors - self.mean))


def _argmax(values: "torch.Tensor") -> "torch.Tensor":
    """Places of the largest in the last dimension."""
    import torch

    if values.device.type == "cpu":
        # torch's own takes several times as long
        return torch.from_numpy(values.float().numpy().argmax(axis=-1))
    return values.argmax(dim=-1)


def unit(vectors: "torch.Tensor") -> "torch.Tensor":
    """Vectors scaled to length 1; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1)
