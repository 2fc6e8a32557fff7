"""Visual words: the cells of a photo, each by the nearest of a few thousand typical ones.

An object covers a few cells of a photo, and the mean over all cells drowns it. Words keep cells
apart (Sivic and Zisserman, "Video Google", ICCV 2003) and can be looked up by an inverted file
(`word_recall.py`). A photo's words stand for its cells: how near the nearest cell of a photo is to
a cell of the object, which late interaction asks, is about how near its nearest word is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps
from features.regions import unit_vectors

# Cells are compared in their most telling dimensions.
_DIMENSIONS = 64
_MOST_WORDS = 8192
_CELLS_A_WORD = 8
# K-means sees this many cells.
_MOST_CELLS = 65_536
_STEPS = 5
_SEED = 0


@dataclass(frozen=True, eq=False)
class VisualWords:
    """A vocabulary of cells of the appearance map; arrays are float32 and read-only.

    mean: (d,), subtracted first. basis: (d, p), orthonormal columns. centroids: (words, p), of
    length 1. A cell's word is the centroid with the largest cosine to its projection.
    """

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    centroids: NDArray[np.float32]

    def __post_init__(self) -> None:
        for array in (self.mean, self.basis, self.centroids):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.centroids)

    @classmethod
    def fit(cls, sample: Sequence[FeatureMaps], mean: NDArray[np.float32]) -> "VisualWords":
        """The vocabulary of some photos' cells; the same photos give the same one.

        mean: (d,), the mean of F_A over the collection.
        """
        import faiss

        photos = [maps.valid_cells(maps.appearance) for maps in sample]
        cells = np.concatenate([unit_vectors(own - mean) for own in photos])
        chosen = np.random.default_rng(_SEED).permutation(len(cells))[:_MOST_CELLS]
        cells = cells[np.sort(chosen)]
        _, vectors = np.linalg.eigh(cells.T.astype(np.float64) @ cells)
        basis = np.ascontiguousarray(vectors[:, ::-1][:, :_DIMENSIONS], dtype=np.float32)
        wanted = max(1, min(_MOST_WORDS, len(cells) // _CELLS_A_WORD))
        kmeans = faiss.Kmeans(
            basis.shape[1],
            1 << (wanted.bit_length() - 1),
            niter=_STEPS,
            spherical=True,
            seed=_SEED + 1,
            min_points_per_centroid=1,
            max_points_per_centroid=_MOST_CELLS,
        )
        kmeans.train(unit_vectors(cells @ basis))
        return cls(mean, basis, unit_vectors(np.asarray(kmeans.centroids)))

    def of(self, cells: NDArray[np.float32]) -> NDArray[np.uint16]:
        """The word of each of (n, d) cells of an appearance map, (n,)."""
        # the length of a projection does not change which centroid is nearest
        cosines = ((cells - self.mean) @ self.basis) @ self.centroids.T
        words: NDArray[np.uint16] = cosines.argmax(axis=1).astype(np.uint16)
        return words

    def nearest(
        self, cells: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """The words nearest to each of (n, d) cells and their cosines with it, (n, m) each, the
        nearest first; m is `count`, or all words where there are fewer.
        """
        cosines = unit_vectors((cells - self.mean) @ self.basis) @ self.centroids.T
        count = min(count, len(self))
        some = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, some, axis=1), axis=1, kind="stable")
        words = np.take_along_axis(some, order, axis=1)
        return words.astype(np.uint16), np.take_along_axis(cosines, words, axis=1)

    def of_photo(self, maps: FeatureMaps) -> NDArray[np.uint16]:
        """The words that a photo's valid cells have, each once, rising."""
        return np.unique(self.of(maps.valid_cells(maps.appearance)))
