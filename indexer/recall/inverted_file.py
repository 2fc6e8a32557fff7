"""Recall by visual words: the photos whose words are nearest to the cells of an object.

It is an inverted file: for each word, the list of photos that have it. Like the other recall
indexes it has a base on disk, of which a query reads only what it needs, and a delta in memory: the
photos written since, from the photo table. Every codec has its own vocabulary, so the photos of
each codec are kept apart, and a query is expressed in the words of each codec.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError
from indexer.recall.base_rule import RULE, RecallRule, refreshed
from indexer.recall.faiss_base import read_ahead
from indexer.recall.searching import Found, WordsIn, best_of, by_id
from indexer.recall.word_base import gather_lists, read_lists, write_lists
from indexer.recall.word_lists import WordLists, search_lists
from indexer.recall.word_query import WordQuery
from indexer.store.files import StoredFile, describe_file, write_atomically
from indexer.store.manifest import Derived, Manifest
from indexer.store.photos import WordRows, read_words


class WordRecall:
    """Photos by visual words; see `load_word_recall`.

    blocks: each with the photos of it that can be found, (n,) bool.
    """

    def __init__(self, blocks: list[tuple[WordLists, NDArray[np.bool_]]]) -> None:
        self._blocks = blocks

    def __len__(self) -> int:
        """How many photos can be found."""
        return sum(int(live.sum()) for _, live in self._blocks)

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64, rising: the photos that can be found."""
        found = [np.empty(0, np.int64), *(lists.ids[live] for lists, live in self._blocks)]
        return np.sort(np.concatenate(found))

    def search(
        self,
        words_in: WordsIn,
        k: int,
        allowed: NDArray[np.int64] | None = None,
    ) -> Found:
        """The k photos with the highest scores, or all of them if there are fewer.

        For each cell of the object, a few nearest words and their cosines are given. The cell's
        value in a photo is the cosine of the nearest of these words that the photo has, or of the
        last of them if it has none. The score of the photo is the mean over the cells. This is late
        interaction with words in place of cells (the centroid interaction of PLAID, Santhanam et
        al., CIKM 2022). Photos whose codec has no words score 0. Scores are exact; among more than
        16,384 photos a few of the best may be missing, see `search_lists`.

        words_in: gives the object's cells in the words of a codec, by the codec's number, as
        `VisualWords.nearest` does. allowed: sorted ids of the only photos to be found. Returns ids
        (m,) int64 and scores (m,) float32, by falling score; equal scores by rising id.
        """
        ids, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for codec in self._codecs():
            blocks = [(lists, live) for lists, live in self._blocks if lists.codec == codec]
            masks = [
                live if allowed is None else live & np.isin(lists.ids, allowed)
                for lists, live in blocks
            ]
            query = WordQuery(*words_in(codec))
            found = search_lists([lists for lists, _ in blocks], masks, query, k)
            ids.append(found[0])
            scores.append(found[1])
        return best_of(np.concatenate(ids), np.concatenate(scores), k)

    def score_all(self, words_in: WordsIn) -> Found:
        """The exact score of every photo, as `Recall.score_all`. words_in: as in `search`."""
        ids, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        queries = {codec: WordQuery(*words_in(codec)) for codec in self._codecs()}
        for lists, live in self._blocks:
            ids.append(lists.ids[live])
            scores.append(lists.all_scores(queries[lists.codec])[live])
        return by_id(np.concatenate(ids), np.concatenate(scores))

    def _codecs(self) -> list[int]:
        return sorted({lists.codec for lists, _ in self._blocks})

    def nearness(
        self,
        asked: Sequence[WordsIn],
        ids: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """How near the words of some photos are to those of objects, (objects, n) float32: the
        score of `search`, which is 0 here for a photo that has none of an object's words, and 1 for
        one that has the nearest word of every cell.

        It depends on nothing but the object, the photo and its codec. asked: as `words_in` of
        `search`, one per object. ids: (n,) int64, rising.
        """
        found = np.zeros((len(asked), len(ids)), np.float32)
        queries: dict[int, list[WordQuery]] = {}
        for lists, live in self._blocks:
            rows = np.flatnonzero(live & np.isin(lists.ids, ids))
            if len(rows) == 0:
                continue
            if lists.codec not in queries:
                queries[lists.codec] = [WordQuery(*words_in(lists.codec)) for words_in in asked]
            places = np.searchsorted(ids, lists.ids[rows])
            for number, query in enumerate(queries[lists.codec]):
                if query.cosines.size:
                    worst, best = query.cosines[:, -1].mean(), query.cosines[:, 0].mean()
                    above = lists.scores(rows, query) - worst
                    found[number, places] = above / max(best - worst, 1e-9)
        return found


def words_name(number: int) -> str:
    """File name of the base below the index folder."""
    return f"words-{number}.arrow"


def load_word_recall(index_dir: Path, manifest: Manifest) -> WordRecall:
    """The inverted file of a committed state: its base, mapped from the file, and the delta.

    A base that is gone is done without, because the photo table has the words too. Raises
    IndexDamagedError if the photo table cannot be read.
    """
    base = _read_base(index_dir, manifest)
    covers = 0
    if manifest.words is not None and base is not None:
        covers = manifest.words.covers
        read_ahead(index_dir / manifest.words.file.name)
    tables = [read_words(index_dir / f.name) for f in manifest.photos if f.number > covers]
    delta = list(gather_lists(lambda: tables, manifest.shards))
    dead = np.array(manifest.tombstones, dtype=np.int64)
    newer = np.concatenate([dead, *(lists.ids for lists in delta)])
    return WordRecall(
        [(lists, ~np.isin(lists.ids, newer)) for lists in base or []]
        + [(lists, ~np.isin(lists.ids, dead)) for lists in delta]
    )


def refresh_word_recall(
    index_dir: Path,
    manifest: Manifest,
    number: int,
    *,
    rebuild: bool = False,
    rule: RecallRule = RULE,
) -> Derived | None:
    """What the manifest should name as the base; a new one is written if it is due.

    See `base_rule.refreshed`. A base that another version of Waldo wrote is replaced. number: the
    generation that writes it. Raises as `vectors.refresh_recall`.
    """

    def tables() -> Iterable[WordRows]:
        return (read_words(index_dir / file.name) for file in manifest.photos)

    def write() -> StoredFile:
        name, rows = words_name(number), 0

        def fill(path: Path) -> None:
            nonlocal rows
            rows = write_lists(path, gather_lists(tables, manifest.shards))

        write_atomically(index_dir / name, fill)
        return describe_file(index_dir, name, number, rows)

    rebuild = rebuild or _read_base(index_dir, manifest) is None
    return refreshed(manifest.photos, manifest.words, rule, write, rebuild=rebuild)


def _read_base(index_dir: Path, manifest: Manifest) -> list[WordLists] | None:
    """The saved lists; None where the file is missing or not what the manifest says."""
    if manifest.words is None:
        return None
    path = index_dir / manifest.words.file.name
    known = {file.number for file in manifest.codecs}
    try:
        if path.stat().st_size != manifest.words.file.bytes:
            return None
        return [lists for lists in read_lists(path) if lists.codec in known]
    except (OSError, IndexDamagedError):
        return None
