"""How the tokens of one map become codes of 4 or 8 bits, and tokens again."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.codec.quality import packed_bytes
from indexer.codec.tokens import TokenMap

if TYPE_CHECKING:
    import torch

# The step between levels that loses least of normally distributed numbers, in standard deviations
# (Max, "Quantizing for minimum distortion", 1960), by bits per number.
_BEST_STEP = {4: 0.3352, 8: 0.0308}

# Scales are powers of 2 in eighths. Scale byte 128 stands for the typical scale of the sample.
_SCALES_PER_OCTAVE = 8
_TYPICAL_SCALE = 128

# The scales tried for each token, in eighths of an octave from the one that its energy suggests.
_SCALE_OFFSETS = range(-4, 8)

_SEED = 0


@dataclass(frozen=True, eq=False)
class MapCoder:
    """Codes the tokens of one map. All arrays are float32 and read-only.

    bits: per number, 4 or 8. mean: (d,), subtracted first. forward: (d, k), takes tokens to the k
    numbers that are kept. backward: (k, d), takes these back to tokens. unit: (), the step between
    levels of a typical token.
    """

    bits: int
    mean: NDArray[np.float32]
    forward: NDArray[np.float32]
    backward: NDArray[np.float32]
    unit: NDArray[np.float32]

    def __post_init__(self) -> None:
        for array in (self.mean, self.forward, self.backward, self.unit):
            array.setflags(write=False)

    @classmethod
    def fit(
        cls,
        bits: int,
        mean: NDArray[np.float32],
        covariance: NDArray[np.float64],
        weights: NDArray[np.float64],
        numbers: int,
    ) -> "MapCoder":
        """The coder that keeps most of (x - mean)^T G (x - mean), where G = weights^2.

        covariance: (d, d), of tokens about the mean. weights: (d, d), symmetric and positive
        definite. numbers: k, kept per token.
        """
        _, vectors = np.linalg.eigh(weights @ covariance @ weights)
        turn, _ = np.linalg.qr(np.random.default_rng(_SEED).normal(size=(numbers, numbers)))
        basis = vectors[:, ::-1][:, :numbers] @ turn
        forward = weights @ basis
        backward = np.linalg.solve(weights, basis).T
        energy = np.trace(forward.T @ covariance @ forward) / numbers
        unit = _BEST_STEP[bits] * np.sqrt(max(energy, 0.0))
        return cls(
            bits,
            mean,
            np.ascontiguousarray(forward, dtype=np.float32),
            np.ascontiguousarray(backward, dtype=np.float32),
            np.array(unit if unit > np.finfo(np.float32).tiny else 1.0, dtype=np.float32),
        )

    def encode(self, maps: NDArray[np.float16]) -> NDArray[np.uint8]:
        """(n, grid, grid, d) maps as (n, bytes): the codes of all tokens, then all their scales."""
        n, dim = len(maps), maps.shape[-1]
        # One product per photo: in a single product, the last bits of a photo would depend on the
        # photos encoded with it.
        tokens = maps.reshape(n, -1, dim).astype(np.float32) - self.mean
        numbers = np.matmul(tokens, self.forward, dtype=np.float32)
        codes, scales = self._round(numbers.reshape(-1, numbers.shape[2]))
        return np.concatenate(
            [_pack(codes, self.bits).reshape(n, -1), scales.reshape(n, -1)], axis=1
        )

    def _round(self, numbers: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes (tokens, k) and scale bytes (tokens,) of least squared error among those tried.

        Code c stands for (c + 1/2 - 2^(bits - 1)) steps.
        """
        half = 2 ** (self.bits - 1)
        energy = np.sqrt(np.mean(numbers**2, axis=1))
        ratio = np.maximum(energy * _BEST_STEP[self.bits] / self.unit, np.finfo(np.float32).tiny)
        suggested = _TYPICAL_SCALE + np.round(_SCALES_PER_OCTAVE * np.log2(ratio))
        steps = self._steps()
        codes = np.zeros(numbers.shape, dtype=np.uint8)
        scales = np.zeros(len(numbers), dtype=np.uint8)
        least = np.full(len(numbers), np.inf, dtype=np.float32)
        for offset in _SCALE_OFFSETS:
            tried = np.clip(suggested + offset, 0, 255).astype(np.uint8)
            step = steps[tried, None]
            levels = np.clip(np.floor(numbers / step), -half, half - 1)
            error = np.sum(((levels + np.float32(0.5)) * step - numbers) ** 2, axis=1)
            better = error < least
            least[better] = error[better]
            scales[better] = tried[better]
            codes[better] = (levels[better] + half).astype(np.uint8)
        return codes, scales

    def _steps(self) -> NDArray[np.float32]:
        """The step between levels for each scale byte, (256,) float32."""
        octaves = (np.arange(256, dtype=np.float32) - _TYPICAL_SCALE) / _SCALES_PER_OCTAVE
        return self.unit * np.exp2(octaves)

    def tokens(self, encoded: "torch.Tensor", cells: int) -> TokenMap:
        """The tokens in (n, bytes) uint8, on the device of those bytes. cells: tokens per photo."""
        import torch

        mean, backward, half_steps = self._constants(encoded.device)
        numbers = len(self.backward)
        width = packed_bytes(numbers, self.bits)

        # Levels are twice (code + 1/2 - 2^(bits - 1)), so that they are whole numbers.
        def unpack(packed: torch.Tensor) -> torch.Tensor:
            if self.bits == 8:
                return packed.short().mul_(2).sub_(255)
            codes = torch.cat([packed & 15, (packed >> 4)[..., : numbers - width]], dim=-1)
            return codes.view(torch.int8).mul_(2).sub_(15)

        def scale() -> torch.Tensor:
            return half_steps[encoded[:, -cells:].int()]

        packed = encoded[:, :-cells].unflatten(1, (cells, width))
        return TokenMap(packed, unpack, scale, mean, backward)

    def _constants(self, device: "torch.device") -> "tuple[torch.Tensor, ...]":
        """`mean`, `backward` and half of each step on a device; they are copied there once."""
        import torch

        if device not in self._copies:
            arrays = (self.mean, self.backward, self._steps() / 2)
            self._copies[device] = tuple(torch.tensor(each, device=device) for each in arrays)
        return self._copies[device]

    @cached_property
    def _copies(self) -> "dict[torch.device, tuple[torch.Tensor, ...]]":
        return {}


def _pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """(tokens, k) codes as (tokens, bytes), in the order that `Codec` describes."""
    if bits == 8:
        return codes
    low, high = np.split(codes, [packed_bytes(codes.shape[1], bits)], axis=1)
    packed = low.copy()
    packed[:, : high.shape[1]] |= high << 4
    return packed
