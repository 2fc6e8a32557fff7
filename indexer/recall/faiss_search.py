"""Search in one FAISS index: scan all of it, or the most promising lists of an inverted file."""

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A scan is divided into slices of at least this many rows.
_ROWS_PER_SLICE = 16_384
# A query compares at least this share of the lists, and enough of them to hold so many photos for
# each one that is asked for.
_SHARE_OF_LISTS = 1 / 8
_COMPARED_PER_ANSWER = 64


@dataclass(frozen=True)
class SearchableVectors:
    """The vectors in one FAISS index.

    ids: (n,) int64, the photo of each row of the index. owner: an object that has to live as long.
    """

    ids: NDArray[np.int64]
    index: Any
    owner: Any = None

    @classmethod
    def of_base(cls, base: Any) -> "SearchableVectors":
        """A base as `faiss_base` makes it; it numbers its rows by photo ids."""
        faiss = faiss_module()
        index = faiss.downcast_index(base.index)
        if not is_flat(index):
            index.parallel_mode = 1  # the lists of one query are divided among threads
        return cls(faiss.vector_to_array(base.id_map).astype(np.int64), index, base)

    @property
    def kind(self) -> str:
        """How the index is searched: "flat", or "ivf4096,fp16" with its number of lists."""
        return "flat" if is_flat(self.index) else f"ivf{self.index.nlist},fp16"

    def search(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and scores of the k best of the allowed rows, or of all of them if there are fewer.

        query: (1, dim) float32. allowed: (n,) bool.
        """
        k = min(k, int(allowed.sum()))
        if k == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        search = self._scan if is_flat(self.index) else self._probe
        return search(query, k, allowed)

    def score_all(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inner products of all rows with a query, (n,) float32. query: (1, dim) float32."""
        faiss = faiss_module()
        scores = np.full(len(self.ids), -np.inf, np.float32)

        def compare(start: int, stop: int) -> None:
            selector = faiss.IDSelectorRange(start, stop, True)
            parameters = faiss.SearchParameters(sel=selector)
            _, values, rows = self.index.range_search(query, float("-inf"), params=parameters)
            scores[rows] = values

        if is_flat(self.index):
            cuts = self._cuts()
            list(_threads().map(compare, cuts[:-1], cuts[1:]))
        else:
            every = faiss.SearchParametersIVF(nprobe=self.index.nlist)
            _, values, rows = self.index.range_search(query, float("-inf"), params=every)
            scores[rows] = values
        return scores

    def _cuts(self) -> list[int]:
        """Where the slices begin that threads scan side by side, and where the last one ends."""
        rows = len(self.ids)
        return np.linspace(0, rows, _slices(rows) + 1).astype(int).tolist()

    def _scan(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Compare every row, one slice per core: FAISS does not divide a single query itself."""
        faiss = faiss_module()
        cuts = self._cuts()
        everything = bool(allowed.all())

        def scan(start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            if everything:
                selector = faiss.IDSelectorRange(start, stop, True)
            else:
                inside = np.zeros(len(allowed), dtype=bool)
                inside[start:stop] = allowed[start:stop]
                selector = _selector(inside)
            parameters = faiss.SearchParameters(sel=selector)
            scores, rows = self.index.search(query, k, params=parameters)
            return scores[0], rows[0]

        found = list(_threads().map(scan, cuts[:-1], cuts[1:]))
        return _hits(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _probe(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Compare the lists whose centroids have the largest inner products, until there are k.

        More lists are compared where many photos are asked for or few are allowed; all of them if
        fewer than _COMPARED_PER_ANSWER k photos are allowed.
        """
        faiss = faiss_module()
        lists = self.index.nlist
        selector = None if allowed.all() else _selector(allowed)
        share = max(_SHARE_OF_LISTS, _COMPARED_PER_ANSWER * k / int(allowed.sum()))
        probes = min(lists, math.ceil(share * lists))
        while True:
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
            scores, rows = self.index.search(query, k, params=parameters)
            found, values = _hits(scores[0], rows[0])
            if len(found) == k or probes == lists:
                return found, values
            probes = min(lists, 2 * probes)


def faiss_module() -> Any:
    """FAISS without its type stubs, which lack what its Python layer adds."""
    import faiss

    return faiss


def is_flat(index: Any) -> bool:
    """Whether a FAISS index is scanned, rather than an inverted file."""
    return not hasattr(index, "nlist")


def _selector(rows: NDArray[np.bool_]) -> Any:
    return faiss_module().IDSelectorBitmap(np.packbits(rows, bitorder="little"))


def _hits(
    scores: NDArray[np.float32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores without the places that FAISS left empty."""
    found = rows >= 0
    return rows[found], scores[found]


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads that scan one slice each; FAISS starts no threads of its own in them."""
    faiss = faiss_module()
    return ThreadPoolExecutor(
        os.cpu_count(), "recall", initializer=faiss.omp_set_num_threads, initargs=(1,)
    )


def _slices(rows: int) -> int:
    return max(1, min(os.cpu_count() or 1, rows // _ROWS_PER_SLICE))
