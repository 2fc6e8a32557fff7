"""Recall by visual words: the photos whose words are nearest to an object's cells.

An inverted file: for each word the photos that have it. Like the other recall index it is a base on
disk, of which a query reads the lists of its own words only, and a delta in memory: the photos
written since, from the photo table. Every codec has a vocabulary of its own, so photos are kept
apart by theirs, and a query is put in the words of each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import REPAIR_HINT, IndexDamagedError
from indexer.recall.vectors import RULE, RecallRule, base_is_due
from indexer.store.files import describe_file, write_bytes_atomically
from indexer.store.manifest import Derived, Manifest
from indexer.store.photos import WordRows, read_words, rows_that_count


@dataclass(frozen=True)
class _Part:
    """Some photos whose words are of one codec.

    codec: its number. ids: (n,) int64. live: (n,) bool. starts: (words + 1,) int64, bounds of each
    word's list. photos: gives the photos (0..n, each once a list) between two bounds.
    """

    codec: int
    ids: NDArray[np.int64]
    live: NDArray[np.bool_]
    starts: NDArray[np.int64]
    photos: Callable[[int, int], NDArray[np.int32]]

    def scores(
        self, words: NDArray[np.uint16], cosines: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(n,): as `WordRecall.search` scores photos. words, cosines: (cells, m), nearest first."""
        scores = np.zeros(len(self.ids), dtype=np.float32)
        lists = {word: self._photos_with(word) for word in np.unique(words).tolist()}
        best = np.empty_like(scores)
        # One cell at a time: cells x photos would not fit in memory.
        for own, near in zip(words.tolist(), cosines, strict=True):
            best.fill(near[-1])
            for word, cosine in zip(reversed(own), near[::-1], strict=True):
                best[lists[word]] = cosine  # the nearest word is the last to be written
            scores += best
        scores /= max(1, len(words))
        return scores

    def _photos_with(self, word: int) -> NDArray[np.int32]:
        if word + 1 >= len(self.starts):
            return np.empty(0, np.int32)
        return self.photos(int(self.starts[word]), int(self.starts[word + 1]))


class WordRecall:
    """Photos by visual words; see `load_word_recall`."""

    def __init__(self, parts: list[_Part]) -> None:
        self._parts = parts

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64, rising: the photos that can be found."""
        found = [np.empty(0, np.int64), *(part.ids[part.live] for part in self._parts)]
        return np.sort(np.concatenate(found))

    def search(
        self,
        words_in: Callable[[int], tuple[NDArray[np.uint16], NDArray[np.float32]]],
        k: int,
        allowed: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k photos with the highest scores, all of them if there are fewer.

        A photo's score is the mean over an object's cells of the cosine of the nearest word that
        the photo has, among the few that are nearest to that cell, and of the last of these where
        it has none: late interaction with words for cells (PLAID's centroid interaction, Santhanam
        et al., CIKM 2022). 0 where the photo's codec has no words.

        words_in: the object's cells in the words of a codec, by its number, as
        `VisualWords.nearest` gives them. allowed: sorted ids, the only ones that may be answered.
        Returns ids (m,) int64 and scores (m,) float32, by falling score and, where scores are
        equal, rising id.
        """
        ids, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        near = {codec: words_in(codec) for codec in sorted({part.codec for part in self._parts})}
        for part in self._parts:
            mask = part.live
            if allowed is not None:
                mask = mask & np.isin(part.ids, allowed)
            ids.append(part.ids[mask])
            scores.append(part.scores(*near[part.codec])[mask])
        return _best(np.concatenate(ids), np.concatenate(scores), k)


def words_name(number: int) -> str:
    """File name of the base below the index folder."""
    return f"words-{number}.safetensors"


def load_word_recall(index_dir: Path, manifest: Manifest) -> WordRecall:
    """The inverted file of a committed state: its base, read from the file as lists are asked for,
    and the delta. The base may be gone: the photo table has the words too.

    Raises IndexDamagedError where the photo table cannot be read.
    """
    base = _read_base(index_dir, manifest)
    covers = manifest.words.covers if manifest.words is not None and base else 0
    tables = [read_words(index_dir / f.name) for f in manifest.photos if f.number > covers]
    delta = _invert(tables, manifest)
    newer = np.concatenate([np.empty(0, np.int64), *(ids for _, ids, _, _ in delta)])
    dead = np.array(manifest.tombstones, dtype=np.int64)
    parts = [
        _Part(codec, ids, ~np.isin(ids, dead) & ~np.isin(ids, newer), starts, photos)
        for codec, ids, starts, photos in base
    ]
    parts += [
        _Part(codec, ids, ~np.isin(ids, dead), starts, _in_memory(photos))
        for codec, ids, starts, photos in delta
    ]
    return WordRecall(parts)


def refresh_word_recall(
    index_dir: Path,
    manifest: Manifest,
    number: int,
    *,
    rebuild: bool = False,
    rule: RecallRule = RULE,
) -> Derived | None:
    """Write a new base if one is due; as `recall.refresh_recall`."""
    if not manifest.photos:
        return None
    if not rebuild and not base_is_due(manifest.photos, manifest.words, rule):
        return manifest.words
    from safetensors.numpy import save

    inverted = _invert([read_words(index_dir / f.name) for f in manifest.photos], manifest)
    tensors: dict[str, NDArray[Any]] = {}
    for codec, ids, starts, photos in inverted:
        tensors |= {f"{codec}.ids": ids, f"{codec}.starts": starts, f"{codec}.photos": photos}
    name = words_name(number)
    # safetensors' own writer leaves a file readable by its owner alone
    write_bytes_atomically(index_dir / name, save(tensors))
    rows = sum(len(ids) for _, ids, _, _ in inverted)
    return Derived(describe_file(index_dir, name, number, rows), manifest.last_photos)


# A codec's number, and its photos as `_Part` has them.
_Inverted = tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]


def _invert(tables: list[WordRows], manifest: Manifest) -> list[_Inverted]:
    """The lists of some photo table shards, oldest first, one codec after the other."""
    if not tables:
        return []
    # deleted photos stay in a base until their rows leave the photo table
    kept = rows_that_count([table.ids for table in tables], tombstones=())
    codec_of = {file.number: file.codec for file in manifest.shards}
    codecs = [np.array([codec_of.get(int(s), -1) for s in table.shards]) for table in tables]
    inverted = []
    for codec in np.unique(np.concatenate(codecs)).tolist():
        chosen = [
            table.select(keep & (own == codec))
            for table, keep, own in zip(tables, kept, codecs, strict=True)
        ]
        ids = np.concatenate([table.ids for table in chosen])
        if len(ids) and codec >= 0:
            inverted.append((codec, ids, *_lists(chosen)))
    return inverted


def _lists(tables: list[WordRows]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """`starts` and all lists, of photos numbered from 0 in order; a table at a time."""
    size = max((int(table.words.max()) + 1 for table in tables if len(table.words)), default=0)
    counts = sum(
        (np.bincount(table.words, minlength=size) for table in tables), np.zeros(size, np.int64)
    )
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    photos = np.empty(int(starts[-1]), dtype=np.int32)
    filled, first = starts[:-1].copy(), 0
    for table in tables:
        owners = first + np.repeat(np.arange(len(table.ids)), np.diff(table.starts))
        first += len(table.ids)
        order = np.argsort(table.words, kind="stable")
        words = table.words[order].astype(np.int64)
        # the place of an entry among its word's in this table
        place = np.arange(len(words)) - np.searchsorted(words, words)
        photos[filled[words] + place] = owners[order]
        filled += np.bincount(words, minlength=size)
    return starts, photos


def _read_base(
    index_dir: Path, manifest: Manifest
) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64], Callable[[int, int], Any]]]:
    """The saved parts, none where the file is missing or not what the manifest says."""
    from safetensors import SafetensorError, safe_open

    if manifest.words is None:
        return []
    path = index_dir / manifest.words.file.name
    known = {file.number for file in manifest.codecs}
    try:
        if path.stat().st_size != manifest.words.file.bytes:
            return []
        file = safe_open(path, framework="np").__enter__()  # open for as long as it is used
        names = file.keys()
        codecs = sorted(int(name.split(".")[0]) for name in names if name.endswith(".ids"))
        return [
            (
                codec,
                file.get_tensor(f"{codec}.ids"),
                file.get_tensor(f"{codec}.starts"),
                _in_file(path, file, codec),
            )
            for codec in codecs
            if codec in known
        ]
    except (OSError, SafetensorError, ValueError):
        return []


def _in_memory(photos: NDArray[np.int32]) -> Callable[[int, int], NDArray[np.int32]]:
    return lambda start, stop: photos[start:stop]


def _in_file(path: Path, file: Any, codec: int) -> Callable[[int, int], NDArray[np.int32]]:
    lists, count = file.get_slice(f"{codec}.photos"), len(file.get_tensor(f"{codec}.ids"))

    def photos(start: int, stop: int) -> NDArray[np.int32]:
        listed: NDArray[np.int32] = lists[start:stop]
        if len(listed) and not 0 <= listed.min() <= listed.max() < count:
            raise IndexDamagedError(f"{path}: damaged; {REPAIR_HINT}")
        return listed

    return photos


def _best(
    ids: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k highest scores, by falling score and rising id."""
    if k < len(ids):
        kept = scores >= np.partition(scores, -k)[-k]
        ids, scores = ids[kept], scores[kept]
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]
