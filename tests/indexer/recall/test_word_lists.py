"""The lists of visual words: built by parts, and searched in two stages, against naive loops."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError
from indexer.recall import word_base, word_lists
from indexer.recall.word_base import gather_lists, read_lists, write_lists
from indexer.recall.word_lists import WordLists, search_lists
from indexer.recall.word_query import WordQuery
from indexer.store.manifest import MapShard
from indexer.store.photos import WordRows

VOCABULARY = 600
# Photos of two codecs: of map shards 1 and 2, and of shard 3.
SHARDS = tuple(MapShard("", number, 1, 0, "", codec) for number, codec in ((1, 5), (2, 5), (3, 7)))

Rows = Sequence[tuple[int, int, NDArray[np.uint16]]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of so few photos that a test has several."""
    monkeypatch.setattr(word_base, "BLOCK", 1000)


def table_of(rows: Rows) -> WordRows:
    """A shard of the photo table. rows: the id, the map shard and the words of each photo."""
    words = [own for _, _, own in rows]
    starts = np.cumsum([0, *map(len, words)])
    ids, shards = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    return WordRows(ids, shards, starts, np.concatenate([np.empty(0, np.uint16), *words]))


def lists_of(photos: Sequence[NDArray[np.uint16]]) -> list[WordLists]:
    """The blocks of photos 0, 1, 2, ... of one codec."""
    table = table_of([(i, 1, own) for i, own in enumerate(photos)])
    return list(gather_lists(lambda: [table], SHARDS))


def search(
    lists: Sequence[WordLists],
    query: tuple[NDArray[np.uint16], NDArray[np.float32]],
    k: int,
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    masks = np.split(mask, np.cumsum([len(block.ids) for block in lists])[:-1])
    return search_lists(lists, masks, WordQuery(*query), k)


class Scenes:
    """Photos that each show some of 60 objects, and queries for an object by its cells."""

    def __init__(self, count: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.places = self.random.normal(size=(VOCABULARY, 8))
        self.objects = self.random.normal(size=(60, 8))
        self.near = np.argsort(-self.objects @ self.places.T, axis=1)[:, :50]
        self.photos = [self._photo() for _ in range(count)]

    def _photo(self) -> NDArray[np.uint16]:
        shown = self.near[self.random.choice(60, 3, replace=False)]
        own = [self.random.choice(words, self.random.integers(4, 15)) for words in shown]
        other = self.random.integers(VOCABULARY, size=20)
        return np.unique(np.concatenate([*own, other])).astype(np.uint16)

    def query(self, cells: int = 40) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Words and cosines of cells, (cells, 16) each, nearest first."""
        middle = self.objects[self.random.integers(60)]
        drawn = middle + 0.5 * self.random.normal(size=(cells, 8))
        cosines = drawn @ self.places.T
        cosines /= np.linalg.norm(drawn, axis=1)[:, None] * np.linalg.norm(self.places, axis=1)
        near = np.argsort(-cosines, axis=1)[:, :16]
        best = np.take_along_axis(cosines, near, axis=1)
        return near.astype(np.uint16), best.astype(np.float32)


def naive_score(
    own: NDArray[np.uint16], near: NDArray[np.uint16], cosines: NDArray[np.float32]
) -> float:
    """The definition, in float64: the mean over the cells of the nearest word that a photo has."""
    has, total = set(own.tolist()), 0.0
    for words, values in zip(near.tolist(), cosines.tolist(), strict=True):
        shared = [value for word, value in zip(words, values, strict=True) if word in has]
        total += max(shared, default=values[-1])
    return total / len(near)


def best_of(
    photos: Sequence[NDArray[np.uint16]],
    query: tuple[NDArray[np.uint16], NDArray[np.float32]],
    k: int,
    mask: NDArray[np.bool_],
) -> list[int]:
    scores = [
        naive_score(own, *query) if ok else -1.0 for own, ok in zip(photos, mask, strict=True)
    ]
    return np.lexsort((np.arange(len(scores)), -np.round(scores, 6)))[:k].tolist()


@pytest.mark.parametrize("small", [True, False])
def test_scores_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    if not small:
        monkeypatch.setattr(word_lists, "_SMALL", 0)
    scenes = Scenes(700, seed=1)
    lists, mask = lists_of(scenes.photos), np.ones(700, dtype=bool)
    for cells in (1, 7, 60):
        query = scenes.query(cells)
        rows, scores = search(lists, query, 5, mask)
        assert rows.tolist() == list(range(700))
        expected = [naive_score(own, *query) for own in scenes.photos]
        np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("small", [True, False])
def test_cells_without_words_score_nothing(monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    if not small:
        monkeypatch.setattr(word_lists, "_SMALL", 0)
        monkeypatch.setattr(word_lists, "_SCORED", 10)
    lists = lists_of(Scenes(30, seed=1).photos)
    none = np.empty((0, 0), np.uint16), np.empty((0, 0), np.float32)
    rows, scores = search(lists, none, 1, np.arange(30) > 5)
    assert rows.tolist() == list(range(6, 30 if small else 16))
    assert (scores == 0).all()


@pytest.mark.parametrize("allowed", [1.0, 0.4])
def test_few_of_the_best_photos_are_lost_by_the_approximate_score(
    monkeypatch: pytest.MonkeyPatch, allowed: float
) -> None:
    monkeypatch.setattr(word_lists, "_SMALL", 0)
    monkeypatch.setattr(word_lists, "_SCORED", 100)
    scenes, k = Scenes(4000, seed=2), 20
    lists = lists_of(scenes.photos)
    mask = scenes.random.random(4000) < allowed
    kept = []
    for _ in range(4):
        query = scenes.query()
        rows, scores = search(lists, query, k, mask)
        assert len(rows) == 10 * k
        assert mask[rows].all()
        np.testing.assert_allclose(
            scores, [naive_score(scenes.photos[row], *query) for row in rows], atol=1e-6
        )
        again, _ = search(lists, query, k, mask)
        np.testing.assert_array_equal(rows, again)
        kept.append(len(set(best_of(scenes.photos, query, k, mask)) & set(rows.tolist())) / k)
    assert np.mean(kept) >= 0.99


def test_of_photos_that_are_alike_the_first_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_lists, "_SMALL", 0)
    monkeypatch.setattr(word_lists, "_SCORED", 10)
    photos = [np.array([3], np.uint16)] * 1500 + [np.array([1], np.uint16)]
    lists, mask = lists_of(photos), np.ones(1501, dtype=bool)
    near, cosines = np.array([[1, 2, 9]], np.uint16), np.array([[0.9, 0.8, 0.1]], np.float32)
    rows, scores = search(lists, (near, cosines), 1, mask)
    assert rows.tolist() == [*range(9), 1500]
    assert scores.tolist() == [np.float32(0.1)] * 9 + [np.float32(0.9)]
    # No photo has a word of the query, and the query has words beyond all that photos have.
    rows, scores = search(lists, (near + np.uint16(1000), cosines), 1, mask)
    assert rows.tolist() == list(range(10))
    assert scores.tolist() == [np.float32(0.1)] * 10


photo_rows = st.lists(
    st.tuples(
        st.integers(0, 40), st.sampled_from([1, 2, 3, 9]), st.lists(st.integers(0, 30), max_size=6)
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(photo_rows, st.lists(st.integers(0, 40), max_size=5))
def test_blocks_are_the_same_however_photos_are_divided_into_shards(
    drawn: list[tuple[int, int, list[int]]], cuts: list[int]
) -> None:
    rows = [(i, shard, np.array(sorted(set(w)), np.uint16)) for i, shard, w in drawn]
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    tables = [table_of(rows[a:b]) for a, b in itertools.pairwise(bounds)]
    last = {i: place for place, (i, _, _) in enumerate(rows)}
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(word_base, "BLOCK", 4)
        path, whole = Path(folder, "parts"), Path(folder, "whole")
        count = write_lists(path, gather_lists(lambda: tables, SHARDS))
        write_lists(whole, gather_lists(lambda: [table_of(rows)], SHARDS))
        found, at_once = (sorted(read_lists(p), key=lambda b: b.codec) for p in (path, whole))
        for one, other in zip(found, at_once, strict=True):
            for name, values in vars(one).items():
                np.testing.assert_array_equal(values, vars(other)[name])
    kept = 0
    for codec, shards in ((5, (1, 2)), (7, (3,))):
        own = [
            (i, words.tolist())
            for place, (i, shard, words) in enumerate(rows)
            if last[i] == place and shard in shards
        ]
        blocks = [lists for lists in found if lists.codec == codec]
        assert len(blocks) == -(-len(own) // 4)
        for number, lists in enumerate(blocks):
            compare(lists, own[4 * number : 4 * number + 4])
        kept += len(own)
    assert count == kept


def compare(lists: WordLists, photos: list[tuple[int, list[int]]]) -> None:
    """A block against the ids and the words of its photos."""
    assert lists.ids.tolist() == [i for i, _ in photos]
    ends = lists.bounds.tolist()
    own = [lists.words[a:b].tolist() for a, b in itertools.pairwise(ends)]
    assert own == [words for _, words in photos]
    for word in range(len(lists.starts) - 1):
        entries = lists.entries[lists.starts[word] : lists.starts[word + 1]].tolist()
        assert entries == [place for place, (_, has) in enumerate(photos) if word in has]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "bounds"])
def test_a_file_that_was_not_written_like_this_is_refused(tmp_path: Path, damage: str) -> None:
    rows = [(i, 1, np.array([i, i + 1], np.uint16)) for i in range(3)]
    path = tmp_path / "lists"
    write_lists(path, gather_lists(lambda: [table_of(rows)], SHARDS))
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "text": b"no lists",
        "cut": content[: len(content) // 2],
        "bounds": content.replace(
            np.array([0, 2, 4, 6]).tobytes(), np.array([0, 9, 4, 6]).tobytes()
        ),
    }[damage]
    assert damaged != content
    path.write_bytes(damaged)
    with pytest.raises(IndexDamagedError, match="lists"):
        read_lists(path)


def test_a_full_disk_is_an_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    rows = [(i, 1, np.arange(600, dtype=np.uint16)) for i in range(50)]
    with pytest.raises(OSError, match="No space"):
        write_lists(Path("/dev/full"), gather_lists(lambda: [table_of(rows)], SHARDS))
