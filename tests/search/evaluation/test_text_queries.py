"""Texts of ILIAS, searched by the class map of the bundled model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from features.extractor import FeatureExtractor
from features.photo import load_model_input
from search.evaluation.benchmarks.published.ilias import read_ilias_texts
from tests.conftest import DEMO
from tests.helpers.benchmarks.published_folders import save_text
from tests.helpers.command_line import CommandLine

PHOTOS = sorted((DEMO / "photos").glob("*.jpg"))[:7]
TEXTS = {"cat": "a cat", "vase": "a vase on a table", "riddle": "qwertz"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three objects with two positives each, of which one has no file, and two distractors."""
    root = tmp_path / "ilias"
    places = [f"{name}/pos/P00{k}.jpg" for name in TEXTS for k in range(2)]
    for photo, place in zip(PHOTOS, places[:-1], strict=False):
        (root / "ilias_core" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, root / "ilias_core" / place)
    for photo in PHOTOS[-2:]:
        (root / "distractors").mkdir(exist_ok=True)
        shutil.copy(photo, root / "distractors")
    for name, text in TEXTS.items():
        save_text(root / "ilias_core" / name / "query" / "T000.txt", text)
    save_text(root / "image_ids" / "positive_ids.txt", *places)
    save_text(root / "image_ids" / "text_query_ids.txt", *(f"{n}/query/T000.txt" for n in TEXTS))
    return root


def naive_precisions(root: Path) -> dict[str, float]:
    """Average precision at 1,000 of each text, by maps of float64 and plain loops."""
    extractor = FeatureExtractor.load("tiny", "cpu")
    benchmark = read_ilias_texts(root)
    size, grid = extractor.image_size, extractor.grid
    means = []
    for photo in benchmark.gallery.gallery:
        [maps] = extractor.extract([load_model_input(photo, size, grid)])
        cells = maps.semantic[: maps.frame.rows, : maps.frame.cols].astype(np.float64)
        means.append(cells.reshape(-1, extractor.dim).mean(axis=0))
    found = {}
    for query in benchmark.queries:
        if query.text == TEXTS["riddle"]:
            found[query.text] = 0.0
            continue
        scores = np.array(means) @ extractor.class_vector(query.text).astype(np.float64)
        hits, total = 0, 0.0
        for rank, place in enumerate(np.argsort(-scores), start=1):
            if place in query.relevant:
                hits += 1
                total += hits / rank
        found[query.text] = total / (len(query.relevant) + query.missing)
    return found


def test_texts_find_photos_by_their_class_maps(
    waldo: CommandLine, root: Path, tmp_path: Path
) -> None:
    options = ("--root", root, "--work", tmp_path / "work", "--device", "cpu")
    run = tmp_path / "run.json"
    result = waldo("evaluate", "ilias_text", *options, "--codec", "none", "--json", "--out", run)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert (report["n_queries"], report["n_gallery"], report["n_unknown"]) == (3, 7, 1)
    wanted = naive_precisions(root)
    found = {one["text"]: one["average_precision"] for one in report["texts"]}
    assert found == pytest.approx(wanted)
    mean = sum(wanted.values()) / 3
    assert report["methods"]["class-map"]["mAP@1k"] == pytest.approx(mean)
    of_fleet = waldo("evaluate", "ilias_text", *options, "--codec", "none", "--json", "--parts", 2)
    assert json.loads(of_fleet.out)["texts"] == report["texts"]
    assert len([*(tmp_path / "work").glob("*/index/parts/*")]) == 2
    shown = waldo("report", run)
    assert "ilias_text, 2 distractors" in shown.out
    assert f"{100 * mean:.1f}" in shown.out


def test_what_cannot_be_asked_by_texts(waldo: CommandLine, root: Path, tmp_path: Path) -> None:
    options = ("--root", root, "--work", tmp_path / "work")
    line = waldo.refusal("evaluate", "ilias_text", *options, "--method", "late")
    assert "searched by class-map alone" in line
    (root / "ilias_core/cat/query/T000.txt").write_text("\n")
    assert "T000.txt: is empty" in waldo.refusal("evaluate", "ilias_text", *options)
    (root / "ilias_core/cat/query/T000.txt").unlink()
    assert "T000.txt: no such file" in waldo.refusal("evaluate", "ilias_text", *options)
