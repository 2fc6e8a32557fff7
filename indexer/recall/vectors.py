"""Coarse recall: the inner product of a query with every photo's pooled vector.

Searched with [a_r ; C] / 2 it gives the paper's ranking of the whole collection (PDM Eq. 5 to 7).
Small collections are scanned exactly, so nothing is lost; large ones are kept in an inverted file
(IVF) of half-precision vectors, of which a query looks at the cells with the most promising
centroids. `benchmarks/recall.py` prints the measurements that chose between them.

On disk lies a base, `recall-G.faiss`, which is replaced only when the photos that it lacks have
become many. Those are the delta: they are in the photo table anyway, and loading adds them in
memory. Deletion is a matter of the search.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.store.files import StoredFile, describe_file, write_atomically
from indexer.store.manifest import Derived, Manifest
from indexer.store.photos import read_pooled

# FAISS's limit on a GPU.
_MAX_GPU_K = 2048
_CHUNK = 16_384
# What is fitted to the photos by k-means; more changes no cell worth mentioning.
_SAMPLES_A_LIST = 64
_KMEANS_STEPS = 10
# A query looks into this part of the lists, or as many as hold so many photos for each answer.
_PROBED = 1 / 8
_WEIGHED = 64


@dataclass(frozen=True)
class RecallRule:
    """When recall stops being a plain scan, and when its base is written anew.

    flat_bytes: the most float32 vectors, in bytes, that are scanned: 256 MiB take some 10 ms.
    delta_rows, delta_share: rows that a base may lack, in number and as a part of its own.
    """

    flat_bytes: int = 256 << 20
    delta_rows: int = 4096
    delta_share: float = 0.25


RULE = RecallRule()

# Ids (n,) int64 and vectors (n, dim) float32 of some photos.
Vectors = tuple[NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True)
class _Part:
    """Vectors in one FAISS index.

    ids: (n,) int64, the photo in each of the index's rows. owner: what has to last as long.
    """

    ids: NDArray[np.int64]
    index: Any
    owner: Any = None

    @property
    def is_flat(self) -> bool:
        return _is_flat(self.index)

    @property
    def kind(self) -> str:
        return "flat" if self.is_flat else f"ivf{self.index.nlist},fp16"

    def search(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best of the allowed rows, all of them if there are fewer: rows and scores.

        query: (1, dim) float32. allowed: (n,) bool.
        """
        k = min(k, int(allowed.sum()))
        if k == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        search = self._scan if self.is_flat else self._probe
        return search(query, k, allowed)

    def _scan(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Every row, a slice of them in each core: FAISS itself does not share out one query."""
        faiss = _faiss()
        cuts = np.linspace(0, len(allowed), _slices(len(allowed)) + 1).astype(int).tolist()
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

        found = list(_pool().map(scan, cuts[:-1], cuts[1:]))
        return _hits(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _probe(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The lists whose centroids have the largest inner products, until there are k.

        More of them where many photos are asked for or few are allowed; where those are fewer
        than _WEIGHED k, all.
        """
        faiss = _faiss()
        lists = self.index.nlist
        share = max(_PROBED, _WEIGHED * k / int(allowed.sum()))
        probes = min(lists, math.ceil(share * lists))
        selector = None if allowed.all() else _selector(allowed)
        while True:
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
            scores, rows = self.index.search(query, k, params=parameters)
            found, values = _hits(scores[0], rows[0])
            if len(found) == k or probes == lists:
                return found, values
            probes = min(lists, 2 * probes)


class RecallIndex:
    """Pooled vectors that can be searched: a base as it was saved, and what came after it.

    dim: length of a vector, 2 d. tombstones: deleted ids, which are never answered. base: what
    `load_recall` read. Not safe for two threads to add to.
    """

    def __init__(self, dim: int, tombstones: Sequence[int] = (), base: Any = None) -> None:
        faiss = _faiss()
        self.dim = dim
        self._tombstones = np.unique(np.asarray(tombstones, dtype=np.int64))
        self._base = None if base is None else _part(base)
        self._delta = _Part(np.empty(0, np.int64), faiss.IndexFlatIP(dim))
        self._gpu: Any = None
        self._gpu_is_full = False
        self._changed()

    def __len__(self) -> int:
        """How many vectors can be found."""
        return sum(int(live.sum()) for live in self._live)

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64: every stored id in order of addition, deleted ones too."""
        return np.concatenate([part.ids for part in self._parts])

    @property
    def kind(self) -> str:
        """How the base is searched: "flat", or "ivf4096,fp16" with its number of lists."""
        return self._parts[0].kind

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add (n,) ids with their (n, dim) float32 vectors; ids that are stored already are left.

        A photo that moved is written to the photo table again, with the same id and vector.
        """
        first = _first_of_each(ids)
        first = first[~np.isin(ids[first], self.ids)]
        if len(first):
            self._delta.index.add(np.ascontiguousarray(vectors[first], np.float32))
            self._delta = _Part(np.concatenate([self._delta.ids, ids[first]]), self._delta.index)
            self._changed()

    def search(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k photos with the largest inner product, all of them if there are fewer.

        vector: (dim,) float32. allowed: sorted ids, the only ones that may be answered; None
        allows all. Returns ids (m,) int64 and scores (m,) float32, m <= k, by falling score and,
        where scores are equal, rising id. Raises ValueError for another length.
        """
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        if query.shape[1] != self.dim:
            raise ValueError(f"the vector has length {query.shape[1]}, the index {self.dim}")
        masks = self._live
        if allowed is not None:
            masks = [
                live & np.isin(part.ids, allowed)
                for part, live in zip(self._parts, masks, strict=True)
            ]
        count = sum(int(mask.sum()) for mask in masks)
        k = min(k, count)
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        # Copies of a photo have equal scores: go on until all equals of the k-th are at hand, so
        # that which of them is cut depends on the id and not on FAISS's heap.
        ask = min(count, k + 16)
        while True:
            ids, scores = self._search(query, ask, None if allowed is None else masks)
            order = np.lexsort((ids, -scores))
            ids, scores = ids[order][:ask], scores[order][:ask]
            if ask == count or scores[-1] < scores[k - 1]:
                return ids[:k], scores[:k]
            ask = min(count, 2 * ask)

    def _search(
        self, query: NDArray[np.float32], k: int, masks: list[NDArray[np.bool_]] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and scores, in any order, with the k best of the rows in the masks among them.

        masks: (n,) bool for each part; None for all that are live, of which there are k or more.
        """
        gpu = self._on_gpu() if masks is None and k <= _MAX_GPU_K else None
        if gpu is not None:
            scores, rows = gpu.search(query, k)
            live = np.concatenate(self._live)
            return self.ids[live][rows[0]], scores[0]
        found = [
            (part.ids[rows], scores)
            for part, mask in zip(self._parts, masks or self._live, strict=True)
            for rows, scores in [part.search(query, k, mask)]
        ]
        ids, scores = (np.concatenate(column) for column in zip(*found, strict=True))
        return ids, scores

    def _changed(self) -> None:
        """Note what there is and what of it is live, and that a copy on the GPU is out of date."""
        self._parts = [part for part in (self._base, self._delta) if part is not None]
        self._live = [~np.isin(part.ids, self._tombstones) for part in self._parts]
        self._gpu = None

    def _on_gpu(self) -> Any:
        """A copy of the live vectors on the GPU (its search takes no selector), or None.

        None where there is an inverted file, too: it is fast enough, and large.
        """
        faiss = _faiss()
        if not all(part.is_flat for part in self._parts) or faiss.get_num_gpus() == 0:
            return None
        if self._gpu is None and not self._gpu_is_full:
            try:
                self._resources = faiss.StandardGpuResources()
                gpu = faiss.GpuIndexFlatIP(self._resources, self.dim)
                for part, live in zip(self._parts, self._live, strict=True):
                    for start in range(0, len(live), _CHUNK):
                        some = live[start : start + _CHUNK]
                        gpu.add(part.index.reconstruct_n(start, len(some))[some])
                self._gpu = gpu
            except RuntimeError:
                # No room for it beside a model: the CPU gives the same answer.
                self._gpu_is_full = True
        return self._gpu


def recall_name(number: int) -> str:
    """File name of the recall base below the index folder."""
    return f"recall-{number}.faiss"


def load_recall(index_dir: Path, manifest: Manifest) -> RecallIndex:
    """The recall index of a committed state: its base, mapped from the file, and the delta.

    The base may be gone or damaged: the photo table has the vectors too. Raises
    IndexDamagedError where the photo table cannot be read.
    """
    saved = manifest.recall
    recall = load_base(index_dir, saved, 2 * manifest.dim, manifest.tombstones)
    covers = saved.covers if saved is not None and len(recall.ids) else 0
    parts = list(_pooled(index_dir, manifest, after=covers))
    if parts:
        ids, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
        recall.add(ids, vectors)
    return recall


def load_base(
    index_dir: Path, saved: Derived | None, dim: int, tombstones: Sequence[int]
) -> RecallIndex:
    """A saved base, mapped from its file; empty where that is missing or not what it should be."""
    base = _read_base(index_dir, saved, dim)
    if base is not None and saved is not None:
        _read_ahead(index_dir / saved.file.name)
    return RecallIndex(dim, tombstones, base)


def recall_kind(index_dir: Path, manifest: Manifest) -> str:
    """`RecallIndex.kind` of a committed state, read from the head of the base's file."""
    base = _read_base(index_dir, manifest.recall, 2 * manifest.dim)
    return "flat" if base is None else _part(base).kind


def refresh_recall(
    index_dir: Path,
    manifest: Manifest,
    number: int,
    *,
    rebuild: bool = False,
    rule: RecallRule = RULE,
) -> Derived | None:
    """Write a new recall base if one is due; returns what the manifest should name.

    It is due where there is none, where the rows that it lacks exceed the rule's, and on
    `rebuild`. number: the generation that writes it. Deleted photos stay in it until their rows
    leave the photo table. None where there are no photos. Raises IndexDamagedError where the
    photo table cannot be read, OSError and RuntimeError where the disk takes no more.
    """
    if not manifest.photos:
        return None
    if not rebuild and not base_is_due(manifest.photos, manifest.recall, rule):
        return manifest.recall
    base = build_base(lambda: _pooled(index_dir, manifest), 2 * manifest.dim, rule)
    name = recall_name(number)
    write_base(index_dir / name, base)
    return Derived(describe_file(index_dir, name, number, base.ntotal), manifest.last_photos)


def base_is_due(files: Sequence[StoredFile], saved: Derived | None, rule: RecallRule) -> bool:
    """Whether a saved base lacks too much of the files that it is made from."""
    if saved is None:
        return True
    lacking = sum(file.rows for file in files if file.number > saved.covers)
    return lacking > max(rule.delta_rows, rule.delta_share * saved.file.rows)


def build_base(vectors: Callable[[], Iterable[Vectors]], dim: int, rule: RecallRule = RULE) -> Any:
    """A FAISS index of photos, each once: flat, or an inverted file beyond the rule's size.

    vectors: gives the photos from the first on, whenever it is called; one item is in memory at a
    time. The same photos give the same index: what is fitted to them is fitted to a fixed sample.
    """
    faiss = _faiss()
    # Of several rows of a photo the first counts; the others were written when it moved.
    ids = np.concatenate([np.empty(0, np.int64), *(some for some, _ in vectors())])
    first = np.zeros(len(ids), dtype=bool)
    first[_first_of_each(ids)] = True
    count = int(first.sum())
    if 4 * dim * count <= rule.flat_bytes:
        index = faiss.IndexFlatIP(dim)
    else:
        lists = _list_count(count)
        chosen = np.zeros(len(ids), dtype=bool)
        size = min(count, _SAMPLES_A_LIST * lists)
        places = np.random.default_rng(0).choice(count, size, replace=False)
        chosen[np.flatnonzero(first)[places]] = True
        index = _trained(np.concatenate([some for _, some in _rows(vectors(), chosen)]), lists)
    base = faiss.IndexIDMap(index)
    for some, rows in _rows(vectors(), first):
        base.add_with_ids(rows, some)
    if not _is_flat(index):
        # Photos went to the nearest centroid; a query goes where the inner product is large.
        centroids = faiss.IndexFlatIP(dim)
        centroids.add(index.quantizer.reconstruct_n(0, index.nlist))
        centroids.this.disown()
        index.quantizer, index.own_fields = centroids, True
    return base


def _list_count(count: int) -> int:
    """Lists for so many photos: the power of two nearest to 4 times the square root."""
    return 2 ** round(math.log2(4 * math.sqrt(count)))


def _trained(sample: NDArray[np.float32], lists: int) -> Any:
    """An empty inverted file whose centroids are the k-means of a (n, dim) sample.

    By Euclidean distance: FAISS's habit for inner products, directions alone, needs several times
    as many lists looked into, for all pooled vectors share one large direction.
    """
    faiss = _faiss()
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
    ivf.cp.max_points_per_centroid = _SAMPLES_A_LIST
    ivf.train(sample)
    return ivf


def _rows(vectors: Iterable[Vectors], chosen: NDArray[np.bool_]) -> Iterator[Vectors]:
    """What is chosen of some photos: (n,) bool over all of them."""
    start = 0
    for ids, some in vectors:
        inside = chosen[start : start + len(ids)]
        start += len(ids)
        if inside.any():
            yield ids[inside], np.ascontiguousarray(some[inside], dtype=np.float32)


def _pooled(index_dir: Path, manifest: Manifest, after: int = 0) -> Iterator[Vectors]:
    """The photo table shards that come after a number. Raises IndexDamagedError."""
    for file in manifest.photos:
        if file.number > after:
            yield read_pooled(index_dir / file.name, manifest.dim)


def _read_base(index_dir: Path, saved: Derived | None, dim: int) -> Any:
    """The saved base, or None where it is missing or not what the manifest says.

    Its vectors stay in the file until a search looks at them; that holds when the name is deleted.
    """
    faiss = _faiss()
    if saved is None:
        return None
    path = index_dir / saved.file.name
    try:
        # A file that is cut short can be mapped, but not read to its end.
        if path.stat().st_size != saved.file.bytes:
            return None
        base = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, RuntimeError):
        return None
    return base if (base.d, base.ntotal) == (dim, saved.file.rows) else None


def _read_ahead(path: Path) -> None:
    """Ask for a file to be brought into memory; FAISS maps it as if to be read page by page."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def write_base(path: Path, index: Any) -> None:
    """Write what `build_base` gave, durably. Raises RuntimeError where the disk takes no more."""
    faiss = _faiss()
    write_atomically(path, lambda temporary: faiss.write_index(index, str(temporary)))


def _faiss() -> Any:
    """The module without its type stubs: they lack what its Python layer adds."""
    import faiss

    return faiss


def _part(base: Any) -> _Part:
    """A base, which numbers its rows by photo ids, by rows."""
    faiss = _faiss()
    index = faiss.downcast_index(base.index)
    if not _is_flat(index):
        index.parallel_mode = 1  # one query is shared out by lists
    return _Part(faiss.vector_to_array(base.id_map).astype(np.int64), index, base)


def _is_flat(index: Any) -> bool:
    return not hasattr(index, "nlist")


def _first_of_each(ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each id comes first, in order."""
    return np.sort(np.unique(ids, return_index=True)[1])


def _selector(rows: NDArray[np.bool_]) -> Any:
    faiss = _faiss()
    return faiss.IDSelectorBitmap(np.packbits(rows, bitorder="little"))


def _hits(
    scores: NDArray[np.float32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores without the places that FAISS left empty."""
    found = rows >= 0
    return rows[found], scores[found]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads that scan a slice each; FAISS is told to start none of its own in them."""
    faiss = _faiss()
    return ThreadPoolExecutor(
        os.cpu_count(), "recall", initializer=faiss.omp_set_num_threads, initargs=(1,)
    )


def _slices(rows: int) -> int:
    return max(1, min(os.cpu_count() or 1, rows // _CHUNK))
