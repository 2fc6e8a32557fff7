"""Where in a photo the evidence lies."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features.frame import Frame

# How far below its peak a heatmap may fall within the object, as a fraction of the way down to
# the photo's median, which stands for the background.
FALL = 0.5


def object_cells(heatmap: NDArray[np.float32], frame: Frame) -> NDArray[np.bool_]:
    """The cells around a heatmap's peak that belong together with it, (grid, grid) bool.

    heatmap: (grid, grid) float32; padding is ignored. Cells count that stay in the upper half
    between the median and the peak, and are connected with the peak, diagonals included.
    """
    valid = frame.valid()
    inside = np.where(valid, heatmap, -np.inf)
    peak = np.unravel_index(int(inside.argmax()), inside.shape)
    high = float(inside[peak])
    median = float(np.median(heatmap[valid]))
    regions, _ = ndimage.label(inside >= high - FALL * (high - median), structure=np.ones((3, 3)))
    return np.asarray(regions == regions[peak])
