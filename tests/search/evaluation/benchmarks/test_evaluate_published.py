"""The published benchmarks from their folders to their numbers, on miniatures."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from indexer.ingest.progress import Progress
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.revisited import read_revisited
from search.evaluation.methods.methods import METHODS, select_methods
from search.evaluation.metrics.measured import query_precision
from search.evaluation.metrics.summary import summary
from search.evaluation.retrieval import MethodResult, run_methods
from search.query import Query
from tests.helpers.benchmarks.benchmark_folders import (
    HEIGHT,
    WIDTH,
    ground_truth,
    save_revisited,
    save_streets,
)
from tests.helpers.benchmarks.query_results import measured, whole_scores
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import smooth_pixels
from tests.search.evaluation.metrics.test_graded_ranking import (
    naive_average_precision,
    naive_precision_at,
)

DIFFICULTIES = ("easy", "medium", "hard")


# PerMIR


@pytest.fixture
def burst(tmp_path: Path) -> Path:
    """Two videos of different colours, darker or lighter by the frame."""
    root = save_streets(tmp_path / "BURST")
    for seed, street in enumerate(sorted((root / "frames").glob("*/BDD/street"))):
        picture = Image.fromarray(smooth_pixels(WIDTH, HEIGHT, seed))
        for number, path in enumerate(sorted(street.iterdir())):
            ImageEnhance.Brightness(picture).enhance(1.0 - 0.002 * number).save(path)
    return root


def test_permir_is_prepared_and_evaluated(waldo: CommandLine, burst: Path, tmp_path: Path) -> None:
    out = tmp_path / "permir"
    prepared = waldo("prepare", "permir", "--burst", burst, "--out", out)
    assert prepared.code == 0, prepared.err
    assert prepared.out == f"2 videos of 1 classes in {out}: 6 frames\n"
    options = [*("--method", "rgb-patches"), *("--method", "class-oracle")]
    options += ["--method", "consistent"]
    result = waldo("evaluate", "permir", "--root", out, "--json", *options)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert (report["protocol"], report["n_queries"], report["n_gallery"]) == ("permir", 2, 4)
    # The same colours but for brightness: patches find them. All photos show cars.
    patches, oracle = (report["methods"][name] for name in ("rgb-patches", "class-oracle"))
    assert patches["mAP"] == patches["mAP_confusable"] == patches["Recall@1"] == 1.0
    assert oracle["mAP"] == 0.5
    assert [oracle[f"Recall@{k}"] for k in (1, 5, 10, 50)] == [0.0, 1.0, 1.0, 1.0]
    assert 0.0 < report["methods"]["consistent"]["mAP"] <= 1.0
    assert "R@50" in waldo("evaluate", "permir", "--root", out, *options[:2]).out


def test_prepare_as_json_and_its_seed(waldo: CommandLine, burst: Path, tmp_path: Path) -> None:
    out = tmp_path / "permir"
    prepared = waldo("prepare", "permir", "--burst", burst, "--out", out, "--seed", 7, "--json")
    assert json.loads(prepared.out) == {
        "videos": 2,
        "classes": ["car"],
        "frames": 6,
        "seed": 7,
        "out": str(out),
    }
    assert json.loads((out / "permir.json").read_text())["seed"] == 7


def test_prepare_refuses(waldo: CommandLine, burst: Path, tmp_path: Path) -> None:
    out = tmp_path / "permir"
    assert "only permir" in waldo.refusal("prepare", "perseg", "--burst", burst, "--out", out)
    line = waldo.refusal("prepare", "permir", "--burst", tmp_path / "nowhere", "--out", out)
    assert "holds no annotations/SPLIT/all_classes.json" in line
    assert "waldo prepare permir" in waldo.refusal("evaluate", "permir", "--root", out)
    assert waldo("prepare", "permir", "--burst", burst, "--out", out).code == 0
    line = waldo.refusal("prepare", "permir", "--burst", burst, "--out", out)
    assert "is there already" in line


# Revisited Oxford and Paris


@pytest.fixture
def oxford(tmp_path: Path) -> Path:
    """Photos of all kinds of colours; the first query's box holds what its easy photo shows."""
    root = save_revisited(tmp_path, ground_truth())
    for seed, path in enumerate(sorted((root / "jpg").iterdir())):
        Image.fromarray(smooth_pixels(40, 30, seed)).save(path, quality=95)
    first = np.asarray(Image.open(root / "jpg" / "hertford_000001.jpg")).copy()
    # bbx [2.5, 3, 30.0, 25.5], in whole pixels
    first[3:26, 2:30] = np.asarray(
        Image.open(root / "jpg" / "all_souls_000003.jpg").resize((28, 23))
    )
    Image.fromarray(first).save(root / "jpg" / "hertford_000001.jpg", quality=95)
    return root


def test_revisited_metrics_are_plain_loops_over_the_ranking(
    waldo: CommandLine, oxford: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.json"
    methods = ("rgb-patches", "rgb-histogram", "consistent")
    options = [part for name in methods for part in ("--method", name)]
    result = waldo(*("evaluate", "roxford5k", "--root", oxford, "--json", "--out", out), *options)
    assert result.code == 0, result.err
    report, run = json.loads(result.out), json.loads(out.read_text())
    assert (report["protocol"], report["n_queries"], report["n_gallery"]) == ("roxford5k", 2, 5)
    # What a query's photo is called is not the name of its cut copy.
    assert [Path(asked["photo"]).name for asked in run["queries"]] == [
        f"hertford_00000{number}.jpg" for number in (1, 2)
    ]
    for name in methods:
        values = report["methods"][name]
        for difficulty in DIFFICULTIES:
            labelled = []
            for asked, truth in zip(run["queries"], ground_truth()["gnd"], strict=True):
                wanted = {"easy": ["easy"], "medium": ["easy", "hard"], "hard": ["hard"]}
                labels = ["negative"] * 5
                for key in ("easy", "hard", "junk"):
                    for place in truth[key]:
                        labels[place] = "positive" if key in wanted[difficulty] else "junk"
                ranked = [labels[place] for place in asked["methods"][name]["ranking"]]
                if "positive" in ranked:
                    labelled.append(ranked)
            found = values[difficulty]
            assert found["n_queries"] == len(labelled) == (1 if difficulty == "easy" else 2)
            expected = np.mean([naive_average_precision(ranked) for ranked in labelled])
            assert found["mAP"] == pytest.approx(expected)
            low, high = found["mAP_interval"]
            assert low <= found["mAP"] <= high
            for k in (1, 5, 10):
                expected = np.mean([naive_precision_at(ranked, k) for ranked in labelled])
                assert found[f"mP@{k}"] == pytest.approx(expected)
        assert values["mAP"] == values["medium"]["mAP"]
        assert values["mAP_interval"] == values["medium"]["mAP_interval"]
        precisions = [asked["methods"][name]["average_precision"] for asked in run["queries"]]
        assert values["mAP"] == pytest.approx(np.mean(precisions))
    assert report["methods"]["rgb-patches"]["easy"]["mAP"] == 1.0
    assert report["methods"]["consistent"]["more_than_default"] == 0.0
    table = waldo("evaluate", "roxford5k", "--root", oxford, "--method", "rgb-patches").out
    assert "medium mAP" in table
    assert "hard mP@10" in table


def test_revisited_has_no_classes(waldo: CommandLine, oxford: Path) -> None:
    benchmark = read_revisited(oxford, "roxford5k")
    names = {method.name for method in select_methods([], benchmark)}
    assert {"consistent", "pdm", "words", "rgb-patches"} <= names
    assert not {name for name in names if METHODS[name].needs_class}
    line = waldo.refusal("evaluate", "roxford5k", "--root", oxford, "--method", "semantic")
    assert "roxford5k does not give" in line


def test_cut_queries_are_asked_as_the_cut_photo(
    small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    gallery = []
    for seed in range(6):
        gallery.append(tmp_path / f"{seed}.png")
        Image.fromarray(smooth_pixels(60, 80, seed)).save(gallery[-1])
    # One photo lies on its side: boxes are of upright pixels.
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    photos = [tmp_path / "upright.jpg", tmp_path / "turned.jpg"]
    Image.fromarray(smooth_pixels(90, 60, 2)).save(photos[0])
    Image.fromarray(smooth_pixels(90, 60, 4)).save(photos[1], exif=on_its_side)
    box = (9.6, 12.4, 50.5, 55.0)
    cut = [tmp_path / "0.bmp", tmp_path / "1.bmp"]
    for photo, path in zip(photos, cut, strict=True):
        ImageOps.exif_transpose(Image.open(photo)).crop((10, 12, 50, 55)).save(path)

    def scores(queries: list[Query], cut_queries: bool) -> list[MethodResult]:
        nothing = np.empty(0, dtype=np.int64)
        asked = [BenchmarkQuery(query, np.array([0]), nothing, False) for query in queries]
        benchmark = Benchmark("test", gallery, None, asked, [], cut_queries)
        methods = [METHODS[name] for name in ("consistent", "rgb-patches", "rootsift")]
        return run_methods(benchmark, methods, small_tiny, tmp_path / "work").results

    whole = [Query(photo, box=box) for photo in photos]
    by_hand = scores([Query(path, box=(0.0, 0.0, 40.0, 43.0)) for path in cut], False)
    for found, expected, uncut in zip(
        scores(whole, True), by_hand, scores(whole, False), strict=True
    ):
        np.testing.assert_array_equal(whole_scores(found.queries), whole_scores(expected.queries))
        if found.method.name != "rootsift":  # which finds nothing in smooth colours
            assert (whole_scores(found.queries) != whole_scores(uncut.queries)).all()


def graded(hard: list[int], easy: list[int], junk: list[int]) -> BenchmarkQuery:
    return BenchmarkQuery(
        Query(Path("q.jpg"), box=(0.0, 0.0, 9.0, 9.0)),
        relevant=np.array(sorted(hard + easy), dtype=np.int64),
        ignored=np.array(junk, dtype=np.int64),
        confusable=False,
        hard=np.array(hard, dtype=np.int64),
    )


def equal_scores(count: int) -> NDArray[np.float32]:
    return np.zeros((count, 4), dtype=np.float32)


def test_equal_scores_count_against_a_graded_method() -> None:
    gallery = [Path(f"{place}.jpg") for place in range(4)]
    queries = [graded([0], [1], [2]), graded([], [1], []), graded([], [], [0, 1])]
    benchmark = Benchmark("roxford5k", gallery, None, queries, [])
    equal = equal_scores(3)
    values = summary(benchmark, measured(benchmark, equal))
    # Of the first query photo 3 comes first, then both positives, at ranks 1 and 2.
    first = ((0 / 1 + 1 / 2) + (1 / 2 + 2 / 3)) / 4
    # Of the second three come before its only positive, at rank 3.
    second = (0 / 3 + 1 / 4) / 2
    assert values["mAP"] == pytest.approx((first + second) / 2)
    assert values["medium"]["n_queries"] == values["easy"]["n_queries"] == 2
    assert values["medium"]["mP@1"] == 0.0
    assert values["medium"]["mP@10"] == pytest.approx((2 / 3 + 1 / 4) / 2)
    assert values["hard"]["n_queries"] == 1
    assert values["hard"]["mAP"] == pytest.approx(0.25)
    assert query_precision(queries[2], equal[2]) is None
    # A method that finds the positives is better by what is left, over the queries with positives.
    right = np.array([[2, 1, 3, 0], [0, 1, 0, 0], [0] * 4], dtype=np.float32)
    better = summary(benchmark, measured(benchmark, right), default=measured(benchmark, equal))
    assert better["mAP"] == 1.0
    assert better["more_than_default"] == pytest.approx(1 - (first + second) / 2)
    fewer = Benchmark("roxford5k", gallery, None, queries[1:], [])
    nothing_hard = summary(fewer, measured(fewer, equal_scores(2)))
    assert nothing_hard["hard"] == {
        **dict.fromkeys(
            key for name in ("mAP", "mP@1", "mP@5", "mP@10") for key in (name, f"{name}_interval")
        ),
        "n_queries": 0,
    }


# What is told, and when


def test_what_is_wrong_with_a_query_is_told_before_indexing(
    small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    photos = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(photos):
        Image.fromarray(smooth_pixels(60, 40, seed)).save(path)
    asked = [
        BenchmarkQuery(Query(photo, name), np.array([2]), np.empty(0, dtype=np.int64), False)
        for photo, name in zip(photos, ("dog", "qwertzuiop"), strict=False)
    ]
    benchmark = Benchmark("test", photos, [{"dog"}] * 3, asked, [])
    told: list[Progress] = []
    with pytest.raises(WaldoError, match=r"1\.png.*qwertzuiop"):
        run_methods(
            benchmark,
            [METHODS["consistent"]],
            small_tiny,
            tmp_path / "work",
            on_progress=told.append,
        )
    assert told == []


def test_progress_says_what_is_done(
    waldo: CommandLine, oxford: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.commands.terminal.progress_bar._INTERVAL", 0.0)
    options = [*("--method", "rgb-patches"), *("--method", "words"), *("--method", "rootsift")]
    result = waldo("evaluate", "roxford5k", "--root", oxford, "--json", *options)
    lines = [line.split(",")[0] for line in result.err.splitlines()]
    assert "indexing: 5/5" in lines
    for line in (
        "scoring queries by rootsift: 0/2",
        "features of the queries: 0/2",
        "scoring queries by words: 0/2",
        "scoring photos for queries 1 to 2 of 2: 0/5",
    ):
        assert line in lines
