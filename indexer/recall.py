"""Coarse recall: the exact inner product of a query with every photo's pooled vector.

Searched with [a_r ; C] / 2 it gives the paper's ranking of the whole collection (PDM Eq. 5 to 7),
so nothing is lost here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.files import write_atomically
from indexer.manifest import Manifest
from indexer.photos import read_pooled

# FAISS's limit on a GPU.
_MAX_GPU_K = 2048
_CHUNK = 16_384


class RecallIndex:
    """A flat inner-product index over pooled vectors, with deleted ids left out of the answers.

    dim: length of a vector, 2 d. tombstones: deleted ids. Not safe for two threads to add to.
    """

    def __init__(self, dim: int, tombstones: Sequence[int] = (), base: Any = None) -> None:
        import faiss

        self.dim = dim
        self._index = base or faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        self._tombstones = np.unique(np.asarray(tombstones, dtype=np.int64))
        self._gpu: Any = None
        self._gpu_is_full = False
        self._changed()

    def __len__(self) -> int:
        """How many vectors can be found."""
        return int(self._live.sum())

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64: every stored id in order of addition, deleted ones too."""
        import faiss

        return faiss.vector_to_array(self._index.id_map).astype(np.int64)

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add (n,) ids with their (n, dim) float32 vectors; ids that are stored already are left.

        A photo that moved is written to the photo table again, with the same id and vector.
        """
        first = np.sort(np.unique(ids, return_index=True)[1])
        first = first[~np.isin(ids[first], self.ids)]
        if len(first):
            self._index.add_with_ids(np.ascontiguousarray(vectors[first], np.float32), ids[first])
            self._changed()

    def search(
        self, vector: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k photos with the largest inner product, all of them if there are fewer.

        vector: (dim,) float32. Returns ids (m,) int64 and scores (m,) float32, m <= k, by falling
        score and, where scores are equal, rising id. Raises ValueError for another length.
        """
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        if query.shape[1] != self.dim:
            raise ValueError(f"the vector has length {query.shape[1]}, the index {self.dim}")
        count = len(self)
        k = min(k, count)
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        # Copies of a photo have equal scores: go on until all equals of the k-th are at hand, so
        # that which of them is cut depends on the id and not on FAISS's heap.
        ask = min(count, k + 16)
        while True:
            scores, ids = self._search(query, ask)
            if ask == count or scores[-1] < scores[k - 1]:
                break
            ask = min(count, 2 * ask)
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], scores[order]

    def mean(self) -> NDArray[np.float32]:
        """(dim,) float32: the mean of the vectors that can be found; zeros if there are none."""
        total = np.zeros(self.dim, dtype=np.float64)
        for start, vectors in self._chunks():
            total += vectors[self._live[start : start + len(vectors)]].sum(axis=0, dtype=np.float64)
        return (total / max(1, len(self))).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the index, deleted vectors included, durably and atomically."""
        import faiss

        write_atomically(path, lambda temporary: faiss.write_index(self._index, str(temporary)))

    def _search(
        self, query: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """k hits by falling score; k is at most the number of live vectors."""
        import faiss

        gpu = self._on_gpu() if k <= _MAX_GPU_K else None
        if gpu is not None:
            scores, rows = gpu.search(query, k)
            return scores[0], self.ids[self._live][rows[0]]
        if len(self) == self._index.ntotal:
            scores, ids = self._index.search(query, k)
            return scores[0], ids[0]
        # The parameters point at the selectors without owning them.
        dead = faiss.IDSelectorBatch(self._tombstones)
        live = faiss.IDSelectorNot(dead)
        parameters = faiss.SearchParameters()
        parameters.sel = live
        scores, ids = self._index.search(query, k, params=parameters)
        return scores[0], ids[0]

    def _chunks(self) -> Any:
        """(first row, vectors) of the stored vectors, a few at a time."""
        import faiss

        flat = faiss.downcast_index(self._index.index)
        for start in range(0, flat.ntotal, _CHUNK):
            yield start, flat.reconstruct_n(start, min(_CHUNK, flat.ntotal - start))

    def _changed(self) -> None:
        """Note which rows are live, and that a copy on the GPU is out of date."""
        self._live = ~np.isin(self.ids, self._tombstones)
        self._gpu = None

    def _on_gpu(self) -> Any:
        """A copy of the live vectors on the GPU (its search takes no selector), or None."""
        import faiss

        if self._gpu is None and not self._gpu_is_full and faiss.get_num_gpus() > 0:
            try:
                self._resources = faiss.StandardGpuResources()
                gpu = faiss.GpuIndexFlatIP(self._resources, self.dim)
                for start, vectors in self._chunks():
                    gpu.add(vectors[self._live[start : start + len(vectors)]])
                self._gpu = gpu
            except RuntimeError:
                # No room for it beside a model: the CPU gives the same answer.
                self._gpu_is_full = True
        return self._gpu


def recall_name(number: int) -> str:
    """File name of the recall index below the index folder."""
    return f"recall-{number}.faiss"


def load_recall(index_dir: Path, manifest: Manifest) -> RecallIndex:
    """The recall index of a committed state, with whatever its saved file lacks added in memory.

    The file lags behind after a run that was killed, and may be gone or damaged: the photo table
    has the vectors too. Raises IndexDamagedError where the photo table cannot be read.
    """
    dim = 2 * manifest.dim
    base, covers = None, 0
    if manifest.recall is not None:
        base = _read_faiss(index_dir / manifest.recall.file.name, dim, manifest.recall.file.rows)
        covers = manifest.recall.covers if base is not None else 0
    recall = RecallIndex(dim, manifest.tombstones, base)
    parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    missing = [file for file in manifest.photos if file.number > covers]
    for file in missing:
        parts.append(read_pooled(index_dir / file.name, manifest.dim))
        # Each addition looks at all ids, so small shards are added together.
        if file is missing[-1] or sum(len(ids) for ids, _ in parts) >= _CHUNK:
            ids, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
            recall.add(ids, vectors)
            parts = []
    return recall


def _read_faiss(path: Path, dim: int, rows: int) -> Any:
    """The saved index, or None where it is missing or not what the manifest says."""
    import faiss

    try:
        index = faiss.read_index(str(path))
    except RuntimeError:
        return None
    return index if (index.d, index.ntotal) == (dim, rows) else None
