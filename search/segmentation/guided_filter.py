"""The guided filter, which moves the edges of coarse maps to the edges of a photo.

He, Sun and Tang, Guided Image Filtering, ECCV 2010.
"""

import numpy as np
from numpy.typing import NDArray


def guided_filter(
    guide: NDArray[np.float32], values: NDArray[np.float32], radius: int, eps: float
) -> NDArray[np.float32]:
    """Filter values so that their edges follow those of a photo; float32 of the shape of `values`.

    In every window a ridge regression fits a linear function of the photo's colour to the values.
    The result at a pixel is the mean of these functions over all windows that contain the pixel.
    Pixels on the border are repeated beyond it.

    guide: the photo, (height, width) or (height, width, 3) float32, 0..1.
    values: (height, width) or (height, width, maps) float32; each map is filtered by itself.
    radius: windows are 2 radius + 1 pixels wide.
    eps: the ridge weight; colours whose variance in a window is far below it make no edge.
    Raises ValueError where the sizes differ.
    """
    if guide.shape[:2] != values.shape[:2]:
        raise ValueError(f"guide is {guide.shape[:2]}, values {values.shape[:2]}")
    colours = [*np.moveaxis(np.atleast_3d(guide), 2, 0)]
    means = [_mean(colour, radius) for colour in colours]
    inverse = _inverse(
        {
            (i, j): _mean(colours[i] * colours[j], radius)
            - means[i] * means[j]
            + np.float32(eps * (i == j))
            for i in range(len(colours))
            for j in range(i, len(colours))
        }
    )
    result = np.empty(np.atleast_3d(values).shape, dtype=np.float32)
    for number, level in enumerate(np.moveaxis(np.atleast_3d(values), 2, 0)):
        mean = _mean(level, radius)
        common = [
            _mean(colour * level, radius) - m * mean
            for colour, m in zip(colours, means, strict=True)
        ]
        slopes = [
            np.sum([inverse[min(i, j), max(i, j)] * part for j, part in enumerate(common)], axis=0)
            for i in range(len(colours))
        ]
        offset = mean - sum(slope * m for slope, m in zip(slopes, means, strict=True))
        followed = _mean(offset, radius)
        for slope, colour in zip(slopes, colours, strict=True):
            followed += _mean(slope, radius) * colour
        result[:, :, number] = followed
    return result.reshape(values.shape)


def _mean(image: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The mean of the window around each pixel."""
    from scipy import ndimage

    return np.asarray(ndimage.uniform_filter(image, 2 * radius + 1, mode="nearest"))


def _inverse(
    matrix: dict[tuple[int, int], NDArray[np.float32]],
) -> dict[tuple[int, int], NDArray[np.float32]]:
    """The inverses of symmetric 1 x 1 or 3 x 3 matrices, one per pixel.

    matrix: the entries of the upper triangle, (height, width) each, by row and column.
    """
    if len(matrix) == 1:
        return {(0, 0): np.reciprocal(matrix[0, 0])}
    # Cramer's rule is several times as fast as a solver for a million matrices.
    rr, rg, rb, gg, gb, bb = (matrix[at] for at in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    minors = {
        (0, 0): gg * bb - gb * gb,
        (0, 1): gb * rb - rg * bb,
        (0, 2): rg * gb - gg * rb,
        (1, 1): rr * bb - rb * rb,
        (1, 2): rb * rg - rr * gb,
        (2, 2): rr * gg - rg * rg,
    }
    determinant = rr * minors[0, 0] + rg * minors[0, 1] + rb * minors[0, 2]
    return {at: minor / determinant for at, minor in minors.items()}
