"""RootSIFT matches: the classical way to find an object again, as a baseline."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.photo import load_photo, photo_size
from features.regions import load_mask
from search.evaluation.benchmarks.benchmark import Benchmark
from search.query import Query

# Photos are resized to this length of the longer side, pixels.
_SIDE = 480
# At most this many keypoints per photo, the strongest.
_KEYPOINTS = 1000
# Lowe's ratio test: the best match must be nearer than this share of the distance of the second.
_RATIO = 0.8


def rootsift_scores(benchmark: Benchmark) -> Iterator[NDArray[np.float32]]:
    """The number of the object's keypoints that pass Lowe's ratio test in each gallery photo.

    Descriptors are RootSIFT (Arandjelovic and Zisserman, CVPR 2012). Yields (n_gallery,) float32
    for each query in turn. Raises WaldoError where OpenCV is not installed.
    """
    gallery = [_describe(photo)[1] for photo in benchmark.gallery]
    for asked in benchmark.queries:
        places, descriptors = _describe(asked.query.photo)
        mask = _mask(asked.query)
        columns, rows = (places * (mask.shape[1], mask.shape[0])).astype(int).T
        inside = mask[rows, columns]
        matches = [_matches(descriptors[inside], candidate) for candidate in gallery]
        yield np.array(matches, dtype=np.float32)


def has_opencv() -> bool:
    """Whether OpenCV is installed, which this method needs."""
    from importlib.util import find_spec

    return find_spec("cv2") is not None


def _describe(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The keypoints of a photo: places (n, 2) as fractions (x, y), unit descriptors (n, 128)."""
    try:
        import cv2
    except ImportError:
        raise WaldoError(
            "method rootsift: needs OpenCV; pip install 'waldo-search[evaluation]'"
        ) from None
    grey = load_photo(path).image.convert("L")
    scale = _SIDE / max(grey.size)
    size = max(1, round(grey.width * scale)), max(1, round(grey.height * scale))
    pixels = np.asarray(grey.resize(size))
    keypoints, found = cv2.SIFT.create(_KEYPOINTS).detectAndCompute(pixels, None)
    if found is None:
        return np.empty((0, 2)), np.empty((0, 128), dtype=np.float32)
    # Places on the far edge are kept within the photo.
    places = np.array([point.pt for point in keypoints]) / size
    shares = found / np.maximum(found.sum(axis=1, keepdims=True), 1e-12)
    return np.clip(places, 0, 1 - 1e-9), np.sqrt(shares).astype(np.float32)


def _mask(query: Query) -> NDArray[np.bool_]:
    """The query's region, (height, width) bool, upright pixels."""
    width, height = photo_size(query.photo)
    if query.mask is not None:
        return load_mask(query.mask, width, height)
    mask = np.zeros((height, width), dtype=bool)
    assert query.box is not None  # no protocol asks by a point, or by nothing
    x0, y0, x1, y1 = (round(value) for value in query.box)
    mask[y0:y1, x0:x1] = True
    return mask


def _matches(wanted: NDArray[np.float32], candidate: NDArray[np.float32]) -> int:
    """The number of descriptors whose nearest candidate is clearly nearer than the second."""
    if len(wanted) == 0 or len(candidate) < 2:
        return 0
    # For unit vectors, the squared distance is 2 - 2 cosine.
    cosines = wanted @ candidate.T
    best = np.partition(cosines, -2, axis=1)[:, -2:]
    distances = np.sqrt(np.maximum(2 - 2 * best, 0))
    return int((distances[:, 1] < _RATIO * distances[:, 0]).sum())
