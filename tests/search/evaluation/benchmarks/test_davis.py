"""DAVIS-2017: a miniature of its folder, and folders that are not DAVIS."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.labelled_objects import (
    read_annotation,
)
from tests.helpers.benchmarks.benchmark_folders import (
    save_ids,
    save_photo,
)
from tests.helpers.refusal import refusal


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    root = tmp_path / "DAVIS"
    for name in ("goat", "bmx-trees", "unlisted"):
        for number in range(4):
            save_photo(root / "JPEGImages" / "480p" / name / f"{number:05}.jpg")
            ids = np.zeros((30, 40), dtype=np.uint8)
            ids[:, 30:] = 255
            ids[5:10, 2:10] = 1
            if name == "bmx-trees":
                ids[12:20, 2:10] = 3
                ids[22:25, 2:10] = 4 if number > 0 else 0
            save_ids(root / "Annotations" / "480p" / name / f"{number:05}.png", ids)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("goat\nbmx-trees\n\n")
    return root


def test_davis(davis: Path) -> None:
    goat, trees = read_davis(davis)
    assert [goat.name, trees.name] == ["goat", "bmx-trees"]
    assert goat.objects == [1]
    assert trees.objects == [1, 3]  # the fourth comes up later
    assert [path.name for path in goat.frames] == [f"{number:05}.jpg" for number in range(4)]
    assert [path.stem for path in goat.annotations] == [path.stem for path in goat.frames]
    ids = read_annotation(trees.annotations[1])
    assert ids.dtype == np.uint8
    assert ids.shape == (30, 40)
    # Palette entries 1 to 255 have one colour; void is background.
    assert [int(ids[y, x]) for y, x in ((0, 0), (5, 2), (12, 9), (24, 2), (0, 35))] == [
        0,
        1,
        3,
        4,
        0,
    ]


def test_annotations_without_palette(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 2, 255]], dtype=np.uint8)).save(path)
    assert read_annotation(path).tolist() == [[0, 2, 0]]
    Image.new("RGB", (4, 4)).save(path)
    assert "has colours (mode RGB)" in refusal(read_annotation, path)
    noise = np.random.default_rng(0).integers(0, 9, (50, 50), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:300])
    assert "not a readable PNG" in refusal(read_annotation, path)


def test_davis_that_is_none(davis: Path, tmp_path: Path) -> None:
    assert "holds no readable ImageSets/2017/val.txt" in refusal(read_davis, tmp_path)
    annotation = davis / "Annotations" / "480p" / "goat" / "00002.png"
    save_ids(annotation, np.ones((30, 39), dtype=np.uint8))
    assert "is 39 x 30 pixels, its photo 00002.jpg 40 x 30" in refusal(read_davis, davis)
    annotation.unlink()
    line = refusal(read_davis, davis)
    assert "goat: 1 of its frames lack" in line
    assert "00002" in line
    (davis / "JPEGImages" / "480p" / "goat" / "00002.jpg").unlink()
    first = davis / "Annotations" / "480p" / "goat" / "00000.png"
    save_ids(first, np.full((30, 40), 255, dtype=np.uint8))
    assert "shows no object" in refusal(read_davis, davis)
    (davis / "JPEGImages" / "480p" / "goat" / "00003.jpg").unlink()
    assert "holds 2 frames" in refusal(read_davis, davis)
    (davis / "ImageSets" / "2017" / "val.txt").write_text("\n")
    assert "names no sequence" in refusal(read_davis, davis)
