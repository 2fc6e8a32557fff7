"""How clearly a photo shows a class, by its name alone."""

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps

# Below this, a photo hardly shows the class by the bundled model: so are 5 % of the classes that
# the validation scenes show (benchmarks/class_names.py).
LEAST_PRESENCE = -7.1

# The number of cells whose mean is taken.
_CELLS = 8


def class_presence(
    maps: FeatureMaps, vector: NDArray[np.float32], rivals: NDArray[np.float32]
) -> float:
    """The logarithm of the share of attention that a class's name gets among many names, at most 0.

    Attention is softmax(F_S C^T / sqrt(d)) (PDM Eq. 3), taken over the names at each cell; this is
    the mean over the 8 cells with the largest share. vector: C of the class, (d,) float32. rivals:
    class vectors of the names, (m, d) float32, m >= 1.
    """
    from scipy.special import logsumexp

    root = np.sqrt(len(vector))
    semantic = maps.semantic[maps.frame.valid()].astype(np.float32) / root
    shares = semantic @ vector - logsumexp(semantic @ rivals.T, axis=1)
    return float(np.sort(shares)[-_CELLS:].mean())
