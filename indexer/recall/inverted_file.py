"""Recall by visual words: the photos whose words are nearest to the cells of an object.

It is an inverted file: for each word, the list of photos that have it. Like the other recall
indexes it has a base on disk, of which a query reads only the lists of its own words, and a delta
in memory: the photos written since, from the photo table. Every codec has its own vocabulary, so
the photos of each codec are kept apart, and a query is expressed in the words of each codec.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import REPAIR_HINT, IndexDamagedError
from indexer.recall.base_rule import RULE, RecallRule, refreshed
from indexer.store.files import StoredFile, describe_file, write_bytes_atomically
from indexer.store.manifest import Derived, Manifest
from indexer.store.photos import WordRows, read_words, rows_that_count


@dataclass(frozen=True)
class _PhotosOfCodec:
    """Some photos whose words are those of one codec.

    codec: its number. ids: (n,) int64. live: (n,) bool, False for deleted photos. starts:
    (words + 1,) int64, the bounds of the list of each word. photos: gives the entries between two
    bounds, photos numbered 0 to n - 1, each at most once per list.
    """

    codec: int
    ids: NDArray[np.int64]
    live: NDArray[np.bool_]
    starts: NDArray[np.int64]
    photos: Callable[[int, int], NDArray[np.int32]]

    def scores(
        self, words: NDArray[np.uint16], cosines: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The score of each photo, (n,), see `WordRecall.search`.

        words, cosines: (cells, m), the nearest words first.
        """
        scores = np.zeros(len(self.ids), dtype=np.float32)
        lists = {word: self._photos_with(word) for word in np.unique(words).tolist()}
        best = np.empty_like(scores)
        # One cell at a time, because cells x photos would not fit in memory.
        for own, near in zip(words.tolist(), cosines, strict=True):
            best.fill(near[-1])
            for word, cosine in zip(reversed(own), near[::-1], strict=True):
                best[lists[word]] = cosine  # the nearest word is written last
            scores += best
        scores /= max(1, len(words))
        return scores

    def _photos_with(self, word: int) -> NDArray[np.int32]:
        if word + 1 >= len(self.starts):
            return np.empty(0, np.int32)
        return self.photos(int(self.starts[word]), int(self.starts[word + 1]))


class WordRecall:
    """Photos by visual words; see `load_word_recall`."""

    def __init__(self, parts: list[_PhotosOfCodec]) -> None:
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
        """The k photos with the highest scores, or all of them if there are fewer.

        For each cell of the object, a few nearest words and their cosines are given. The cell's
        value in a photo is the cosine of the nearest of these words that the photo has, or of the
        last of them if it has none. The score of the photo is the mean over the cells. This is late
        interaction with words in place of cells (the centroid interaction of PLAID, Santhanam et
        al., CIKM 2022). Photos whose codec has no words score 0.

        words_in: gives the object's cells in the words of a codec, by the codec's number, as
        `VisualWords.nearest` does. allowed: sorted ids of the only photos to be found. Returns ids
        (m,) int64 and scores (m,) float32, by falling score; equal scores by rising id.
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
    """The inverted file of a committed state: its base and the delta.

    Lists of the base are read from its file when they are needed. A base that is gone is done
    without, because the photo table has the words too. Raises IndexDamagedError if the photo table
    cannot be read.
    """
    base = _read_base(index_dir, manifest)
    covers = manifest.words.covers if manifest.words is not None and base else 0
    tables = [read_words(index_dir / f.name) for f in manifest.photos if f.number > covers]
    delta = _invert(tables, manifest)
    newer = np.concatenate([np.empty(0, np.int64), *(ids for _, ids, _, _ in delta)])
    dead = np.array(manifest.tombstones, dtype=np.int64)
    parts = [
        _PhotosOfCodec(codec, ids, ~np.isin(ids, dead) & ~np.isin(ids, newer), starts, photos)
        for codec, ids, starts, photos in base
    ]
    parts += [
        _PhotosOfCodec(codec, ids, ~np.isin(ids, dead), starts, _in_memory(photos))
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
    """What the manifest should name as the base; a new one is written if it is due.

    See `base_rule.refreshed`. number: the generation that writes it. Raises as
    `vectors.refresh_recall`.
    """

    def write() -> StoredFile:
        from safetensors.numpy import save

        inverted = _invert([read_words(index_dir / f.name) for f in manifest.photos], manifest)
        tensors: dict[str, NDArray[Any]] = {}
        for codec, ids, starts, photos in inverted:
            tensors |= {f"{codec}.ids": ids, f"{codec}.starts": starts, f"{codec}.photos": photos}
        name = words_name(number)
        # The writer of safetensors itself makes a file that only its owner can read.
        write_bytes_atomically(index_dir / name, save(tensors))
        return describe_file(index_dir, name, number, sum(len(ids) for _, ids, _, _ in inverted))

    return refreshed(manifest.photos, manifest.words, rule, write, rebuild=rebuild)


# The number of a codec, and ids, starts and entries of its photos as in `_PhotosOfCodec`.
_Inverted = tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]


def _invert(tables: list[WordRows], manifest: Manifest) -> list[_Inverted]:
    """The lists of some photo table shards, oldest first, for each codec in turn."""
    if not tables:
        return []
    # Deleted photos stay in a base until their rows leave the photo table.
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
    """`starts` and all entries, for photos numbered from 0 in order; one table at a time."""
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
        # The place of an entry among those of its word in this table.
        place = np.arange(len(words)) - np.searchsorted(words, words)
        photos[filled[words] + place] = owners[order]
        filled += np.bincount(words, minlength=size)
    return starts, photos


def _read_base(
    index_dir: Path, manifest: Manifest
) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64], Callable[[int, int], Any]]]:
    """The saved parts; none if the file is missing or not what the manifest says."""
    from safetensors import SafetensorError, safe_open

    if manifest.words is None:
        return []
    path = index_dir / manifest.words.file.name
    known = {file.number for file in manifest.codecs}
    try:
        if path.stat().st_size != manifest.words.file.bytes:
            return []
        file = safe_open(path, framework="np").__enter__()  # stays open while it is used
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
    """The k highest scores, by falling score; equal scores by rising id."""
    if k < len(ids):
        kept = scores >= np.partition(scores, -k)[-k]
        ids, scores = ids[kept], scores[kept]
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]
