"""How sure a match is: the estimated precision at its score, and the probability that this photo
shows the object.
"""

import math

import numpy as np
from numpy.typing import NDArray

# A match that is less probable may be chance.
POSSIBLE = 0.2

# The distribution of chance scores is not estimated from fewer photos than this.
MINIMUM_PHOTOS = 20

# Quantiles of the normal distribution, in standard deviations above its median.
_QUANTILE_99 = 2.3263
_QUANTILE_90 = 1.2816

# Logistic regression of "the photo shows the object" on `evidence`: the constant and the weights.
# `python benchmarks/confidence.py --fit` fits them (docs/scores.md).
_CONSTANT = -3.5
_WEIGHTS = (1.17, -0.67, 3.87)

# Another instance must keep this share of the photo's score above the median (docs/scores.md).
_REMAINING_SHARE = 0.5


def confidences(scores: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The confidence of each photo, (n,) in 0..1; None for fewer than 20 photos.

    The confidence is the estimated precision at the photo's score: 1 - the false discovery rate
    among all photos with at least this score (Benjamini and Hochberg, 1995). Nearly all photos of a
    collection do not show the object, so the scores of all photos tell how photos without the
    object score: by a normal distribution with the same median and the same 90 % quantile. So a
    query for an object that no photo shows finds a match of confidence 0.9 or more in about one
    case of ten at most; docs/scores.md measures this.

    scores: (n,), the scores of all photos that were compared.
    """
    order = np.argsort(scores)  # equal scores get the same confidence, in any order
    rising = rising_confidences(scores[order])
    if rising is None:
        return None
    result = np.empty(len(scores))
    result[order] = rising
    return result


def rising_confidences(scores: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """`confidences` of scores that rise, (n,): so do the confidences."""
    if len(scores) < MINIMUM_PHOTOS:
        return None
    from scipy.special import erfc

    values = scores.astype(np.float64)
    median, deviation = _chance_distribution(values)
    tails = 0.5 * erfc((values - median) / deviation / math.sqrt(2))
    rates = len(values) * tails / np.arange(len(values), 0, -1)
    # A photo is never less sure than a photo with a lower score.
    rates = np.minimum.accumulate(rates)
    found: NDArray[np.float64] = 1 - np.minimum(rates, 1.0)
    return found


def probabilities(
    scores: NDArray[np.float32],
    searched: int,
    own: NDArray[np.bool_],
    chance: NDArray[np.float32] | None = None,
) -> NDArray[np.float64] | None:
    """How likely each photo is to show the object, (n,) in 0..1; None for fewer than 20 photos.

    This is a logistic regression on the photo's `evidence`, fitted to queries by the score
    `consistent` with query expansion; it suits other late interaction too, and no means over the
    map. A higher score is always more probable. The parameters are those of `evidence`.
    """
    if len(scores if chance is None else chance) < MINIMUM_PHOTOS:
        return None
    logits = _CONSTANT + evidence(scores, searched, own, chance) @ np.array(_WEIGHTS)
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return result


def evidence(
    scores: NDArray[np.float32],
    searched: int,
    own: NDArray[np.bool_],
    chance: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """What tells whether a photo shows the object, by the scores alone, (n, 3):

    - its height (`heights`);
    - the logarithm of the number of photos that were searched: in more photos, chance reaches
      higher scores;
    - its height as a share of the first match's, 0..1: behind a clear first match, other photos
      that look like it are often wrong ones.

    scores: (n,), n >= 20, the final scores of all photos that were compared. searched: the number
    of photos that recall chose them from. own: (n,) bool, the query's own photos, which are no
    first matches. chance: scores that tell how photos without the object score; None for `scores`.
    """
    above = heights(scores, chance)
    first = above[~own].max(initial=0)
    shares = (above / max(first, 1e-9)).clip(0, 1)
    return np.stack([above, np.full(len(above), math.log(searched)), shares], axis=1)


def heights(
    scores: NDArray[np.float32], chance: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """How far each photo's score is above chance, (n,), in standard deviations of the scores of
    photos without the object. The parameters are those of `evidence`.
    """
    median, deviation = _chance_distribution(
        (scores if chance is None else chance).astype(np.float64)
    )
    found: NDArray[np.float64] = (scores.astype(np.float64) - median) / deviation
    return found


def combined_heights(heights: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What several independent judges say of each photo, as one height above chance, (n,).

    By Fisher's method (1925): -2 times the sum of the logarithms of k p-values has, by chance, a
    chi-squared distribution of 2 k degrees of freedom. So a height that chance hardly reaches is
    not lost among others that say nothing. A photo that one judge knows keeps its height.

    heights: (judges, n), whose chance is a standard normal distribution. known: (judges, n) bool,
    the photos that each knows; at least one judge knows each photo.
    """
    from scipy.special import gammaln, log_ndtr, logsumexp, ndtri_exp

    surprise = -np.where(known, log_ndtr(-heights), 0.0).sum(axis=0)
    count = known.sum(axis=0)
    # The logarithm of the tail: exp(-x) times the sum of x^i / i! for i < k.
    powers = np.arange(len(heights))[:, None]
    terms = powers * np.log(np.maximum(surprise, 1e-300)) - gammaln(powers + 1)
    tail = logsumexp(np.where(powers < count, terms, -np.inf), axis=0) - surprise
    combined: NDArray[np.float64] = -ndtri_exp(np.minimum(tail, -1e-300))
    return combined


def minimum_remaining_score(
    scores: NDArray[np.float32], found: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The minimum score, with the found instances masked out, for another instance to be reported.

    It is the higher of two scores: the one that a photo without the object exceeds in one of a
    hundred cases, and the middle between the median of all scores and the score of the whole photo.
    Returns (n,) float32; infinity where fewer than 20 photos were compared.

    scores: the scores of all photos that were compared. found: (n,), the scores of the whole photos
    in question.
    """
    if len(scores) < MINIMUM_PHOTOS:
        return np.full(len(found), np.inf, dtype=np.float32)
    median, deviation = _chance_distribution(scores.astype(np.float64))
    by_chance = median + _QUANTILE_99 * deviation
    remaining = median + _REMAINING_SHARE * (found - median)
    return np.maximum(by_chance, remaining).astype(np.float32)


def _chance_distribution(scores: NDArray[np.float64]) -> tuple[float, float]:
    """The median and standard deviation of the scores of photos without the object."""
    median, high = np.quantile(scores, [0.5, 0.9])
    return float(median), max(float(high - median) / _QUANTILE_90, 1e-9)
