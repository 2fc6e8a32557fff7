"""The codec of feature maps: the two maps of a photo in a fixed number of bytes.

Scores need only inner products of tokens. Each map is therefore projected onto the few directions
that matter to these inner products, rotated at random within them, and rounded to a few bits per
number, with a scale of one byte per token:

- Appearance: principal components, an orthonormal basis; it keeps inner products of tokens.
- Semantic: F_S is only ever multiplied with class vectors, so the components are those that
  predict F_S . C best over the vectors C of a vocabulary.

The random rotation spreads the energy of a token evenly over the kept numbers, so that the same
coarse steps suit all of them (the principle of QuIP#, Tseng et al. 2024, and of TurboQuant, Zandieh
et al. 2025). `benchmarks/codecs.py` measures what each quality costs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.maps import FeatureMaps
from indexer.codec.map_coder import MapCoder
from indexer.codec.quality import TokenSizes, bytes_per_token, token_sizes
from indexer.codec.tokens import TokenMap
from indexer.codec.visual_words import VisualWords
from indexer.errors import REPAIR_HINT, IndexDamagedError, one_line

if TYPE_CHECKING:
    import torch

# The share of weight that the semantic projection gives to all directions alike: a class vector
# from outside the vocabulary has a part in directions that the vocabulary hardly uses.
_OUTSIDE_SHARE = 1e-3


@dataclass(frozen=True, eq=False)
class Codec:
    """Turns feature maps into bytes and back; immutable.

    quality: one of `quality.QUALITIES`. grid, dim: maps are (grid, grid, dim). fitted_on: how many
    photos the sample had. mean: (2 d,) float32, [mean(F_A) ; mean(F_S)] over the photos of the
    sample. appearance, semantic: the coder of each map; None for quality "none", which stores maps
    as little-endian float16. words: the visual words of the collection; None in an index that was
    made before there were any.

    The bytes of a photo are its appearance map, then its semantic map. Each map is the codes of all
    tokens, then one scale byte per token. Tokens are in reading order and include padding. Codes of
    4 bits are packed two per byte: code i of a token in the low half of byte i, code
    i + ceil(k / 2) in its high half.
    """

    quality: str
    grid: int
    dim: int
    fitted_on: int
    mean: NDArray[np.float32]
    appearance: MapCoder | None
    semantic: MapCoder | None
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
        """The codec for photos like those of a sample, which has at least one.

        Equal inputs give an equal codec. vocabulary: (v, d), the vectors C for which F_S . C
        matters, all equally: an error is measured relative to the spread of F_S . C. For v = 0 all
        directions of F_S matter equally. Not looked at where `quality.uses_vocabulary` says so.
        Raises WaldoError for an unknown quality.
        """
        grid, dim = sample[0].appearance.shape[1:]
        sizes = token_sizes(quality, dim)
        pooled = np.stack([maps.pooled() for maps in sample])
        mean: NDArray[np.float32] = pooled.mean(axis=0, dtype=np.float64).astype(np.float32)
        words = VisualWords.fit(sample, mean[:dim])
        if sizes is None:
            return cls(quality, grid, dim, len(sample), mean, None, None, words)
        covariance = _covariance((maps.valid_cells(maps.appearance) for maps in sample), mean[:dim])
        appearance = MapCoder.fit(sizes.bits, mean[:dim], covariance, np.eye(dim), sizes.appearance)
        covariance = _covariance((maps.valid_cells(maps.semantic) for maps in sample), mean[dim:])
        weights = _semantic_weights(vocabulary, covariance)
        semantic = MapCoder.fit(sizes.bits, mean[dim:], covariance, weights, sizes.semantic)
        return cls(quality, grid, dim, len(sample), mean, appearance, semantic, words)

    def encode(
        self, appearance: NDArray[np.float16], semantic: NDArray[np.float16]
    ) -> NDArray[np.uint8]:
        """The maps of n photos, (n, grid, grid, d) float16 each and finite, as (n, W) uint8."""
        if self.appearance is None or self.semantic is None:
            both = [
                np.ascontiguousarray(maps, dtype="<f2").reshape(len(maps), -1).view(np.uint8)
                for maps in (appearance, semantic)
            ]
        else:
            both = [self.appearance.encode(appearance), self.semantic.encode(semantic)]
        return np.concatenate(both, axis=1)

    def decode(self, encoded: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        """F_A and F_S of n photos, (n, grid * grid, d) float32 each, on the device of `encoded`.

        encoded: (n, W) uint8.
        """
        if self.appearance is None or self.semantic is None:
            return self._raw(encoded)
        appearance, semantic = self.tokens(encoded)
        return appearance.decode(), semantic.decode()

    def tokens(self, encoded: "torch.Tensor") -> tuple[TokenMap, TokenMap]:
        """F_A and F_S of n photos in their encoded form, on the device of `encoded`.

        encoded: (n, W) uint8. For quality "none" the tokens are plain float32.
        """
        import torch

        if self.appearance is None or self.semantic is None:
            if encoded.device not in self._means:
                self._means[encoded.device] = torch.tensor(self.mean, device=encoded.device)
            means = self._means[encoded.device].chunk(2)
            appearance, semantic = map(TokenMap.plain, self._raw(encoded), means)
            return appearance, semantic
        cells = self.grid**2
        first = cells * bytes_per_token(self.appearance.forward.shape[1], self.appearance.bits)
        return (
            self.appearance.tokens(encoded[:, :first], cells),
            self.semantic.tokens(encoded[:, first:], cells),
        )

    @cached_property
    def _means(self) -> "dict[torch.device, torch.Tensor]":
        """`mean` by the devices that it was copied to."""
        return {}

    def _raw(self, encoded: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        import torch

        appearance, semantic = (
            half.contiguous().view(torch.float16).float().reshape(-1, self.grid**2, self.dim)
            for half in encoded.chunk(2, dim=1)
        )
        return appearance, semantic

    def save(self, path: Path) -> None:
        """Write a safetensors file; equal codecs give equal bytes."""
        from safetensors.numpy import save

        # Metadata of more than one entry would be written in an order that varies.
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
        # The writer of safetensors itself makes a file that only its owner can read.
        path.write_bytes(save(tensors, {"quality": self.quality}))

    @classmethod
    def load(cls, path: Path) -> "Codec":
        """Read what `save` wrote. Raises IndexDamagedError with the reason if it cannot."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls._of(metadata, tensors)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, WaldoError) as error:
            raise IndexDamagedError(f"cannot be read as a codec ({one_line(error)})") from None

    @classmethod
    def _of(cls, metadata: dict[str, str], tensors: dict[str, NDArray[Any]]) -> "Codec":
        """The codec of a file's content. Raises KeyError, ValueError or WaldoError."""
        quality = metadata["quality"]
        grid, dim, fitted_on = (int(size) for size in tensors["sizes"])
        if min(grid, dim, fitted_on) < 1:
            raise ValueError("its sizes are not positive")
        sizes = token_sizes(quality, dim)
        _check_tensors(tensors, dim, sizes)
        mean = tensors["mean"]
        words = None
        if "words.basis" in tensors:
            words = VisualWords(mean[:dim], tensors["words.basis"], tensors["words.centroids"])
        if sizes is None:
            return cls(quality, grid, dim, fitted_on, mean, None, None, words)
        appearance, semantic = (
            MapCoder(
                sizes.bits,
                part,
                *(tensors[f"{name}.{field}"] for field in ("forward", "backward", "unit")),
            )
            for name, part in (("appearance", mean[:dim]), ("semantic", mean[dim:]))
        )
        return cls(quality, grid, dim, fitted_on, mean, appearance, semantic, words)


def _check_tensors(tensors: dict[str, NDArray[Any]], dim: int, sizes: TokenSizes | None) -> None:
    """Raise KeyError or ValueError unless a codec's tensors have their shapes and are finite."""
    shapes: dict[str, tuple[int, ...]] = {"mean": (2 * dim,)}
    if sizes is not None:
        for name, numbers in (("appearance", sizes.appearance), ("semantic", sizes.semantic)):
            shapes[f"{name}.forward"] = (dim, numbers)
            shapes[f"{name}.backward"] = (numbers, dim)
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


def _covariance(
    photos: Iterable[NDArray[np.float32]], mean: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The mean of (x - mean)(x - mean)^T over the tokens of all photos, (d, d)."""
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
    """G^(1/2), (d, d), where x^T G x is the mean relative squared error of F_S . C over the
    vocabulary when F_S is off by x.

    The error is relative to the variance of F_S . C over the sample, because C and C minus the
    vector of the background differ greatly in that variance, and both matter. The identity if
    F_S . C does not vary for any vector.
    """
    rows = vocabulary.astype(np.float64)
    variances = np.einsum("vd,de,ve->v", rows, covariance, rows, optimize=True)
    dim = len(covariance)
    if not (variances > 0.0).any():
        return np.eye(dim)
    # A vector along which the sample hardly varies must not outweigh all the others.
    rows /= np.sqrt(np.maximum(variances, 0.01 * variances.mean()))[:, None]
    g = rows.T @ rows / len(rows)
    g += _OUTSIDE_SHARE * np.trace(g) / dim * np.eye(dim)
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
