"""Recall by vectors: the inner product of a query with one vector per photo.

With pooled vectors and the query [a_r ; C] / 2 it gives the paper's ranking of the whole collection
(PDM Eq. 5 to 7). The base `recall-G.faiss` lies on disk. The delta, the photos that the base lacks,
is in the photo table anyway and is added in memory on loading. Deleted photos stay in both and are
left out by the search.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.recall.base_rule import RULE, RecallRule, refreshed
from indexer.recall.faiss_base import (
    Vectors,
    build_base,
    first_of_each,
    read_ahead,
    read_base,
    write_base,
)
from indexer.recall.faiss_search import SearchableVectors, faiss_module
from indexer.recall.searching import Found, by_id
from indexer.store.files import StoredFile, describe_file
from indexer.store.manifest import Derived, Manifest
from indexer.store.photos import read_pooled


class RecallIndex:
    """Photos by their vectors: a base as it was saved, and the photos added after it.

    dim: the length of a vector. tombstones: deleted ids, which are never found. base: what
    `faiss_base.build_base` made. Only one thread may add.
    """

    def __init__(self, dim: int, tombstones: Sequence[int] = (), base: Any = None) -> None:
        faiss = faiss_module()
        self.dim = dim
        self._tombstones = np.unique(np.asarray(tombstones, dtype=np.int64))
        self._base = None if base is None else SearchableVectors.of_base(base)
        self._delta = SearchableVectors(np.empty(0, np.int64), faiss.IndexFlatIP(dim))
        self._set_parts()

    def __len__(self) -> int:
        """How many vectors can be found."""
        return sum(int(live.sum()) for live in self._live)

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64: every id in the order of addition, deleted ones too."""
        return np.concatenate([part.ids for part in self._parts])

    @property
    def kind(self) -> str:
        """How the base is searched, see `SearchableVectors.kind`."""
        return self._parts[0].kind

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add (n,) ids with their (n, dim) float32 vectors; ids that are there already are skipped.

        The photo table may hold a photo twice: one that moved is written again, with the same id
        and vector.
        """
        first = first_of_each(ids)
        first = first[~np.isin(ids[first], self.ids)]
        if len(first):
            self._delta.index.add(np.ascontiguousarray(vectors[first], np.float32))
            added = np.concatenate([self._delta.ids, ids[first]])
            self._delta = SearchableVectors(added, self._delta.index)
            self._set_parts()

    def search(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k photos with the largest inner product, or all of them if there are fewer.

        vector: (dim,) float32. allowed: sorted ids of the only photos to be found; None allows all.
        Returns ids (m,) int64 and scores (m,) float32, m <= k, by falling score; equal scores by
        rising id. Raises ValueError for a vector of another length.
        """
        query = self._query(vector)
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
        # Copies of a photo have equal scores. Ask for more until all photos that equal the k-th are
        # there, so that ids decide which of them are cut off, and not the heap of FAISS.
        ask = min(count, k + 16)
        while True:
            ids, scores = self._search(query, ask, masks)
            order = np.lexsort((ids, -scores))
            ids, scores = ids[order][:ask], scores[order][:ask]
            if ask == count or scores[-1] < scores[k - 1]:
                return ids[:k], scores[:k]
            ask = min(count, 2 * ask)

    def score_all(self, vector: NDArray[np.float32]) -> Found:
        """The inner product of every photo, as `Recall.score_all`; raises as `search`."""
        query = self._query(vector)
        scores = [part.score_all(query) for part in self._parts]
        parts = zip(self._parts, scores, self._live, strict=True)
        found = [(part.ids[live], values[live]) for part, values, live in parts]
        return by_id(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _query(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A vector as FAISS takes it, (1, dim). Raises ValueError for one of another length."""
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        if query.shape[1] != self.dim:
            raise ValueError(f"the vector has length {query.shape[1]}, the index {self.dim}")
        return query

    def _search(
        self, query: NDArray[np.float32], k: int, masks: list[NDArray[np.bool_]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and scores, in any order, that include the k best of the rows in the masks.

        masks: (n,) bool for each part.
        """
        found = [
            (part.ids[rows], scores)
            for part, mask in zip(self._parts, masks, strict=True)
            for rows, scores in [part.search(query, k, mask)]
        ]
        ids, scores = (np.concatenate(column) for column in zip(*found, strict=True))
        return ids, scores

    def _set_parts(self) -> None:
        """List the parts to be searched, and which rows of each are not deleted."""
        self._parts = [part for part in (self._base, self._delta) if part is not None]
        self._live = [~np.isin(part.ids, self._tombstones) for part in self._parts]


def recall_name(number: int) -> str:
    """File name of the recall base below the index folder."""
    return f"recall-{number}.faiss"


def load_recall(index_dir: Path, manifest: Manifest) -> RecallIndex:
    """The recall index of a committed state: its base, mapped from the file, and the delta.

    A base that is gone or damaged is done without, because the photo table has the vectors too.
    Raises IndexDamagedError if the photo table cannot be read.
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
    """A saved base, mapped from its file; empty if that is missing or not what it should be."""
    base = read_base(index_dir, saved, dim)
    if base is not None and saved is not None:
        read_ahead(index_dir / saved.file.name)
    return RecallIndex(dim, tombstones, base)


def recall_kind(index_dir: Path, manifest: Manifest) -> str:
    """`RecallIndex.kind` of a committed state, read from the head of the base's file."""
    base = read_base(index_dir, manifest.recall, 2 * manifest.dim)
    return "flat" if base is None else SearchableVectors.of_base(base).kind


def refresh_recall(
    index_dir: Path,
    manifest: Manifest,
    number: int,
    *,
    rebuild: bool = False,
    rule: RecallRule = RULE,
) -> Derived | None:
    """What the manifest should name as the recall base; a new one is written if it is due.

    See `base_rule.refreshed`. number: the generation that writes it. Deleted photos stay in a base
    until their rows leave the photo table. Raises IndexDamagedError if the photo table cannot be
    read, OSError and RuntimeError if the disk is full.
    """

    def write() -> StoredFile:
        base = build_base(lambda: _pooled(index_dir, manifest), 2 * manifest.dim, rule)
        name = recall_name(number)
        write_base(index_dir / name, base)
        return describe_file(index_dir, name, number, base.ntotal)

    return refreshed(manifest.photos, manifest.recall, rule, write, rebuild=rebuild)


def _pooled(index_dir: Path, manifest: Manifest, after: int = 0) -> Iterator[Vectors]:
    """Ids and pooled vectors of each photo table shard after a number. Raises IndexDamagedError."""
    for file in manifest.photos:
        if file.number > after:
            yield read_pooled(index_dir / file.name, manifest.dim)
