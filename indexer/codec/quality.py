"""The qualities of a codec: how many numbers, and of how many bits, each keeps of a token."""

from dataclasses import dataclass

from features.errors import WaldoError

QUALITIES = ("none", "high", "standard", "small")
DEFAULT_QUALITY = "standard"


@dataclass(frozen=True)
class LossyQuality:
    """What a quality other than "none" keeps of a token.

    bits: per number, 4 or 8. appearance, semantic: numbers per token of F_A and of F_S, each as
    (share of d in 32nds, upper limit).
    """

    bits: int
    appearance: tuple[int, int]
    semantic: tuple[int, int]


# The limits are chosen for d = 640, where "standard" takes 64 bytes per token and "small" 32.
LOSSY = {
    "high": LossyQuality(8, (12, 128), (4, 40)),
    "standard": LossyQuality(4, (12, 96), (4, 28)),
    "small": LossyQuality(4, (4, 48), (2, 12)),
}

# Every map keeps at least this many numbers per token (or d, if that is less).
_FEWEST_NUMBERS = 8


@dataclass(frozen=True)
class TokenSizes:
    """What a quality keeps of a token for one d: bits per number, and numbers of F_A and F_S."""

    bits: int
    appearance: int
    semantic: int


def token_sizes(quality: str, dim: int) -> TokenSizes | None:
    """What a quality keeps of a token of length `dim`; None for "none", which keeps everything.

    Raises WaldoError for an unknown quality.
    """
    if quality not in QUALITIES:
        raise WaldoError(f"codec {quality}: no such quality; one of {', '.join(QUALITIES)}")
    if quality == "none":
        return None
    lossy = LOSSY[quality]
    appearance, semantic = (
        min(dim, limit, max(_FEWEST_NUMBERS, dim * share // 32))
        for share, limit in (lossy.appearance, lossy.semantic)
    )
    return TokenSizes(lossy.bits, appearance, semantic)


def uses_vocabulary(quality: str) -> bool:
    """Whether a codec of this quality is fitted to the vectors of a vocabulary."""
    return quality != "none"


def bytes_per_photo(quality: str, grid: int, dim: int) -> int:
    """W, the bytes of one encoded photo. Raises WaldoError for an unknown quality."""
    sizes = token_sizes(quality, dim)
    if sizes is None:
        return 4 * grid**2 * dim
    numbers = (sizes.appearance, sizes.semantic)
    return grid**2 * sum(bytes_per_token(count, sizes.bits) for count in numbers)


def bytes_per_token(numbers: int, bits: int) -> int:
    """Bytes of one token of one map: its packed numbers and one byte for its scale."""
    return packed_bytes(numbers, bits) + 1


def packed_bytes(numbers: int, bits: int) -> int:
    """Bytes that so many numbers take when they are packed."""
    return -(-numbers * bits // 8)
