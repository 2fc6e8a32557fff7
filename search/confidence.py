"""How sure it is that a match is no chance likeness."""

import math

import numpy as np
from numpy.typing import NDArray

# With fewer photos to compare, nothing can be said of what chance does.
FEWEST = 20

# Another place of the object in a photo counts where, without those found before, the photo still
# scores what one in a hundred would by chance (standard deviations above the median of a normal
# distribution), and this share of what it has above the median (docs/scores.md).
_ONE_PERCENT = 2.3263
_SHARE = 0.5

# The 90 % quantile of a normal distribution, in standard deviations above its median.
_NINETY_PERCENT = 1.2816


def confidences(scores: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """For each photo, what share of those that score no less show the object: (n,) in 0..1; None
    for fewer than 20 photos.

    Nearly all photos do not show it, so their scores tell what chance gives: a normal distribution
    with the median and the 90 % quantile of all. How many photos it makes score so much, over how
    many do, is the share that chance explains (Benjamini and Hochberg, 1995). So of queries for
    objects that are not there, at most about one in ten finds a match of confidence 0.9;
    docs/scores.md says how true that is.

    scores: (n,), of all photos that were compared.
    """
    if len(scores) < FEWEST:
        return None
    values = scores.astype(np.float64)
    middle, spread = _chance(values)
    order = np.argsort(-values, kind="stable")
    tails = [0.5 * math.erfc((v - middle) / spread / math.sqrt(2)) for v in values[order]]
    by_chance = len(values) * np.array(tails) / np.arange(1, len(values) + 1)
    # A photo is as sure as any that scores less.
    share = np.minimum.accumulate(by_chance[::-1])[::-1]
    result = np.empty(len(values))
    result[order] = 1 - np.minimum(share, 1.0)
    return result


def least_without_place(
    scores: NDArray[np.float32], found: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What photos must still score without the places that the object was found at, for another
    place to count, (n,) float32; infinite where fewer than 20 photos were compared.

    scores: of all photos that were compared. found: (n,), of the photos asked about.
    """
    if len(scores) < FEWEST:
        return np.full(len(found), np.inf, dtype=np.float32)
    middle, spread = _chance(scores.astype(np.float64))
    least = np.maximum(middle + _ONE_PERCENT * spread, middle + _SHARE * (found - middle))
    return least.astype(np.float32)


def _chance(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Median and standard deviation of what photos without the object score."""
    middle, high = np.quantile(scores, [0.5, 0.9])
    return float(middle), max(float(high - middle) / _NINETY_PERCENT, 1e-9)
