"""Metrics against scikit-learn, the folders protocol, and the evaluate command."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from sklearn.metrics import average_precision_score

from features.errors import WaldoError
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.methods.methods import METHODS, select_methods
from search.evaluation.metrics.ranking import (
    average_precision,
    best_places,
    bootstrap_interval,
    found_within,
    ranks_of,
    recall_at,
)
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import smooth_pixels

rankings = st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=1, max_size=40).filter(
    lambda pairs: any(relevant for relevant, _ in pairs)
)


@given(rankings)
@settings(max_examples=100, deadline=None)
def test_average_precision_is_scikit_learns(pairs: list[tuple[bool, int]]) -> None:
    relevant = np.array([pair[0] for pair in pairs])
    scores = np.array([pair[1] for pair in pairs], dtype=np.float32)
    expected = average_precision_score(relevant, scores)
    assert average_precision(relevant, scores) == pytest.approx(expected, abs=1e-12)


@given(rankings, st.integers(1, 10))
@settings(max_examples=200, deadline=None)
def test_recall_counts_ties_against_the_method(pairs: list[tuple[bool, int]], k: int) -> None:
    # A pessimistic sort by hand: among equals, the wrong ones first.
    ranked = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    relevant = np.array([pair[0] for pair in pairs])
    scores = np.array([pair[1] for pair in pairs], dtype=np.float32)
    assert recall_at(relevant, scores, k) == float(any(pair[0] for pair in ranked[:k]))


@given(rankings, st.sampled_from([0.05, 0.25, 0.5, 1.0]))
@settings(max_examples=200, deadline=None)
def test_found_within_counts_against_ties(pairs: list[tuple[bool, int]], share: float) -> None:
    relevant, scores = np.array([r for r, _ in pairs]), np.array([s for _, s in pairs], float)
    found = [
        sum(not other and value >= score for other, value in pairs) < share * len(pairs)
        for own, score in pairs
        if own
    ]
    assert found_within(relevant, scores, share) == pytest.approx(sum(found) / len(found))


@given(rankings)
@settings(max_examples=200, deadline=None)
def test_ranks_are_those_of_a_pessimistic_sort(pairs: list[tuple[bool, int]]) -> None:
    ranked = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    relevant, scores = np.array([r for r, _ in pairs]), np.array([s for _, s in pairs], float)
    expected = [rank for rank, (own, _) in enumerate(ranked) if own]
    assert ranks_of(relevant, scores).tolist() == expected


@given(rankings, st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_the_best_places_are_those_of_a_whole_sort(pairs: list[tuple[bool, int]], k: int) -> None:
    scores = np.array([score for _, score in pairs], dtype=np.float32)
    last = np.flatnonzero([behind for behind, _ in pairs])
    everywhere = range(len(pairs))
    expected = sorted(everywhere, key=lambda place: (-pairs[place][1], place))[:k]
    assert best_places(scores, k).tolist() == expected
    expected = sorted(everywhere, key=lambda place: (-pairs[place][1], pairs[place][0], place))[:k]
    assert best_places(scores, k, last).tolist() == expected


def test_scores_that_are_no_numbers_are_never_among_the_best() -> None:
    scores = np.array([np.nan, 1.0, np.nan, 2.0], dtype=np.float32)
    assert best_places(scores, 2).tolist() == [3, 1]
    assert best_places(scores, 3).tolist() == [3, 1, 0]


def test_average_precision_of_nothing_relevant() -> None:
    with pytest.raises(ValueError, match="undefined"):
        average_precision(np.zeros(3, dtype=bool), np.arange(3.0))


def test_bootstrap_interval_holds_the_mean_and_shrinks() -> None:
    values = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(list(values))
    assert low < values.mean() < high
    # The normal approximation of the interval's width.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    few_low, few_high = bootstrap_interval(list(values[:25]))
    assert few_high - few_low > 2 * (high - low)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Three instances of two classes, two photos each: the same colours, darker or lighter."""
    root = tmp_path / "collection"
    for seed, name in enumerate(["mug1", "mug2", "kettle"]):
        (root / name).mkdir(parents=True)
        for i, light in enumerate((0.97, 1.03)):
            picture = Image.fromarray(smooth_pixels(120, 90, seed))
            ImageEnhance.Brightness(picture).enhance(light).save(root / name / f"{i}.png")
    (root / "alone").mkdir()
    Image.new("RGB", (50, 50)).save(root / "alone" / "0.png")
    (root / "mug1" / "notes.txt").write_text("not a photo")
    classes = {"mug1": "mug", "mug2": "mug", "kettle": "kettle", "alone": "mug"}
    (root / "classes.json").write_text(json.dumps(classes))
    return root


def test_folders_protocol(collection: Path) -> None:
    benchmark = read_folders(collection)
    names = [f"{path.parent.name}/{path.name}" for path in benchmark.gallery]
    assert names == [
        *("alone/0.png", "kettle/0.png", "kettle/1.png"),
        *("mug1/0.png", "mug1/1.png", "mug2/0.png", "mug2/1.png"),
    ]
    # A photo alone in its folder has nothing to be found, but may be found wrongly.
    assert len(benchmark.queries) == 6
    first_mug = benchmark.queries[2]
    assert first_mug.query.photo.parent.name == "mug1"
    assert first_mug.relevant.tolist() == [4]
    assert first_mug.ignored.tolist() == [3]
    assert first_mug.query.class_name == "mug"
    assert [query.confusable for query in benchmark.queries] == [False] * 2 + [True] * 4


def test_every_folders_query_is_the_central_box(collection: Path) -> None:
    # Of photos of 120 x 90 pixels, from 20 % to 80 % of both sides.
    for asked in read_folders(collection).queries:
        assert asked.query.box == pytest.approx((24.0, 18.0, 96.0, 72.0))


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(WaldoError, match="no such folder"):
        read_folders(tmp_path / "nowhere")
    with pytest.raises(WaldoError, match="no sub-folder holds two photos"):
        read_folders(tmp_path)
    (tmp_path / "classes.json").write_text("{")
    with pytest.raises(WaldoError, match="not JSON"):
        read_folders(tmp_path)


def test_evaluate_json_and_run_file(waldo: CommandLine, collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    result = waldo(
        *("evaluate", "folders", "--root", collection, "--json", "--out", out, "--codec", "high"),
        *("--method", "rgb-patches", "--method", "class-oracle", "--method", "late"),
    )
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert set(report) == {
        *("protocol", "model", "codec", "versions", "methods", "n_queries", "n_gallery"),
        "timings",
    }
    assert report["codec"] == "high"
    assert report["versions"]["numpy"] == np.__version__
    assert set(report["versions"]) == {"waldo", "torch", "faiss", "numpy"}
    assert (report["n_queries"], report["n_gallery"]) == (6, 7)
    # The same colours but for brightness: patches find them all. The oracle knows mugs from
    # kettles, not one mug from the others: 1 of the 4 other mugs' places is right.
    assert report["methods"]["rgb-patches"]["mAP"] == 1.0
    assert report["methods"]["class-oracle"]["mAP"] == pytest.approx((2 * 1 + 4 * 0.25) / 6)
    assert 0.0 < report["methods"]["late"]["mAP"] <= 1.0
    # Of kettles there is one, found at once; of the four other mugs one is right.
    oracle = report["methods"]["class-oracle"]["mAP_same_class"]
    assert oracle == pytest.approx((2 * 1 + 4 * 0.25) / 6)
    run = json.loads(out.read_text())
    assert {name: run[name] for name in report} == report
    assert len(run["queries"]) == 6
    ranking = run["queries"][0]["methods"]["rgb-patches"]["ranking"]
    assert sorted(ranking) == list(range(7))
    assert ranking[1] == run["queries"][0]["relevant"][0]  # behind the query itself


def test_evaluate_refuses_what_it_does_not_know(waldo: CommandLine, collection: Path) -> None:
    assert "no such protocol" in waldo.refusal("evaluate", "nothing", "--root", collection)
    line = waldo.refusal("evaluate", "folders", "--root", collection, "--method", "magic")
    assert "no such method" in line
    assert "class-oracle" in line


def test_methods_without_class_names(waldo: CommandLine, collection: Path) -> None:
    ablations = {"late-uncentred", "consistent-whole-photo"}
    usual = [method for name, method in METHODS.items() if name not in ablations]
    assert select_methods([], read_folders(collection)) == usual
    (collection / "classes.json").unlink()
    unnamed = read_folders(collection)
    assert not any(query.confusable for query in unnamed.queries)
    # Folders may be called anything then: their names are no class names.
    result = waldo("evaluate", "folders", "--root", collection, "--json", "--method", "pdm")
    assert result.code == 0, result.err
    left = {method.name for method in select_methods([], unnamed)}
    assert left == {method.name for method in usual if not method.needs_class}
    assert {"semantic", "late-by-class", "class-oracle"}.isdisjoint(left)
    line = waldo.refusal("evaluate", "folders", "--root", collection, "--method", "semantic")
    assert "needs the class of every photo" in line
