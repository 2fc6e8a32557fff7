"""F1 of PODS' masks: against COCO's evaluation in plain loops, and on a miniature of its folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from features.errors import WaldoError
from search.evaluation.benchmarks.published.pods_masks import read_pods_masks
from search.evaluation.metrics.detections import Detections, detection_f1
from search.evaluation.metrics.masks import largest_part
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import smooth_pixels

AREAS = ((0, 10**10), (0, 32**2), (32**2, 96**2), (96**2, 10**10))


def naive_f1(photos: list[tuple[float, float, float, float]], overlap: float) -> float:
    """As COCO's evaluator goes through photos of one detection and one true mask at most.

    photos: the score, the area of the detection, that of the true mask, and their overlap.
    """
    precisions, recalls = [], []
    for least, most in AREAS:
        n_wanted, ranked = 0, []
        for score, area, true_area, fit in photos:
            shown = true_area > 0
            ignored_truth = shown and not least <= true_area <= most
            n_wanted += shown and not ignored_truth
            if area == 0:
                continue
            matched = shown and fit >= overlap
            ignored = ignored_truth if matched else not least <= area <= most
            if not ignored:
                ranked.append((score, matched))
        if n_wanted == 0:
            continue
        ranked.sort(key=lambda pair: -pair[0])  # stable
        right, points = 0, []
        for rank, (_, hit) in enumerate(ranked, start=1):
            right += hit
            points.append((right / n_wanted, right / rank))
        for least_recall in np.linspace(0, 1, 101):
            beyond = [precision for recall, precision in points if recall >= least_recall]
            precisions.append(max(beyond, default=0.0))
        recalls.append(right / n_wanted)
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 2 * precision * recall / (precision + recall + 1e-6)


def test_f1_is_that_of_plain_loops() -> None:
    rng = np.random.default_rng(0)
    for _ in range(120):
        n = int(rng.integers(1, 40))
        shown = rng.random(n) < 0.4
        shown[rng.integers(n)] = True
        areas = rng.choice([0, 900, 1024, 5000, 9216, 40000], n).astype(np.float64)
        true_areas = np.where(shown, rng.choice([500, 1024, 6000, 9216, 20000], n), 0.0)
        fits = np.where(shown & (areas > 0), rng.integers(0, 21, n) / 20, 0.0)
        scores = rng.integers(0, 8, n) / 8
        found = detection_f1(Detections(scores, areas, true_areas, fits))
        photos = list(zip(scores, areas, true_areas, fits, strict=True))
        wanted = [naive_f1(photos, overlap) for overlap in np.linspace(0.5, 0.95, 10)]
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_f1_by_hand() -> None:
    """Two photos show the object, and only one is found, behind a photo that does not show it."""
    found = Detections(
        scores=np.array([0.9, 0.8, 0.1]),
        areas=np.array([20000.0, 20000.0, 0.0]),
        true_areas=np.array([0.0, 20000.0, 20000.0]),
        overlaps=np.array([0.0, 0.72, 0.0]),
    )
    values = detection_f1(found)
    # Precision is 1/2 up to recall 1/2, which is 51 of the 101 recalls; then there is none.
    precision = 0.5 * 51 / 101
    assert values[:5] == pytest.approx(2 * precision * 0.5 / (precision + 0.5 + 1e-6))
    assert (values[5:] == 0).all()


def test_the_largest_part_of_a_mask_counts_without_its_holes() -> None:
    mask = np.zeros((9, 12), dtype=bool)
    mask[1:6, 1:6] = True
    mask[2:5, 2:5] = False  # a hole
    mask[6, 6] = True  # at a corner
    mask[0:3, 9:12] = True  # another part
    wanted = np.zeros_like(mask)
    wanted[1:6, 1:6] = True
    wanted[6, 6] = True
    np.testing.assert_array_equal(largest_part(mask), wanted)
    assert not largest_part(np.zeros((4, 4), dtype=bool)).any()


@pytest.fixture
def pods(tmp_path: Path) -> Path:
    """Two objects of the test set and one of the other, each a bright square that moves."""
    root = tmp_path / "pods"
    held_in = {"cup_a": "test", "cup_b": "test", "bag_a": "val"}
    for seed, name in enumerate(held_in):
        for folder, numbers in (("train", range(1)), ("test_dense", range(2))):
            for number in numbers:
                pixels = (smooth_pixels(96, 96, 50 + number) // 3).copy()
                mask = np.zeros((96, 96), dtype=np.uint8)
                left = 16 + 24 * number
                pixels[24:72, left : left + 40] = 90 + smooth_pixels(40, 48, seed) // 2
                mask[24:72, left : left + 40] = 255
                for kind, shown in (("", pixels), ("_masks", mask)):
                    path = root / f"{folder}{kind}" / name / f"{number}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(shown).save(path, quality=95)
    info = {"class_to_sc": {name: name[:3] for name in held_in}, "class_to_split": held_in}
    (root / "pods_info.json").write_text(json.dumps(info))
    return root


def test_objects_are_to_be_found_among_photos_of_others(pods: Path) -> None:
    objects = {item.name: item for item in read_pods_masks(pods).objects}
    assert list(objects) == ["cup_a", "cup_b"]
    first = objects["cup_a"]
    assert first.reference.photo == pods / "train/cup_a/0.jpg"
    assert [target.photo.name for target in first.targets] == ["0.jpg", "1.jpg"]
    assert first.targets[0].mask == pods / "test_dense_masks/cup_a/0.jpg"
    assert {photo.parent.name for photo in first.others} == {"cup_b", "bag_a"}
    assert len(first.others) == 4


def test_pods_masks_are_evaluated(waldo: CommandLine, pods: Path, tmp_path: Path) -> None:
    options = ["evaluate", "pods_masks", "--root", pods, "--work", tmp_path / "work"]
    options += ["--method", "segment"]
    result = waldo(*options, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert (report["n_queries"], report["n_gallery"]) == (2, 4)
    values = report["methods"]["segment"]
    of_objects = report["objects"]["segment"]
    assert values["F1"] == pytest.approx(np.mean([found["f1"] for found in of_objects]))
    assert values["F1_50"] == pytest.approx(np.mean([found["f1_50"] for found in of_objects]))
    assert 0 < values["F1"] <= values["F1_50"] <= 1
    assert values["mIoU"] > 0.5
    table = waldo(*options).out
    assert "F1, IoU 0.5 to 0.95" in table
    assert "mIoU per instance" in table


def test_refusals(pods: Path) -> None:
    mask = pods / "test_dense_masks/cup_b/1.jpg"
    with Image.open(mask) as right:
        content, size = mask.read_bytes(), right.size
    Image.new("L", (size[0] - 6, size[1])).save(mask)
    with pytest.raises(WaldoError, match=r"cup_b/1\.jpg: is \d+ x \d+ pixels, its photo 1\.jpg"):
        read_pods_masks(pods)
    mask.write_bytes(content)
    (pods / "test_dense_masks/cup_b/1.jpg").unlink()
    with pytest.raises(WaldoError, match=r"cup_b/1\.jpg: has no mask"):
        read_pods_masks(pods)
    shutil.rmtree(pods / "train_masks/cup_a")
    with pytest.raises(WaldoError, match="cup_a needs a photo in train/ with a mask"):
        read_pods_masks(pods)
    info = {"class_to_sc": {"cup_a": "cup"}, "class_to_split": {"cup_a": "val"}}
    (pods / "pods_info.json").write_text(json.dumps(info))
    with pytest.raises(WaldoError, match="no object of the test set"):
        read_pods_masks(pods)
    (pods / "pods_info.json").write_text(json.dumps({**info, "class_to_split": {}}))
    with pytest.raises(WaldoError, match="lacks cup_a"):
        read_pods_masks(pods)
