"""Visual words: each cell of a photo is represented by the nearest of a few thousand typical cells.

An object covers a few cells of a photo, and the mean over all cells drowns it. Visual words keep
cells apart (Sivic and Zisserman, "Video Google", ICCV 2003), and an inverted file looks them up
(`recall/inverted_file.py`). Late interaction asks how similar the most similar cell of a photo is
to a cell of the object; the most similar word of the photo answers this approximately.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.maps import FeatureMaps
from features.regions import unit_vectors

# Cells are compared in this many principal directions.
_DIMENSIONS = 64
_MOST_WORDS = 8192
_CELLS_PER_WORD = 8
# K-means is fitted to at most this many cells.
_MOST_CELLS = 65_536
_STEPS = 5
_SEED = 0
# The nearest words are first looked for among the best of so many.
_WORDS_PER_GROUP = 16


@dataclass(frozen=True, eq=False)
class VisualWords:
    """A vocabulary of typical cells of the appearance map. Arrays are float32 and read-only.

    mean: (d,), subtracted first. basis: (d, p), orthonormal columns. centroids: (words, p), of
    length 1. The word of a cell is the centroid with the largest cosine to the cell's projection.
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
        """The vocabulary of the cells of some photos; the same photos give the same vocabulary.

        mean: (d,), the mean of F_A over the collection.
        """
        import faiss

        photos = [maps.valid_cells(maps.appearance) for maps in sample]
        cells = np.concatenate([unit_vectors(own - mean) for own in photos])
        chosen = np.random.default_rng(_SEED).permutation(len(cells))[:_MOST_CELLS]
        cells = cells[np.sort(chosen)]
        _, vectors = np.linalg.eigh(cells.T.astype(np.float64) @ cells)
        basis = np.ascontiguousarray(vectors[:, ::-1][:, :_DIMENSIONS], dtype=np.float32)
        wanted = max(1, min(_MOST_WORDS, len(cells) // _CELLS_PER_WORD))
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
        # The length of a projection does not change which centroid is nearest.
        cosines = ((cells - self.mean) @ self.basis) @ self.centroids.T
        words: NDArray[np.uint16] = cosines.argmax(axis=1).astype(np.uint16)
        return words

    def nearest(
        self, cells: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """The words nearest to each of (n, d) cells, and their cosines with it; nearest first.

        Both are (n, m); m is `count`, or the number of words if that is less.
        """
        cosines = unit_vectors((cells - self.mean) @ self.basis) @ self.centroids.T
        count = min(count, len(self))
        # The m largest cosines lie in the m groups of words with the largest maxima.
        groups, rest = divmod(len(self), _WORDS_PER_GROUP)
        if rest or groups < count:
            groups = len(self)
        members = np.arange(0, len(self), groups)[:, None]
        maxima = cosines.reshape(len(cells), len(members), groups).max(axis=1)
        some = np.argpartition(-maxima, count - 1, axis=1)[:, :count]
        words = (some[:, None, :] + members).reshape(len(cells), count * len(members))
        order = np.argsort(-np.take_along_axis(cosines, words, axis=1), axis=1, kind="stable")
        words = np.take_along_axis(words, order[:, :count], axis=1)
        return words.astype(np.uint16), np.take_along_axis(cosines, words, axis=1)

    def of_photo(self, maps: FeatureMaps) -> NDArray[np.uint16]:
        """The words of the valid cells of a photo, each once, rising."""
        return np.unique(self.of(maps.valid_cells(maps.appearance)))
