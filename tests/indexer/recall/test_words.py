"""Visual words and their inverted file, against naive loops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from features.frame import Frame
from features.maps import FeatureMaps
from features.regions import unit_vectors
from indexer.codec.visual_words import VisualWords
from indexer.reader import IndexReader
from indexer.recall.base_rule import RecallRule
from indexer.recall.inverted_file import load_word_recall, refresh_word_recall
from indexer.store.files import StoredFile
from indexer.store.manifest import Manifest, MapShard, read_manifest
from indexer.store.mapstore import Place
from indexer.store.photos import read_words, write_photos
from indexer.upkeep.check import verify
from tests.helpers.stores import PixelExtractor, make_photos, maps_of, photo_row, run

GRID, DIM = 6, 12


def make_maps(seed: int, width: int = 60, height: int = 60) -> FeatureMaps:
    """Maps of 20 kinds of cells with a little noise, on a large common mean."""
    kinds = np.random.default_rng(0).normal(size=(20, DIM))
    rng = np.random.default_rng(seed)
    cells = kinds[rng.integers(20, size=(GRID, GRID))] + 0.05 * rng.normal(size=(GRID, GRID, DIM))
    appearance = (cells + 3.0).astype(np.float16)
    return FeatureMaps(appearance, appearance, Frame(width, height, 60, GRID), f"{seed:064x}")


@pytest.fixture(scope="module")
def vocabulary() -> VisualWords:
    sample = [make_maps(seed) for seed in range(10)]
    mean = np.mean([maps.pooled()[:DIM] for maps in sample], axis=0).astype(np.float32)
    return VisualWords.fit(sample, mean)


def test_a_cells_word_is_the_nearest_centroid(vocabulary: VisualWords) -> None:
    assert len(vocabulary) == 32  # a power of two; of 360 cells, eight or more per word
    np.testing.assert_allclose(vocabulary.basis.T @ vocabulary.basis, np.eye(DIM), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vocabulary.centroids, axis=1), 1, atol=1e-5)
    cells = make_maps(77).appearance.reshape(-1, DIM).astype(np.float32)
    for cell, word in zip(cells, vocabulary.of(cells), strict=True):
        projected = (cell.astype(np.float64) - vocabulary.mean) @ vocabulary.basis
        cosines = vocabulary.centroids @ (projected / np.linalg.norm(projected))
        assert cosines[word] >= cosines.max() - 1e-6


def test_the_nearest_words(vocabulary: VisualWords) -> None:
    cells = make_maps(78).appearance.reshape(-1, DIM).astype(np.float32)
    words, cosines = vocabulary.nearest(cells, 5)
    assert words.shape == cosines.shape == (36, 5)
    np.testing.assert_array_equal(words[:, 0], vocabulary.of(cells))
    for cell, near, found in zip(cells, words, cosines, strict=True):
        projected = (cell.astype(np.float64) - vocabulary.mean) @ vocabulary.basis
        exact = vocabulary.centroids @ (projected / np.linalg.norm(projected))
        np.testing.assert_allclose(found, np.sort(exact)[::-1][:5], atol=1e-5)
        np.testing.assert_allclose(exact[near], found, atol=1e-5)
    assert vocabulary.nearest(cells, 99)[0].shape == (36, len(vocabulary))


@pytest.mark.parametrize("size", [500, 512])
def test_the_nearest_of_many_words(size: int) -> None:
    random = np.random.default_rng(size)
    centroids = unit_vectors(random.normal(size=(size, DIM)).astype(np.float32))
    words = VisualWords(np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32), centroids)
    cells = random.normal(size=(30, DIM)).astype(np.float32)
    near, cosines = words.nearest(cells, 16)
    every = unit_vectors(cells).astype(np.float64) @ centroids.T.astype(np.float64)
    np.testing.assert_array_equal(near, np.argsort(-every, axis=1)[:, :16])
    np.testing.assert_allclose(cosines, -np.sort(-every, axis=1)[:, :16], atol=1e-6)
    assert words.nearest(cells[:0], 16)[0].shape == (0, 16)


def test_fitting_is_deterministic(vocabulary: VisualWords) -> None:
    again = VisualWords.fit([make_maps(seed) for seed in range(10)], vocabulary.mean)
    np.testing.assert_array_equal(again.centroids, vocabulary.centroids)
    np.testing.assert_array_equal(again.basis, vocabulary.basis)


def test_padding_has_no_words(vocabulary: VisualWords) -> None:
    maps = make_maps(5, width=60, height=20)  # two of six rows of cells
    padded = replace(maps, appearance=maps.appearance.copy())
    padded.appearance[2:] = 9.0
    np.testing.assert_array_equal(vocabulary.of_photo(padded), vocabulary.of_photo(maps))
    cells = maps.appearance[:2].reshape(-1, DIM).astype(np.float32)
    assert vocabulary.of_photo(maps).tolist() == sorted(set(vocabulary.of(cells).tolist()))


class Table:
    """A photo table on disk in which only words matter; each call of `add` writes a shard."""

    def __init__(self, folder: Path) -> None:
        (folder / "photos").mkdir(parents=True)
        self.folder = folder
        self.manifest = Manifest({}, 60, GRID, DIM, "none")

    def add(self, rows: dict[int, list[int]], codec: int = 1) -> None:
        number = self.manifest.generation + 1
        name = f"photos/{number:06d}.parquet"
        entries = [
            photo_row(
                photo_id,
                Place(number, place, photo_id),
                pooled=np.zeros(2 * DIM, np.float32),
                words=np.array(sorted(set(words)), np.uint16),
            )
            for place, (photo_id, words) in enumerate(rows.items())
        ]
        write_photos(self.folder / name, entries, DIM)
        stored = StoredFile(name, number, len(rows), 1, "")
        codec_file = StoredFile(f"codec-{codec}", codec, 1, 1, "")
        self.manifest = replace(
            self.manifest,
            generation=number,
            photos=(*self.manifest.photos, stored),
            shards=(*self.manifest.shards, MapShard("", number, len(rows), 1, "", codec)),
            codecs=tuple({*self.manifest.codecs, codec_file}),
        )

    def save_base(self, *, rule: RecallRule | None = None) -> None:
        words = refresh_word_recall(
            self.folder, self.manifest, self.manifest.generation, rule=rule or RecallRule(0, 0, 0.0)
        )
        self.manifest = replace(self.manifest, words=words)

    def search(
        self, query: list[list[int]], k: int, allowed: list[int] | None = None
    ) -> dict[int, float]:
        recall = load_word_recall(self.folder, self.manifest)
        only = None if allowed is None else np.array(sorted(allowed), np.int64)
        ids, scores = recall.search(lambda _: near(query), k, only)
        return dict(zip(ids.tolist(), scores.tolist(), strict=True))


# The cosines of every cell with its nearest words.
COSINES = (0.9, 0.7, 0.4)


def near(query: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest words of cells and their cosines, as `VisualWords.nearest` gives them."""
    words = np.array(query, np.uint16)
    return words, np.tile(np.array(COSINES[: words.shape[1]], np.float32), (len(words), 1))


def naive(photos: dict[int, list[int]], query: list[list[int]]) -> dict[int, float]:
    """Scores from the nearest word of each cell in each photo; best first, equal ones by id."""
    scores = {}
    for photo_id, has in photos.items():
        total = 0.0
        for words in query:
            shared = [cosine for word, cosine in zip(words, COSINES, strict=False) if word in has]
            total += shared[0] if shared else COSINES[len(words) - 1]
        scores[photo_id] = total / len(query)
    return dict(sorted(scores.items(), key=lambda item: (-round(item[1], 5), item[0])))


lists = st.lists(st.integers(0, 15), min_size=0, max_size=8)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(lists, min_size=1, max_size=12),
    st.lists(st.permutations(range(19)).map(lambda words: words[:3]), min_size=1, max_size=9),
    st.data(),
)
def test_search_finds_the_nearest_shared_words(
    tmp_path_factory: pytest.TempPathFactory,
    photos: list[list[int]],
    query: list[list[int]],
    data: st.DataObject,
) -> None:
    table = Table(tmp_path_factory.mktemp("index") / "index")
    rows = dict(enumerate(photos))
    cut = data.draw(st.integers(0, len(rows) - 1))
    if cut:
        table.add({i: rows[i] for i in range(cut)})
        if data.draw(st.booleans()):
            table.save_base()
    table.add({i: rows[i] for i in range(cut, len(rows))})
    expected = naive(rows, query)
    found = table.search(query, len(rows))
    assert found == pytest.approx(expected, abs=1e-5)
    ids, scores = load_word_recall(table.folder, table.manifest).score_all(lambda _: near(query))
    assert ids.tolist() == sorted(rows)
    assert dict(zip(ids.tolist(), scores, strict=True)) == pytest.approx(expected, abs=1e-5)
    few = table.search(query, 3)
    assert list(few.values()) == pytest.approx(list(expected.values())[:3], abs=1e-5)


def test_deleted_and_excluded_photos_are_not_found(tmp_path: Path) -> None:
    table = Table(tmp_path / "index")
    table.add({0: [1, 2], 1: [1], 2: [3], 3: [1, 2, 3]})
    table.save_base()
    table.manifest = replace(table.manifest, tombstones=(3,))
    assert list(table.search([[1, 9], [2, 9]], 9)) == [0, 1, 2]
    assert list(table.search([[1, 9], [2, 9]], 9, allowed=[1, 2, 3])) == [1, 2]
    recall = load_word_recall(table.folder, table.manifest)
    assert recall.score_all(lambda _: near([[1, 9], [2, 9]]))[0].tolist() == [0, 1, 2]
    assert list(table.search([[1, 9], [2, 9]], 1)) == [0]
    assert table.search([[1, 9], [2, 9]], 9, allowed=[]) == {}


def test_the_last_row_of_a_photo_counts(tmp_path: Path) -> None:
    table = Table(tmp_path / "index")
    table.add({0: [1], 1: [2]})
    table.save_base()
    table.add({0: [2]})  # its maps were lost and made again
    found = table.search([[2, 9]], 9)
    assert list(found) == [0, 1]
    assert found[0] == pytest.approx(found[1])


def test_photos_of_two_codecs_are_compared_in_their_own_words(tmp_path: Path) -> None:
    table = Table(tmp_path / "index")
    table.add({0: [1], 1: [5]}, codec=1)
    table.add({2: [7], 3: [1]}, codec=2)
    recall = load_word_recall(table.folder, table.manifest)
    own = {1: near([[1, 9]]), 2: near([[7, 9]])}
    ids, scores = recall.search(lambda codec: own[codec], 4)
    assert ids.tolist() == [0, 2, 1, 3]
    assert scores[0] == pytest.approx(scores[1])
    assert scores[2] == scores[3] == np.float32(COSINES[1])
    assert recall.score_all(lambda codec: own[codec])[1].tolist() == scores[[0, 2, 1, 3]].tolist()


def test_photos_of_a_codec_without_words_come_last(tmp_path: Path) -> None:
    table = Table(tmp_path / "index")
    table.add({0: [1], 1: [5]}, codec=1)
    table.add({2: [7]}, codec=2)
    recall = load_word_recall(table.folder, table.manifest)
    none = np.empty((0, 0), np.uint16), np.empty((0, 0), np.float32)
    ids, scores = recall.search(lambda codec: none if codec == 1 else near([[8, 9]]), 4)
    assert ids.tolist() == [2, 0, 1]
    assert recall.score_all(lambda codec: none if codec == 1 else near([[8, 9]]))[1].tolist() == [
        0.0,
        0.0,
        scores[0],
    ]
    assert scores[1] == scores[2] == 0


def test_a_base_is_written_only_when_due(tmp_path: Path) -> None:
    table = Table(tmp_path / "index")
    table.add({0: [1], 1: [2]})
    table.save_base()
    first = table.manifest.words
    table.add({2: [1]})
    table.save_base(rule=RecallRule(0, delta_rows=1, delta_share=0.0))
    assert table.manifest.words == first
    table.add({3: [1]})
    table.save_base(rule=RecallRule(0, delta_rows=1, delta_share=0.0))
    assert table.manifest.words != first
    assert list(table.search([[1, 9]], 9)) == [0, 2, 3, 1]


def test_an_index_keeps_the_words_of_its_photos(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 9)
    index = tmp_path / "index"
    run(tmp_path / "photos", index)
    (tmp_path / "photos" / "photo-003.png").rename(tmp_path / "photos" / "moved.png")
    run(tmp_path / "photos", index)
    assert verify(index) == []
    manifest = read_manifest(index)
    assert manifest.words is not None
    tables = [read_words(index / file.name) for file in manifest.photos]
    with IndexReader.open(index) as reader:
        recall = reader.word_recall
        assert recall is not None
        assert recall.ids.tolist() == reader.ids.tolist()
        for record in reader.photos(reader.ids):
            maps = maps_of(record.path, PixelExtractor())
            cells = maps.appearance[maps.frame.valid()].astype(np.float32)
            words, cosines = reader.words_in(cells, manifest.codecs[-1].number)
            for table in tables:
                for row in np.flatnonzero(table.ids == record.id):
                    own = table.words[table.starts[row] : table.starts[row + 1]]
                    assert own.tolist() == sorted(set(words[:, 0].tolist()))
            found, scores = recall.search(lambda _, asked=(words, cosines): asked, 9)
            # Another photo may have all of these words too.
            assert scores[found.tolist().index(record.id)] == pytest.approx(scores[0])
            assert scores[0] == pytest.approx(cosines[:, 0].mean())


def test_a_damaged_base_is_rebuilt_from_the_photo_table(tmp_path: Path) -> None:
    table = Table(tmp_path / "index")
    table.add({0: [1], 1: [2]})
    table.save_base()
    whole = table.search([[2, 9]], 9)
    assert table.manifest.words is not None
    (table.folder / table.manifest.words.file.name).write_bytes(b"cut")
    assert table.search([[2, 9]], 9) == whole


def test_a_base_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    table = Table(tmp_path / "index")
    table.add({0: [1], 1: [2]})
    table.save_base()
    whole, saved = table.search([[2, 9]], 9), table.manifest.words
    assert saved is not None
    path = table.folder / saved.file.name
    earlier = {
        "1.ids": np.array([0, 1]),
        "1.starts": np.array([0, 0, 1, 2]),
        "1.photos": np.array([0, 1], np.int32),
    }
    path.write_bytes(save(earlier))
    file = replace(saved.file, bytes=path.stat().st_size)
    table.manifest = replace(table.manifest, words=replace(saved, file=file))
    assert table.search([[2, 9]], 9) == whole
    table.save_base(rule=RecallRule())
    assert table.manifest.words == saved
    assert table.search([[2, 9]], 9) == whole


def test_a_base_holds_photos_in_the_order_of_ids(tmp_path: Path) -> None:
    table = Table(tmp_path / "index")
    table.add({5: [1], 2: [2], 9: [3]})
    table.add({3: [4], 2: [7]})
    table.save_base()
    recall = load_word_recall(table.folder, table.manifest)
    assert recall.ids.tolist() == [2, 3, 5, 9]
    assert list(table.search([[7, 8]], 1)) == [2]
    assert list(table.search([[2, 8]], 9)) == [2, 3, 5, 9]  # nobody has word 2 any more
