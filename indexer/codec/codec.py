"""The codec of feature maps: a photo's two maps in a fixed number of bytes.

Scores need inner products of tokens only, so each map is projected onto the few directions that
inner products live in, turned at random there, and rounded to a few bits a number with a scale of
one byte a token:

- Appearance: principal components, an orthonormal basis; inner products of tokens are kept.
- Semantic: F_S is only ever multiplied with class vectors, so the components are those that
  predict F_S . C best over a vocabulary's vectors C.

The random turn spreads a token's energy evenly over the kept numbers, so that the same coarse steps
suit all of them (the principle of QuIP#, Tseng et al. 2024, and TurboQuant, Zandieh et al. 2025).
`benchmarks/codecs.py` measures what each quality costs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.maps import FeatureMaps
from indexer.codec.tokens import TokenMap
from indexer.codec.visual_words import VisualWords
from indexer.errors import REPAIR_HINT, IndexDamagedError, one_line

if TYPE_CHECKING:
    import torch

QUALITIES = ("none", "high", "standard", "small")
DEFAULT_QUALITY = "standard"


@dataclass(frozen=True)
class _Level:
    """What one quality keeps. bits: a number, 4 or 8. appearance, semantic: how many numbers a
    token, as (32nds of d, at most)."""

    bits: int
    appearance: tuple[int, int]
    semantic: tuple[int, int]


# The most are chosen for d = 640, where "standard" comes to 64 bytes a token and "small" to 32.
_LEVELS = {
    "high": _Level(8, (12, 128), (4, 40)),
    "standard": _Level(4, (12, 96), (4, 28)),
    "small": _Level(4, (4, 48), (2, 12)),
}

# No map is cut to fewer numbers a token than this (or d).
_FEWEST = 8

# The step between levels that loses least of normally distributed numbers, in standard deviations
# (Max, "Quantizing for minimum distortion", 1960).
_BEST_STEP = {4: 0.3352, 8: 0.0308}

# Scales are powers of 2 in eighths around the sample's typical one: byte 128 means just that one.
_OCTAVE = 8
_TYPICAL = 128

# Scales tried for each token, in eighths of an octave from the one its energy suggests.
_TRIED = range(-4, 8)

# Share of weight that the semantic projection gives to all directions alike: a class vector from
# outside the vocabulary has a part in directions that the vocabulary hardly uses.
_OUTSIDE = 1e-3

_SEED = 0


@dataclass(frozen=True, eq=False)
class _MapCoder:
    """How tokens of one map become codes. All arrays are float32 and read-only.

    bits: 4 or 8 a number. mean: (d,), subtracted first. forward: (d, k), tokens to the numbers that
    are kept. backward: (k, d), back again. unit: (), the step between levels of a typical token.
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
        kept: int,
    ) -> "_MapCoder":
        """The coder that keeps most of (x - mean)^T G (x - mean), G = weights^2.

        covariance: (d, d), of tokens about the mean. weights: (d, d), symmetric, positive definite.
        """
        _, vectors = np.linalg.eigh(weights @ covariance @ weights)
        turn, _ = np.linalg.qr(np.random.default_rng(_SEED).normal(size=(kept, kept)))
        basis = vectors[:, ::-1][:, :kept] @ turn
        forward = weights @ basis
        backward = np.linalg.solve(weights, basis).T
        energy = np.trace(forward.T @ covariance @ forward) / kept
        unit = _BEST_STEP[bits] * np.sqrt(max(energy, 0.0))
        return cls(
            bits,
            mean,
            np.ascontiguousarray(forward, dtype=np.float32),
            np.ascontiguousarray(backward, dtype=np.float32),
            np.array(unit if unit > np.finfo(np.float32).tiny else 1.0, dtype=np.float32),
        )

    def encode(self, maps: NDArray[np.float16]) -> NDArray[np.uint8]:
        """(n, grid, grid, d) maps as (n, bytes): all tokens' codes, then all their scales."""
        n, dim = len(maps), maps.shape[-1]
        # One product a photo: in one for all, a photo's last bits would depend on the others.
        tokens = maps.reshape(n, -1, dim).astype(np.float32) - self.mean
        numbers = np.matmul(tokens, self.forward, dtype=np.float32)
        codes, scales = self._round(numbers.reshape(-1, numbers.shape[2]))
        return np.concatenate(
            [_pack(codes, self.bits).reshape(n, -1), scales.reshape(n, -1)], axis=1
        )

    def _round(self, numbers: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes (tokens, k) and scale bytes (tokens,) with the least squared error of those tried.

        Code c stands for (c + 1/2 - 2^(bits - 1)) steps.
        """
        half = 2 ** (self.bits - 1)
        energy = np.sqrt(np.mean(numbers**2, axis=1))
        ratio = np.maximum(energy * _BEST_STEP[self.bits] / self.unit, np.finfo(np.float32).tiny)
        suggested = _TYPICAL + np.round(_OCTAVE * np.log2(ratio))
        steps = self._steps()
        codes = np.zeros(numbers.shape, dtype=np.uint8)
        scales = np.zeros(len(numbers), dtype=np.uint8)
        least = np.full(len(numbers), np.inf, dtype=np.float32)
        for offset in _TRIED:
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
        return self.unit * np.exp2((np.arange(256, dtype=np.float32) - _TYPICAL) / _OCTAVE)

    def tokens(self, encoded: "torch.Tensor", cells: int) -> TokenMap:
        """The tokens in (n, bytes) uint8, on the same device."""
        import torch

        def here(array: NDArray[np.float32]) -> torch.Tensor:
            return torch.tensor(array, device=encoded.device)

        kept, width = len(self.backward), _packed_bytes(len(self.backward), self.bits)

        # Twice code + 1/2 - 2^(bits - 1) is a whole number.
        def unpack(packed: torch.Tensor) -> torch.Tensor:
            if self.bits == 8:
                return packed.short().mul_(2).sub_(255)
            codes = torch.cat([packed & 15, (packed >> 4)[..., : kept - width]], dim=-1)
            return codes.view(torch.int8).mul_(2).sub_(15)

        def scale() -> torch.Tensor:
            return (here(self._steps()) / 2)[encoded[:, -cells:].int()]

        packed = encoded[:, :-cells].unflatten(1, (cells, width))
        return TokenMap(packed, unpack, scale, here(self.mean), here(self.backward))


@dataclass(frozen=True, eq=False)
class Codec:
    """Turns feature maps into bytes and back; immutable.

    quality: one of QUALITIES. grid, dim: maps are (grid, grid, dim). fitted_on: photos in the
    sample. mean: (2 d,) float32, [mean(F_A) ; mean(F_S)] over the sample's photos. appearance,
    semantic: how each map is coded, None for quality "none": raw little-endian float16. words: the
    collection's visual words; None for an index that was made before there were any.

    A photo's bytes are its appearance map, then its semantic map; in each all tokens' codes, then a
    scale byte a token. Tokens are in reading order, padding too. 4-bit codes are packed two a byte,
    code i of a token in the low half of byte i, code i + ceil(k / 2) in its high half.
    """

    quality: str
    grid: int
    dim: int
    fitted_on: int
    mean: NDArray[np.float32]
    appearance: _MapCoder | None
    semantic: _MapCoder | None
    words: VisualWords | None

    def __post_init__(self) -> None:
        self.mean.setflags(write=False)

    @classmethod
    def fit(
        cls,
        quality: str,
        sample: Sequence[FeatureMaps],
        vocabulary: NDArray[np.float32],
    ) -> "Codec":
        """The codec for photos like those of a sample, at least one; equal inputs, equal codec.

        vocabulary: (v, d), vectors C for which F_S . C matters, all alike: an error counts by its
        ratio to the spread of F_S . C. For v = 0 all directions of F_S count. Raises WaldoError for
        an unknown quality.
        """
        grid, dim = sample[0].appearance.shape[1:]
        kept = _kept(quality, dim)
        pooled = np.stack([maps.pooled() for maps in sample])
        mean: NDArray[np.float32] = pooled.mean(axis=0, dtype=np.float64).astype(np.float32)
        words = VisualWords.fit(sample, mean[:dim])
        if kept is None:
            return cls(quality, grid, dim, len(sample), mean, None, None, words)
        bits = _LEVELS[quality].bits
        covariance = _covariance((maps.valid_cells(maps.appearance) for maps in sample), mean[:dim])
        appearance = _MapCoder.fit(bits, mean[:dim], covariance, np.eye(dim), kept[0])
        covariance = _covariance((maps.valid_cells(maps.semantic) for maps in sample), mean[dim:])
        weights = _semantic_weights(vocabulary, covariance)
        semantic = _MapCoder.fit(bits, mean[dim:], covariance, weights, kept[1])
        return cls(quality, grid, dim, len(sample), mean, appearance, semantic, words)

    def encode(
        self, appearance: NDArray[np.float16], semantic: NDArray[np.float16]
    ) -> NDArray[np.uint8]:
        """Maps of n photos, each (n, grid, grid, d) float16 and finite, as (n, W) uint8."""
        if self.appearance is None or self.semantic is None:
            both = [
                np.ascontiguousarray(maps, dtype="<f2").reshape(len(maps), -1).view(np.uint8)
                for maps in (appearance, semantic)
            ]
        else:
            both = [self.appearance.encode(appearance), self.semantic.encode(semantic)]
        return np.concatenate(both, axis=1)

    def decode(self, encoded: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        """F_A and F_S of n photos, each (n, grid * grid, d) float32, on the bytes' device.

        encoded: (n, W) uint8.
        """
        if self.appearance is None or self.semantic is None:
            return self._raw(encoded)
        appearance, semantic = self.tokens(encoded)
        return appearance.decode(), semantic.decode()

    def tokens(self, encoded: "torch.Tensor") -> tuple[TokenMap, TokenMap]:
        """F_A and F_S of n photos as they are coded, on the bytes' device. encoded: (n, W) uint8.

        For quality "none", tokens as they are, float32.
        """
        import torch

        if self.appearance is None or self.semantic is None:
            means = torch.tensor(self.mean, device=encoded.device).chunk(2)
            appearance, semantic = map(TokenMap.plain, self._raw(encoded), means)
            return appearance, semantic
        cells = self.grid**2
        first = cells * _token_bytes(self.appearance.forward.shape[1], self.appearance.bits)
        return (
            self.appearance.tokens(encoded[:, :first], cells),
            self.semantic.tokens(encoded[:, first:], cells),
        )

    def _raw(self, encoded: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        import torch

        appearance, semantic = (
            half.contiguous().view(torch.float16).float().reshape(-1, self.grid**2, self.dim)
            for half in encoded.chunk(2, dim=1)
        )
        return appearance, semantic

    def save(self, path: Path) -> None:
        """Write as a safetensors file; equal codecs, equal bytes."""
        from safetensors.numpy import save

        # More than one entry of metadata would be written in an order that varies.
        sizes = np.array([self.grid, self.dim, self.fitted_on], dtype=np.int64)
        tensors: dict[str, NDArray[Any]] = {"sizes": sizes, "mean": self.mean}
        for name, coder in (("appearance", self.appearance), ("semantic", self.semantic)):
            if coder is not None:
                tensors[f"{name}.forward"] = coder.forward
                tensors[f"{name}.backward"] = coder.backward
                tensors[f"{name}.unit"] = coder.unit
        if self.words is not None:
            tensors["words.basis"] = self.words.basis
            tensors["words.centroids"] = self.words.centroids
        # safetensors' own writer leaves the file readable by its owner alone
        path.write_bytes(save(tensors, {"quality": self.quality}))

    @classmethod
    def load(cls, path: Path) -> "Codec":
        """Read what `save` wrote. Raises IndexDamagedError, with the reason, where it cannot."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls._of(metadata, tensors)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, WaldoError) as error:
            raise IndexDamagedError(f"is no codec that can be read ({one_line(error)})") from None

    @classmethod
    def _of(cls, metadata: dict[str, str], tensors: dict[str, NDArray[Any]]) -> "Codec":
        """The codec of a file's content. Raises KeyError, ValueError or WaldoError."""
        quality = metadata["quality"]
        grid, dim, fitted_on = (int(size) for size in tensors["sizes"])
        if min(grid, dim, fitted_on) < 1:
            raise ValueError("its sizes are not positive")
        kept = _kept(quality, dim)
        shapes: dict[str, tuple[int, ...]] = {"mean": (2 * dim,)}
        for name, k in zip(("appearance", "semantic"), kept or (), strict=False):
            shapes[f"{name}.forward"] = (dim, k)
            shapes[f"{name}.backward"] = (k, dim)
            shapes[f"{name}.unit"] = ()
        if "words.basis" in tensors:
            width = tensors["words.basis"].shape[-1]
            shapes["words.basis"] = (dim, width)
            shapes["words.centroids"] = (len(tensors["words.centroids"]), width)
        for name, shape in shapes.items():
            tensor = tensors[name]
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not float32 {shape}")
            if not np.isfinite(tensor).all():
                raise ValueError(f"{name} holds numbers that are not finite")
        mean = tensors["mean"]
        words = None
        if "words.basis" in tensors:
            words = VisualWords(mean[:dim], tensors["words.basis"], tensors["words.centroids"])
        if kept is None:
            return cls(quality, grid, dim, fitted_on, mean, None, None, words)
        appearance, semantic = (
            _MapCoder(
                _LEVELS[quality].bits,
                part,
                *(tensors[f"{name}.{field}"] for field in ("forward", "backward", "unit")),
            )
            for name, part in (("appearance", mean[:dim]), ("semantic", mean[dim:]))
        )
        return cls(quality, grid, dim, fitted_on, mean, appearance, semantic, words)


def bytes_per_photo(quality: str, grid: int, dim: int) -> int:
    """W, the bytes of one encoded photo. Raises WaldoError for an unknown quality."""
    kept = _kept(quality, dim)
    if kept is None:
        return 4 * grid**2 * dim
    return grid**2 * sum(_token_bytes(k, _LEVELS[quality].bits) for k in kept)


def _kept(quality: str, dim: int) -> tuple[int, int] | None:
    """Numbers kept of a token of F_A and of F_S, or None for "none", which keeps all as they are.

    Raises WaldoError for an unknown quality.
    """
    if quality not in QUALITIES:
        raise WaldoError(f"{quality}: no such map quality; one of {', '.join(QUALITIES)}")
    if quality == "none":
        return None
    level = _LEVELS[quality]
    appearance, semantic = (
        min(dim, most, max(_FEWEST, dim * share // 32))
        for share, most in (level.appearance, level.semantic)
    )
    return appearance, semantic


def _token_bytes(kept: int, bits: int) -> int:
    return _packed_bytes(kept, bits) + 1


def _packed_bytes(kept: int, bits: int) -> int:
    return -(-kept * bits // 8)


def _pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """(tokens, k) codes as (tokens, bytes); see Codec for the order."""
    if bits == 8:
        return codes
    low, high = np.split(codes, [_packed_bytes(codes.shape[1], bits)], axis=1)
    packed = low.copy()
    packed[:, : high.shape[1]] |= high << 4
    return packed


def _covariance(
    photos: Iterable[NDArray[np.float32]], mean: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Mean of (x - mean)(x - mean)^T over all photos' tokens, (d, d)."""
    total = np.zeros((len(mean), len(mean)))
    count = 0
    for tokens in photos:
        centred = tokens - mean
        total += centred.T @ centred
        count += len(tokens)
    return total / count


def _semantic_weights(
    vocabulary: NDArray[np.float32], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """G^(1/2), (d, d), such that x^T G x is the mean over the vocabulary of the relative squared
    error of F_S . C when F_S is off by x.

    Relative to the variance of F_S . C over the sample: C and C minus the background's vector
    differ in it by far, and each matters. The identity where no vector says anything.
    """
    rows = vocabulary.astype(np.float64)
    variances = np.einsum("vd,de,ve->v", rows, covariance, rows, optimize=True)
    dim = len(covariance)
    if not (variances > 0.0).any():
        return np.eye(dim)
    # A vector along which the sample hardly varies must not outweigh all others.
    rows /= np.sqrt(np.maximum(variances, 0.01 * variances.mean()))[:, None]
    g = rows.T @ rows / len(rows)
    g += _OUTSIDE * np.trace(g) / dim * np.eye(dim)
    values, vectors = np.linalg.eigh(g)
    return np.asarray((vectors * np.sqrt(values)) @ vectors.T)


def codec_name(number: int) -> str:
    """The file name of a codec below the index folder."""
    return f"codec-{number}.safetensors"


def load_codec(path: Path) -> Codec:
    """Read a codec. Raises IndexDamagedError with the file and the repair."""
    try:
        return Codec.load(path)
    except IndexDamagedError as error:
        raise IndexDamagedError(f"{path} {error}; {REPAIR_HINT}") from error
