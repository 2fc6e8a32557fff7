"""Distractors: photos behind a benchmark's gallery that answer no query."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.metrics import average_precision_score

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.distractors import add_distractors, find_distractors, with_distractors
from search.evaluation.galleries import Indexing
from search.evaluation.method_table import benchmark_name
from search.evaluation.methods.methods import METHODS
from search.evaluation.metrics.summary import summary
from search.evaluation.paper import published_json, published_rows
from search.evaluation.retrieval import run_methods
from search.evaluation.run_store import run_folder
from tests.helpers.benchmarks.query_results import whole_scores
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo, smooth_pixels


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two objects, two photos each: the same colours, darker or lighter."""
    root = tmp_path / "collection"
    for seed, name in enumerate(("mug", "kettle")):
        (root / name).mkdir(parents=True)
        for number, light in enumerate((0.9, 1.1)):
            save_lit(root / name / f"{number}.png", seed, light)
    (root / "classes.json").write_text(json.dumps({"mug": "mug", "kettle": "kettle"}))
    return root


@pytest.fixture
def distractors(collection: Path, tmp_path: Path) -> Path:
    """Three photos, of which one looks like the mug; a copy of the mug; half a photo; a text."""
    folder = tmp_path / "others"
    (folder / "deep").mkdir(parents=True)
    save_lit(folder / "deep" / "like-the-mug.png", seed=0, light=1.0)
    for number in (7, 8):
        save_photo(folder / f"{number}.png", seed=number)
    shutil.copy(collection / "mug" / "1.png", folder / "a-copy.png")
    (folder / "half.png").write_bytes((folder / "7.png").read_bytes()[:500])
    (folder / "notes.txt").write_text("not a photo")
    return folder


def save_lit(path: Path, seed: int, light: float) -> None:
    picture = Image.fromarray(smooth_pixels(96, 64, seed))
    ImageEnhance.Brightness(picture).enhance(light).save(path)


def test_distractors_stand_behind_the_gallery(
    waldo: CommandLine, collection: Path, distractors: Path, tmp_path: Path
) -> None:
    options = ["evaluate", "folders", "--root", collection, "--work", tmp_path / "work"]
    options += ["--method", "rgb-patches", "--method", "class-oracle", "--method", "words"]
    without = json.loads(waldo(*options, "--json").out)
    assert "n_distractors" not in without
    out = tmp_path / "run.json"
    options += ["--distractors", distractors]
    result = waldo(*options, "--json", "--out", out)
    assert result.code == 0, result.err
    report, run = json.loads(result.out), json.loads(out.read_text())
    assert (report["n_distractors"], report["n_gallery"], report["n_queries"]) == (3, 7, 4)
    left_out = report["distractors_left_out"]
    assert left_out["copies"] == 1
    assert [line.split(": ")[0] for line in left_out["broken"]] == [str(distractors / "half.png")]
    assert "distractors: 3 photos; left out: 1 copy of" in result.err
    assert "broken and left out: 1, " in result.err
    names = [Path(photo).name for photo in run["gallery"][4:]]
    assert names == ["7.png", "8.png", "like-the-mug.png"]
    assert run["n_distractors"] == 3
    # The photo that looks like the mug is found before the other mug, once there is one.
    patches, oracle = (report["methods"][name] for name in ("rgb-patches", "class-oracle"))
    assert without["methods"]["rgb-patches"]["mAP"] == 1.0
    assert patches["mAP"] == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
    assert oracle["mAP"] == 1.0  # a distractor shows no class
    assert patches["mAP_same_class"] == 1.0
    for asked in run["queries"]:
        ranking = asked["methods"]["words"]["ranking"]
        assert sorted(ranking) == list(range(7))
    table = waldo(*options).out
    assert "folders + 3 distractors" in table
    assert "7 photos" in table


def test_metrics_are_those_of_the_longer_ranking(
    small_tiny: FeatureExtractor, collection: Path, distractors: Path, tmp_path: Path
) -> None:
    """Against scikit-learn, on scores of a gallery that was put together by hand."""
    work = tmp_path / "work"
    benchmark = read_folders(collection)
    methods = [METHODS[name] for name in ("rgb-patches", "rgb-histogram", "rootsift")]
    photos = find_distractors(distractors, work)
    longer, _ = add_distractors(benchmark, photos, methods, Indexing(small_tiny, work, "none"))
    found = run_methods(longer, methods, small_tiny, work, "none").results
    by_hand = with_distractors(benchmark, longer.gallery[4:])
    assert by_hand.indexed == []  # an index of its own, without what is broken
    expected = run_methods(by_hand, methods, small_tiny, work, "none").results
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(whole_scores(own.queries), whole_scores(other.queries))
        assert whole_scores(own.queries).shape[1] == 7
        precisions = []
        for asked, row in zip(longer.queries, whole_scores(own.queries), strict=True):
            ranked = np.delete(np.arange(7), asked.ignored)
            relevant = np.isin(ranked, asked.relevant)
            precisions.append(average_precision_score(relevant, row[ranked]))
        assert summary(longer, [result.measured for result in own.queries])["mAP"] == pytest.approx(
            np.mean(precisions)
        )


def test_a_run_by_keypoints_alone_knows_what_is_broken(
    small_tiny: FeatureExtractor, collection: Path, distractors: Path, tmp_path: Path
) -> None:
    photos, how = find_distractors(distractors, tmp_path), Indexing(small_tiny, tmp_path, "none")
    benchmark, left_out = add_distractors(
        read_folders(collection), photos, [METHODS["rootsift"]], how
    )
    assert benchmark.n_distractors == 3
    assert len(left_out.broken) == 1


def test_runs_with_other_distractors_are_other_runs(collection: Path, distractors: Path) -> None:
    benchmark = read_folders(collection)
    photos = sorted(distractors.glob("[78].png"))
    runs = [benchmark, with_distractors(benchmark, photos), with_distractors(benchmark, photos[:1])]
    assert len({run_folder(distractors, run, FilesOnDisk(run.gallery), []) for run in runs}) == 3


def test_names_that_no_list_can_hold_are_told(
    small_tiny: FeatureExtractor, collection: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    save_photo(folder / "1.png", seed=9)
    save_photo(folder / "two\nlines.png", seed=10)
    photos, how = (
        find_distractors(folder, tmp_path),
        Indexing(small_tiny, tmp_path / "work", "none"),
    )
    benchmark, left_out = add_distractors(
        read_folders(collection), photos, [METHODS["rgb-patches"]], how
    )
    assert benchmark.gallery[4:] == [folder / "1.png"]
    [line] = left_out.broken
    assert "rename it" in line


def test_a_photo_that_the_disk_does_not_give_ends_the_run(
    small_tiny: FeatureExtractor, collection: Path, distractors: Path, tmp_path: Path
) -> None:
    photos, how = find_distractors(distractors, tmp_path), Indexing(small_tiny, tmp_path, "none")
    (distractors / "7.png").unlink()
    with pytest.raises(WaldoError, match=r"7\.png: cannot be read"):
        add_distractors(read_folders(collection), photos, [METHODS["rgb-patches"]], how)


def test_refusals(waldo: CommandLine, collection: Path, distractors: Path, tmp_path: Path) -> None:
    options = ["evaluate", "folders", "--root", collection, "--method", "rgb-patches"]
    options += ["--work", tmp_path / "work", "--distractors"]
    assert "no such folder" in waldo.refusal(*options, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no picture" in waldo.refusal(*options, tmp_path / "empty")
    (distractors / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert "gone.jpg: links to what is not there" in waldo.refusal(*options, distractors)
    copies = tmp_path / "copies"
    shutil.copytree(collection / "mug", copies)
    result = waldo(*options, copies)
    assert result.code == 2
    assert "no distractor is left" in result.err
    line = waldo.refusal("evaluate", "perseg", "--root", tmp_path, "--distractors", distractors)
    assert "searches have a gallery, not perseg" in line


def test_published_figures_do_not_stand_beside_distractors() -> None:
    report = {"protocol": "roxford5k", "n_queries": 70, "n_gallery": 4993}
    assert list(published_rows(report))
    assert "published" in published_json(report)
    report["n_distractors"] = 1_001_001
    assert not list(published_rows(report))
    assert "published" not in published_json(report)
    assert benchmark_name(report) == "roxford5k + 1,001,001 distractors"
