"""The baselines' extractors, cell by cell, and benchmarks that ask what cannot be answered."""

from pathlib import Path

import numpy as np
import pytest

from features.errors import WaldoError
from features.photo import load_model_input
from search.evaluation import benchmarks
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.methods.baselines import EXTRACTORS
from search.query import Query
from tests.helpers.pictures import save_photo


def naive_cell(name: str, patch: np.ndarray) -> np.ndarray:
    """The appearance of a cell of 8 x 8 pixels, by plain loops."""
    pixels = [tuple(int(level) for level in pixel) for pixel in patch.reshape(-1, 3)]
    if name == "rgb-patches":
        return np.array([level / 255 for pixel in pixels for level in pixel])
    histogram = np.zeros(512)
    for red, green, blue in pixels:
        histogram[64 * (red // 32) + 8 * (green // 32) + blue // 32] += 1 / 64
    return histogram


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_maps_of_plain_colours_equal_a_loop_over_cells(name: str, tmp_path: Path) -> None:
    extractor = EXTRACTORS[name]()
    path = save_photo(tmp_path / "photo.png", 96, 64, seed=3)
    photo = load_model_input(path, extractor.image_size, extractor.grid)
    [maps] = extractor.extract([photo])
    assert maps.appearance.shape == (extractor.grid, extractor.grid, extractor.dim)
    assert not maps.semantic.any()
    assert maps.content_hash == photo.content_hash
    for row, column in ((0, 0), (3, 7), (9, 15)):
        patch = photo.pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        # float16 keeps eleven bits.
        np.testing.assert_allclose(maps.appearance[row, column], naive_cell(name, patch), atol=5e-4)


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_a_baseline_knows_no_words(name: str) -> None:
    extractor = EXTRACTORS[name]()
    assert extractor.class_vector("dog") is None
    assert extractor.rival_vectors.shape == extractor.vocabulary_vectors().shape
    assert extractor.vocabulary_vectors().shape == (0, extractor.dim)
    assert extractor.device.type == "cpu"


@pytest.mark.parametrize(
    ("relevant", "words"), [([], "finds no query"), ([[False, False]], "answers this query")]
)
def test_a_benchmark_without_answers_is_one_line(
    relevant: list[list[bool]], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    queries = [
        BenchmarkQuery(Query(gallery[0]), np.flatnonzero(row), np.empty(0, dtype=np.int64), False)
        for row in relevant
    ]
    made = Benchmark("made", gallery, None, queries, [])
    monkeypatch.setitem(benchmarks.SEARCHES, "made", lambda root: made)
    with pytest.raises(WaldoError, match=words):
        read_benchmark("made", tmp_path)
