"""How sure it is that a match is no chance likeness."""

import math

import numpy as np
from numpy.typing import NDArray

# With fewer photos to compare, nothing can be said of what chance does.
FEWEST = 20

# The 90 % quantile of a normal distribution, in standard deviations above its median.
_NINETY_PERCENT = 1.2816


def confidences(scores: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The chance, for each photo, that the best of as many photos without the object would score
    less: (n,) in 0..1; None for fewer than 20 photos.

    Nearly all photos do not show the object, so their scores tell what chance gives: a normal
    distribution with the median and the 90 % quantile of all. Of queries for objects that are not
    there, at most about one in ten finds a match of confidence 0.9, if chance is as it should be.

    scores: (n,), of all photos that were compared. docs/scores.md says how true that is.
    """
    if len(scores) < FEWEST:
        return None
    values = scores.astype(np.float64)
    middle, high = np.quantile(values, [0.5, 0.9])
    spread = max((high - middle) / _NINETY_PERCENT, 1e-9)
    above = np.array([0.5 * math.erfc((v - middle) / spread / math.sqrt(2)) for v in values])
    return np.asarray(np.exp(len(values) * np.log1p(-np.minimum(above, 1 - 1e-12))))
