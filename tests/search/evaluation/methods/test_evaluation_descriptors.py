"""Evaluating global descriptors, alone and as the recall of a score."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.photo import load_photo
from features.vision.descriptors import DESCRIPTORS, ImageDescriptor
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.methods.methods import (
    METHODS,
    DescriptorMethod,
    RerankedMethod,
    TogetherMethod,
    candidates_first,
    descriptors_of,
    find_method,
    select_methods,
)
from search.evaluation.retrieval import run_methods
from search.query import Query
from tests.helpers.benchmarks.query_results import whole_scores
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo
from tests.helpers.stores import make_photos

N_PHOTOS, N_QUERIES = 7, 3


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    """Each of the first photos looks for the one behind it, by a box."""
    photos = make_photos(tmp_path / "photos", N_PHOTOS)
    queries = [
        BenchmarkQuery(
            Query(photos[i], box=(2.0, 2.0, 18.0, 14.0)), np.array([i + 1]), np.array([i]), True
        )
        for i in range(N_QUERIES)
    ]
    return Benchmark("folders", photos, None, queries, [])


def naive_ranking(first: NDArray, then: NDArray, candidates: int) -> list[int]:
    """Places in the gallery: the best by the one, ranked by the other, and the rest behind them."""
    order = sorted(range(len(first)), key=lambda place: (-first[place], place))
    best, rest = order[:candidates], order[candidates:]
    return [*sorted(best, key=lambda place: (-then[place], place)), *rest]


@pytest.mark.parametrize("candidates", [1, 4, 10, 30])
@pytest.mark.parametrize("seed", range(20))
def test_candidates_are_ranked_and_the_rest_stay_behind(candidates: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    # few values, so that many are equal; scores of very different sizes
    first = (random.integers(0, 6, (3, 10)) * 1e-3).astype(np.float32)
    then = (random.integers(-3, 3, (3, 10)) * 10.0 ** random.integers(-3, 4)).astype(np.float32)
    scores = np.stack(
        [candidates_first(*pair, candidates) for pair in zip(first, then, strict=True)]
    )
    assert scores.dtype == np.float32
    for row in range(3):
        expected = naive_ranking(first[row], then[row], candidates)
        assert np.argsort(-scores[row], kind="stable").tolist() == expected
        behind = expected[candidates:]
        for a, b in itertools.pairwise(behind):  # what was equal is equal
            assert (scores[row, a] == scores[row, b]) == (first[row, a] == first[row, b])
        chosen = expected[:candidates]
        np.testing.assert_array_equal(scores[row, chosen], then[row, chosen])


def test_methods_together_are_ranked_by_fishers_method() -> None:
    random = np.random.default_rng(5)
    parts = [random.normal(size=(3, 40)).astype(np.float32) * scale for scale in (1e-4, 7.0)]
    method = find_method("together:late,rgb-patches")
    assert isinstance(method, TogetherMethod)
    found = np.stack([method.scores(*rows) for rows in zip(*parts, strict=True)])
    assert found.dtype == np.float32
    for row in range(3):
        p_values = []
        for part in parts:
            values = part[row].astype(np.float64)
            median, high = np.quantile(values, [0.5, 0.9])
            p_values.append(scipy.stats.norm.sf((values - median) / ((high - median) / 1.2816)))
        expected = [
            scipy.stats.norm.isf(scipy.stats.combine_pvalues(pair, method="fisher").pvalue)
            for pair in zip(*p_values, strict=True)
        ]
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-5)


def test_names(descriptor_folder: Callable[[str], Path], benchmark: Benchmark) -> None:
    for name in DESCRIPTORS:
        assert find_method(name) == DescriptorMethod(name, "model", name)
        both = find_method(f"{name}+pdm")
        assert isinstance(both, RerankedMethod)
        assert (both.parts, both.candidates) == ((find_method(name), METHODS["pdm"]), 400)
    folder = str(descriptor_folder("dinov2"))
    chosen = select_methods(
        ["words+late", "dinov2+pdm", "dinov2", f"{folder}+late", "someone/some-model"], benchmark
    )
    assert descriptors_of(chosen) == ["dinov2", folder, "someone/some-model"]
    # a download is for who asks for it
    assert descriptors_of(select_methods([], benchmark)) == []


@pytest.mark.parametrize(
    "name", ["dinov3", "dinov2+", "+pdm", "dinov2+words", "dinov2+dinov2", "words+late+late"]
)
def test_a_method_that_is_none(name: str, benchmark: Benchmark) -> None:
    with pytest.raises(WaldoError, match=r"no such method; one of .*dinov2.*, or NAME\+SCORE"):
        select_methods([name], benchmark)


@pytest.mark.parametrize("name", ["together:late", "together:late,late", "together:late,words+pdm"])
def test_too_little_together(name: str) -> None:
    with pytest.raises(WaldoError, match="takes two or more different single methods"):
        find_method(name)


def test_a_score_that_needs_classes(benchmark: Benchmark) -> None:
    with pytest.raises(WaldoError, match=r"^method dinov2\+semantic: needs the class"):
        select_methods(["dinov2+semantic"], benchmark)


def cosines(benchmark: Benchmark, descriptor: ImageDescriptor) -> NDArray[np.float64]:
    """Of whole photos, (n_queries, n_gallery)."""

    def vectors(photos: list[Path]) -> NDArray[np.float64]:
        shown = [descriptor.prepare(load_photo(photo)) for photo in photos]
        return np.stack([descriptor.describe([one])[0] for one in shown]).astype(np.float64)

    asked = [query.query.photo for query in benchmark.queries]
    return vectors(asked) @ vectors(benchmark.gallery).T


def test_scores_are_the_cosines_of_whole_photos(
    benchmark: Benchmark,
    small_tiny: FeatureExtractor,
    descriptor_folder: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder = str(descriptor_folder("siglip"))
    descriptor = ImageDescriptor.load(folder, "cpu", batch_size=2)
    work = tmp_path / "work"
    plain = run_methods(benchmark, select_methods(["late"], benchmark), small_tiny, work)
    late = whole_scores(plain.results[0].queries)
    methods = select_methods([folder, f"{folder}+late"], benchmark)
    methods[1] = replace(methods[1], candidates=3)  # type: ignore[type-var]
    found = run_methods(benchmark, methods, small_tiny, work, descriptors=[descriptor])
    alone, both = (whole_scores(result.queries) for result in found.results)
    expected = cosines(benchmark, descriptor)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    for row in range(N_QUERIES):
        ranking = np.argsort(-both[row], kind="stable").tolist()
        assert ranking == naive_ranking(expected[row], late[row], 3)
    # the index that the first run made got the descriptor; there is no other
    assert len(list(work.glob("*/index"))) == 1


def test_the_command(
    benchmark: Benchmark,
    waldo: CommandLine,
    descriptor_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the paper's table has them; the hub's place is taken by a small model on the disk."""
    monkeypatch.setattr(
        "features.pretrained.checkpoints.hub_snapshot", lambda *_: descriptor_folder("clip")
    )
    root = tmp_path / "root"
    for subject in ("a", "b"):
        (root / subject).mkdir(parents=True)
        for i in range(2):
            save_photo(root / subject / f"{i}.png", 40, 30, seed=ord(subject) + i)
    options = ("--root", root, "--device", "cpu", "--work", tmp_path / "work", "--json")
    asked = ("--method", "openclip", "--method", "openclip+pdm", "--method", "pdm")
    result = waldo("evaluate", "folders", *options, *asked)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert list(report["methods"]) == ["openclip", "openclip+pdm", "pdm"]
    # four photos are all among the 400 best, so recall does not matter
    assert report["methods"]["openclip+pdm"]["mAP"] == report["methods"]["pdm"]["mAP"]
    line = waldo.refusal("evaluate", "folders", *options, "--method", "dino")
    assert "no such method" in line
