"""Average precision that needs the right place, and the boxes that benchmarks give for it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.frame import Frame
from features.regions import Box
from indexer.reader import IndexReader
from search.answer import Match
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.benchmarks.benchmark import BenchmarkQuery
from search.evaluation.benchmarks.burst import prepare_permir
from search.evaluation.methods.methods import METHODS
from search.evaluation.metrics.localised import localised_precision, overlap, photos_to_localise
from search.evaluation.retrieval import run_methods
from search.query import Query
from search.ranking.localise import localise
from search.reference import make_reference
from search.scoring.scores import SCORES
from search.segmentation.match_masks import fit_boxes
from tests.helpers.benchmarks.benchmark_folders import save_streets
from tests.helpers.benchmarks.published_folders import (
    save_ilias,
    save_instre,
    save_pods,
    save_text,
)
from tests.helpers.command_line import CommandLine

SCENES = Path(__file__).parents[4] / "data" / "scenes" / "validation"


def naive_overlap(found: Box, true: list[Box]) -> float:
    """By counting pixels; boxes have whole numbers."""

    def pixels(box: Box) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = map(int, box)
        return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}

    return max(len(pixels(found) & pixels(one)) / len(pixels(found) | pixels(one)) for one in true)


def naive_precision(
    asked: BenchmarkQuery, scores: np.ndarray, overlaps: dict[int, float]
) -> float | None:
    if not asked.boxes:
        return 0.0 if asked.missing and not len(asked.relevant) else None
    relevant = set(asked.relevant.tolist())
    left_out = set(asked.ignored.tolist()) | (relevant - set(asked.boxes))
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], n in relevant, n))
    total, fitting = 0.0, 0
    for rank, place in enumerate([n for n in order if n not in left_out][:100], start=1):
        if place in relevant and overlaps[place] >= 0.5:
            fitting += 1
            total += fitting / rank
    return total / min(100, len(asked.boxes) + asked.missing)


def random_box(rng: np.random.Generator) -> Box:
    x, y, width, height = (*rng.integers(0, 12, 2), *rng.integers(1, 12, 2))
    return (float(x), float(y), float(x + width), float(y + height))


def test_overlap_is_that_of_counted_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        found, true = random_box(rng), [random_box(rng) for _ in range(rng.integers(1, 4))]
        assert overlap(found, true) == pytest.approx(naive_overlap(found, true), abs=1e-12)
    assert overlap((0, 0, 4, 4), [(4, 0, 8, 4)]) == 0.0
    assert overlap((0, 0, 4, 4), [(0, 0, 4, 2)]) == 0.5


def test_precision_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    for _ in range(800):
        n_gallery = int(rng.integers(2, 250))
        scores = rng.integers(0, rng.choice([5, 1000]), n_gallery).astype(np.float32)
        drawn = rng.permutation(n_gallery)[: rng.integers(1, n_gallery)]
        relevant, ignored = np.split(drawn, [rng.integers(0, len(drawn))])
        known = relevant[rng.random(len(relevant)) < rng.choice([0.5, 1.0])]
        asked = BenchmarkQuery(
            Query(Path("q.jpg"), box=(0, 0, 9, 9)),
            relevant=np.sort(relevant),
            ignored=np.sort(ignored),
            confusable=False,
            missing=int(rng.integers(0, 3)),
            boxes=dict.fromkeys(known.tolist(), ((0, 0, 1, 1),)),
        )
        fits = rng.choice([0.0, 0.3, 0.5, 0.9], n_gallery)
        looked_at = photos_to_localise(asked, scores).tolist()
        overlaps = {place: float(fits[place]) for place in looked_at}
        assert set(looked_at) <= set(known.tolist())
        found = localised_precision(asked, scores, overlaps)
        assert found == pytest.approx(
            naive_precision(asked, scores, dict(enumerate(fits.tolist()))), abs=1e-12
        )


def test_by_hand() -> None:
    """Ranks 1 and 3 are relevant; the box in the first is wrong, so only the second counts."""
    boxes: dict[int, tuple[Box, ...]] = {0: ((0, 0, 2, 2),), 2: ((0, 0, 2, 2),)}
    asked = BenchmarkQuery(
        Query(Path("q.jpg"), box=(0, 0, 9, 9)),
        *(np.array([0, 2]), np.array([], dtype=np.int64)),
        confusable=False,
        boxes=boxes,
    )
    scores = np.array([3, 2, 1], dtype=np.float32)
    assert localised_precision(asked, scores, {0: 1.0, 2: 1.0}) == pytest.approx((1 + 2 / 3) / 2)
    assert localised_precision(asked, scores, {0: 0.4, 2: 1.0}) == pytest.approx((1 / 3) / 2)
    assert localised_precision(asked, scores, {0: 0.4, 2: 0.4}) == 0.0


def naive_box(mask: np.ndarray) -> Box:
    rows, columns = np.nonzero(mask)
    return (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def test_scenes_have_the_boxes_of_their_masks() -> None:
    labels = json.loads((SCENES / "labels.json").read_text())
    benchmark = read_benchmark("scenes", SCENES)
    for asked, entry in zip(benchmark.queries, labels["queries"], strict=True):
        assert sorted(asked.boxes) == asked.relevant.tolist()
        place = int(asked.relevant[0])
        scene = labels["gallery"][place]
        ids = np.asarray(Image.open(SCENES / scene["mask"]))
        shown = [item["instance"] for item in scene["objects"]]
        wanted = [
            naive_box(ids == number)
            for number, instance in enumerate(shown, start=1)
            if instance == entry["instance"]
        ]
        assert list(asked.boxes[place]) == wanted


def test_permir_has_the_boxes_of_its_masks(tmp_path: Path) -> None:
    out = tmp_path / "permir"
    prepare_permir(save_streets(tmp_path / "BURST"), out)
    benchmark = read_benchmark("permir", out)
    for asked in benchmark.queries:
        assert sorted(asked.boxes) == asked.relevant.tolist()
        for place, boxes in asked.boxes.items():
            relative = benchmark.gallery[place].relative_to(out / "photos")
            mask = np.asarray(Image.open((out / "masks" / relative).with_suffix(".png"))) > 0
            assert boxes == (naive_box(mask),)


def test_ilias_has_the_boxes_beside_its_positives(tmp_path: Path) -> None:
    root = save_ilias(tmp_path)
    save_text(root / "ilias_core/toy/pos/P000_bbox.txt", "1 2 3 4", "10,20,5,6", "7 7 0 5")
    cup, toy = read_benchmark("ilias", root).queries
    assert (cup.boxes, toy.boxes) == ({}, {1: ((1, 2, 4, 6), (10, 20, 15, 26))})
    save_text(root / "ilias_core/toy/pos/P000_bbox.txt", "1 2 3")
    with pytest.raises(WaldoError, match="is no box"):
        read_benchmark("ilias", root)


def test_instre_has_the_boxes_beside_its_photos(tmp_path: Path) -> None:
    root = save_instre(tmp_path, 1)
    save_text(root / "INSTRE-S1/a/1.txt", "3 4 10 20")
    first, second = read_benchmark("instre", root).queries
    assert (first.boxes, second.boxes) == ({2: ((3, 4, 13, 24),)}, {})


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_pods_has_the_boxes_of_its_masks(tmp_path: Path, suffix: str) -> None:
    root = save_pods(tmp_path)
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[16:32, 8:40] = 255  # along the blocks of a JPEG
    folder = root / "train_masks" / "mug_a"
    folder.mkdir(parents=True)
    Image.fromarray(mask).save(folder / f"1.{suffix}")
    Image.fromarray(np.zeros_like(mask)).save(folder / "2.png")
    benchmark = read_benchmark("pods", root)
    place = benchmark.gallery.index(root / "train/mug_a/1.jpg")
    found = {asked.query.photo.parent.name: asked.boxes for asked in benchmark.queries}
    assert found == {"mug_a": {place: ((8, 16, 40, 32),)}, "mug_b": {}, "shoe_a": {}}
    Image.fromarray(mask[:, :-4]).save(folder / f"1.{suffix}")
    with pytest.raises(WaldoError, match="is 60 x 48 pixels, its photo"):
        read_benchmark("pods", root)


def match_of(photo: Path, number: int, frame: Frame, box: tuple[int, int, int, int]) -> Match:
    """A match of which nothing but its photo, its frame and its box matters."""
    heat = np.zeros((frame.grid, frame.grid), dtype=np.float32)
    return Match(1, photo, number, 1.0, 1.0, None, (box,), heat, frame, False, 0)


@pytest.fixture
def few_scenes(tmp_path: Path) -> Path:
    """Three queries of the validation scenes, with the photos that answer them and some others."""
    labels = json.loads((SCENES / "labels.json").read_text())
    queries = labels["queries"][::30]
    wanted = {query["instance"] for query in queries}

    def shows(scene: dict[str, Any]) -> bool:
        return any(item["instance"] in wanted for item in scene["objects"])

    gallery = [scene for scene in labels["gallery"] if shows(scene)]
    gallery += [scene for scene in labels["gallery"] if not shows(scene)][:12]
    root = tmp_path / "scenes"
    for entry in (*queries, *gallery):
        for kind in ("photo", "mask"):
            path = root / entry[kind]
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SCENES / entry[kind], path)
    (root / "labels.json").write_text(json.dumps({"queries": queries, "gallery": gallery}))
    return root


def test_evaluation_says_whether_the_object_was_found_at_its_place(
    waldo: CommandLine, small_tiny: FeatureExtractor, few_scenes: Path, tmp_path: Path
) -> None:
    """Against all photos localised at once, pixels counted, and a plain loop over the ranking."""
    work, out = tmp_path / "work", tmp_path / "run.json"
    expected: dict[str, list[float]] = {"mAP_localised": [], "mAP_localised_fitted": []}
    options = ["evaluate", "scenes", "--root", few_scenes, "--work", work, "--codec", "none"]
    options += ["--method", "words", "--method", "late", "--method", "words+late"]
    result = waldo(*options, "--json", "--out", out)
    assert result.code == 0, result.err
    report, run = json.loads(result.out), json.loads(out.read_text())
    assert report["methods"]["words"]["mAP_localised"] is None
    assert report["methods"]["words"]["mAP_localised_fitted"] is None
    benchmark = read_benchmark("scenes", few_scenes)
    [index] = work.glob("scenes-model-*/index")
    by_rank = []
    with IndexReader.open(index) as reader:
        ids = {record.path: record.id for record in reader.photos(reader.ids)}
        numbers = np.array([ids[photo.resolve()] for photo in benchmark.gallery])
        maps = reader.read_maps(numbers)
        frames = [
            Frame(record.width, record.height, reader.image_size, reader.grid)
            for record in reader.photos(numbers)
        ]
        for asked, written in zip(benchmark.queries, run["queries"], strict=True):
            shown = make_reference(asked.query, small_tiny)
            reference = shown.for_scoring(small_tiny.device)
            everything = np.zeros(len(numbers), dtype=np.int64)
            least = np.full(len(numbers), np.inf, dtype=np.float32)
            found = localise(reader, maps, [reference], everything, SCORES["late"], least)
            overlaps: dict[str, dict[int, float]] = {name: {} for name in expected}
            for place, boxes in asked.boxes.items():
                cells = found.places[place, 0].reshape(reader.grid, reader.grid)
                box = frames[place].box_of(cells)
                overlaps["mAP_localised"][place] = naive_overlap(box, list(boxes))
                # As a search fits it.
                match = match_of(benchmark.gallery[place], int(numbers[place]), frames[place], box)
                [fitted] = fit_boxes(reader, [shown], small_tiny.device, [match])
                [box] = fitted.boxes
                overlaps["mAP_localised_fitted"][place] = naive_overlap(box, list(boxes))
            scores = np.empty(len(numbers), dtype=np.float32)
            scores[written["methods"]["late"]["ranking"]] = -np.arange(len(numbers))
            for name, values in expected.items():
                values.append(naive_precision(asked, scores, overlaps[name]))
            by_rank.append(written["methods"]["late"]["average_precision"])
    for method in ("late", "words+late"):  # which re-ranks all photos here
        values = report["methods"][method]
        for name, precisions in expected.items():
            assert values[name] == pytest.approx(np.mean(precisions))
            low, high = values[f"{name}_interval"]
            assert low <= values[name] <= high
    assert 0 < np.mean(expected["mAP_localised"]) <= np.mean(by_rank)
    assert 0 < np.mean(expected["mAP_localised_fitted"]) <= np.mean(by_rank)
    assert report["timings"]["localise"] > 0
    assert report["timings"]["fit boxes"] > 0
    table = waldo(*options).out
    assert "mAP, box IoU 0.5" in table
    assert "mAP, fitted box IoU 0.5" in table
    assert "as in PASCAL VOC" in table
    # It can take most of the time, so it has a progress of its own.
    steps: list[tuple[str, int, int]] = []
    methods = [METHODS["words"], METHODS["late"]]
    run_methods(
        *(benchmark, methods, small_tiny, work, "none"),
        on_step=lambda *told: steps.append(told),
        depth=len(benchmark.gallery),
    )
    fitting = [(done, total) for doing, done, total in steps if doing == "fitting boxes by late"]
    assert fitting == [(0, 3), (1, 3), (2, 3)]
