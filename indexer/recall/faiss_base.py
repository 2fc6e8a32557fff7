"""The base of a recall index by vectors: a FAISS index in a file, built, written and read.

Small collections are scanned exactly, so nothing is lost. Large ones are kept in an inverted file
(IVF) of half-precision vectors, in which a query compares only the lists with the most promising
centroids. `benchmarks/recall.py` prints the measurements behind these choices.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.recall.base_rule import RecallRule
from indexer.recall.faiss_search import faiss_module, is_flat
from indexer.store.files import write_atomically
from indexer.store.manifest import Derived

# K-means is fitted to so many photos per list; more hardly change the lists.
_SAMPLES_PER_LIST = 64
_KMEANS_STEPS = 10

# Ids (n,) int64 and vectors (n, dim) float32 of some photos.
Vectors = tuple[NDArray[np.int64], NDArray[np.float32]]


def build_base(vectors: Callable[[], Iterable[Vectors]], dim: int, rule: RecallRule) -> Any:
    """A FAISS index of photos, each once: flat, or an inverted file if they exceed the rule's size.

    vectors: starts over with the first photos each time it is called; one of its items is in memory
    at a time. The same photos give the same index, because the centroids are fitted to a fixed
    sample of them.
    """
    faiss = faiss_module()
    # Of several rows of a photo the first counts: the others were written when it moved.
    ids = np.concatenate([np.empty(0, np.int64), *(some for some, _ in vectors())])
    first = np.zeros(len(ids), dtype=bool)
    first[first_of_each(ids)] = True
    count = int(first.sum())
    if 4 * dim * count <= rule.flat_bytes:
        index = faiss.IndexFlatIP(dim)
    else:
        lists = _list_count(count)
        chosen = np.zeros(len(ids), dtype=bool)
        size = min(count, _SAMPLES_PER_LIST * lists)
        places = np.random.default_rng(0).choice(count, size, replace=False)
        chosen[np.flatnonzero(first)[places]] = True
        index = _trained(np.concatenate([some for _, some in _rows(vectors(), chosen)]), lists)
    base = faiss.IndexIDMap(index)
    for some, rows in _rows(vectors(), first):
        base.add_with_ids(rows, some)
    if not is_flat(index):
        # A photo is in the list of its nearest centroid; a query looks for large inner products.
        centroids = faiss.IndexFlatIP(dim)
        centroids.add(index.quantizer.reconstruct_n(0, index.nlist))
        centroids.this.disown()
        index.quantizer, index.own_fields = centroids, True
    return base


def _list_count(count: int) -> int:
    """How many lists so many photos get: the power of two nearest to 4 times the square root."""
    return 2 ** round(math.log2(4 * math.sqrt(count)))


def _trained(sample: NDArray[np.float32], lists: int) -> Any:
    """An empty inverted file whose centroids are found by k-means on a (n, dim) sample.

    K-means uses Euclidean distances. FAISS's default for inner products, k-means of directions,
    needs several times as many lists per query, because all pooled vectors share a large mean.
    """
    faiss = faiss_module()
    dim = sample.shape[1]
    ivf = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(dim),
        dim,
        lists,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
    )
    ivf.cp.spherical = False
    ivf.cp.niter = _KMEANS_STEPS
    ivf.cp.min_points_per_centroid = 1
    ivf.cp.max_points_per_centroid = _SAMPLES_PER_LIST
    ivf.train(sample)
    return ivf


def _rows(vectors: Iterable[Vectors], chosen: NDArray[np.bool_]) -> Iterator[Vectors]:
    """Some of the photos. chosen: (n,) bool over all of them."""
    start = 0
    for ids, some in vectors:
        inside = chosen[start : start + len(ids)]
        start += len(ids)
        if inside.any():
            yield ids[inside], np.ascontiguousarray(some[inside], dtype=np.float32)


def first_of_each(ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """The place of the first occurrence of each id, in order."""
    return np.sort(np.unique(ids, return_index=True)[1])


def read_base(index_dir: Path, saved: Derived | None, dim: int) -> Any:
    """The saved base, or None if its file is missing or not what the manifest says.

    Its vectors stay in the file until a search reads them, even when the file's name is deleted.
    """
    faiss = faiss_module()
    if saved is None:
        return None
    path = index_dir / saved.file.name
    try:
        # A truncated file can be mapped, but not read to its end.
        if path.stat().st_size != saved.file.bytes:
            return None
        base = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError):
        return None
    return base if (base.d, base.ntotal) == (dim, saved.file.rows) else None


def read_ahead(path: Path) -> None:
    """Ask the system to read a file into memory; FAISS maps it as if it were read page by page."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def write_base(path: Path, index: Any) -> None:
    """Write what `build_base` gave, durably. Raises RuntimeError if the disk is full."""
    faiss = faiss_module()
    write_atomically(path, lambda temporary: faiss.write_index(index, str(temporary)))
