"""The scene benchmark: what ships with the project, how it is read, and the class map's measure."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from data.scenes.painting import paint, random_palette, random_shares
from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import ModelInput
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, LabelledScene
from search.evaluation.benchmarks.scenes import read_scenes
from search.evaluation.methods.methods import METHODS, MapMethod
from search.evaluation.methods.rootsift import rootsift_scores
from search.evaluation.metrics.class_map import _auc, measure_class_map
from search.query import Query
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import smooth_pixels
from training.compositor import Cutout

SHIPPED = Path(__file__).parents[4] / "data" / "scenes"


@pytest.mark.parametrize(
    ("root", "queries", "gallery", "classes"),
    [(SHIPPED, 192, 384, 24), (SHIPPED / "validation", 80, 160, 16)],
)
def test_shipped_scenes_are_as_described(
    root: Path, queries: int, gallery: int, classes: int
) -> None:
    benchmark = read_scenes(root)
    assert (len(benchmark.queries), len(benchmark.gallery)) == (queries, gallery)
    assert len({asked.query.class_name for asked in benchmark.queries}) == classes
    assert benchmark.levels == ["easy", "medium", "hard"]
    assert all(len(asked.relevant) == 2 for asked in benchmark.queries)
    assert all(asked.confusable for asked in benchmark.queries)
    photos = [asked.query.photo for asked in benchmark.queries] + benchmark.gallery
    assert len(set(photos)) == queries + gallery
    assert all(photo.is_file() for photo in photos)
    for scene in benchmark.scenes:
        # The target and its look-alike come first, and both can be seen.
        assert scene.classes[0] == scene.classes[1]
        with Image.open(scene.mask) as mask, Image.open(scene.photo) as photo:
            assert mask.size == photo.size
            areas = Counter(np.asarray(mask).ravel().tolist())
        assert min(areas[1], areas[2]) > 300
        assert max(areas) <= len(scene.classes)


def test_no_drawing_is_in_both_splits() -> None:
    rows = [
        {
            f"{cells[1].strip()}/{name}"
            for line in (root / "LICENSES.md").read_text().splitlines()
            if line.startswith("| ") and len(cells := line.split("|")) == 5
            for name in cells[3].strip().split(", ")
        }
        for root in (SHIPPED, SHIPPED / "validation")
    ]
    assert min(len(names) for names in rows) > 50
    assert rows[0] & rows[1] == {"package/drawings"}  # the table's own head


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_painted_instances_share_outline_and_colour_proportions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rgba = np.full((60, 50, 4), 255, np.uint8)
    rgba[:, :, 3] = np.where(smooth_pixels(50, 60, seed)[:, :, 0] > 90, 255, 0)
    drawing = Cutout("drawing", "cup", rgba)
    inside = rgba[:, :, 3] > 0
    if inside.sum() < 500:
        return
    palette = random_palette(rng)
    first, second = (paint(rng, drawing, palette, name) for name in ("first", "second"))
    assert (first.rgba[:, :, 3] == rgba[:, :, 3]).all()
    counts = [
        np.sort(np.unique(item.rgba[inside][:, :3], axis=0, return_counts=True)[1])
        for item in (first, second)
    ]
    # A flat drawing has no shading, so only the palette's own colours are left.
    assert len(counts[0]) == 3
    np.testing.assert_allclose(counts[0] / inside.sum(), np.sort(palette.shares), atol=0.01)
    np.testing.assert_allclose(counts[0], counts[1], atol=3)
    assert (first.rgba != second.rgba).any()
    assert random_shares(rng).sum() == pytest.approx(1)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two queries, four gallery photos of 64 x 48 pixels: a cup or a dog left, a dog right."""
    root = tmp_path / "scenes"
    for folder in ("photos", "masks"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros((48, 64), np.uint8)
    mask[8:40, 4:28] = 1
    mask[8:40, 36:60] = 2
    labels: dict[str, list[dict[str, Any]]] = {"queries": [], "gallery": []}
    for number, (kind, left) in enumerate(
        [
            *[("queries", "cup-1"), ("queries", "dog-1")],
            *[
                ("gallery", "cup-1"),
                ("gallery", "dog-1"),
                ("gallery", "cup-2"),
                ("gallery", "dog-1"),
            ],
        ]
    ):
        pixels = smooth_pixels(64, 48, 100 + number).copy()
        pixels[8:40, 4:28] = smooth_pixels(24, 32, sum(map(ord, left)))
        photo, cover = f"photos/{number}.png", f"masks/{number}.png"
        Image.fromarray(pixels).save(root / photo)
        shown = mask if kind == "gallery" else np.where(mask == 1, 1, 0).astype(np.uint8)
        Image.fromarray(shown).save(root / cover)
        name = left.split("-")[0]
        facts: dict[str, Any] = {"level": "easy", "class": name, "instance": left}
        if kind == "gallery":
            objects = [{"instance": left, "class": name}, {"instance": "dog-9", "class": "dog"}]
            facts = {"objects": objects}
        labels[kind].append({"photo": photo, "mask": cover, **facts})
    (root / "labels.json").write_text(json.dumps(labels))
    return root


def test_scenes_protocol(scenes: Path) -> None:
    benchmark = read_scenes(scenes)
    assert [asked.relevant.tolist() for asked in benchmark.queries] == [
        [0],
        [1, 3],
    ]
    assert benchmark.queries[0].query == Query(
        scenes / "photos/0.png", "cup", mask=scenes / "masks/0.png"
    )
    assert benchmark.gallery_classes == [{"cup", "dog"}, {"dog"}, {"cup", "dog"}, {"dog"}]
    assert not any(len(asked.ignored) for asked in benchmark.queries)


def test_scenes_that_are_none(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(WaldoError, match=r"holds no labels\.json"):
        read_scenes(tmp_path)
    path = scenes / "labels.json"
    labels = json.loads(path.read_text())
    del labels["queries"][0]["instance"]
    path.write_text(json.dumps(labels))
    with pytest.raises(WaldoError, match=r"not laid out.*instance"):
        read_scenes(scenes)
    labels["queries"][0]["instance"] = "cup-7"
    path.write_text(json.dumps(labels))
    with pytest.raises(WaldoError, match="no gallery photo shows cup-7"):
        read_scenes(scenes)
    mask = scenes / labels["gallery"][0]["mask"]
    content = mask.read_bytes()
    Image.new("L", (60, 48)).save(mask)
    with pytest.raises(WaldoError, match="is 60 x 48 pixels, its photo"):
        read_scenes(scenes)
    mask.write_bytes(content)
    path.write_text('{"queries": [], "gallery": []}')
    with pytest.raises(WaldoError, match="holds no query"):
        read_scenes(scenes)
    path.write_text("[")
    with pytest.raises(WaldoError, match="not JSON"):
        read_scenes(scenes)


def test_evaluate_scenes(waldo: CommandLine, scenes: Path) -> None:
    methods = ("rgb-patches", "rootsift", "consistent", "late-by-class", "class-oracle")
    options = [part for name in methods for part in ("--method", name)]
    result = waldo("evaluate", "scenes", "--root", scenes, "--json", *options)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert list(report["methods"]) == list(methods)
    # The very pixels of the object again: patches find them.
    assert report["methods"]["rgb-patches"]["mAP"] == 1.0
    assert report["methods"]["rgb-patches"]["levels"]["easy"]["mAP"] == 1.0
    # The oracle: one of two photos with cups, two of four with dogs; the same among those alone.
    assert report["methods"]["class-oracle"]["mAP"] == pytest.approx(0.5)
    assert report["methods"]["class-oracle"]["mAP_same_class"] == pytest.approx(0.5)
    assert report["methods"]["rgb-patches"]["mAP_same_class"] == 1.0
    # Against the default, query by query; nothing more than itself.
    default = report["methods"]["consistent"]
    assert default["more_than_default"] == 0.0
    patches = report["methods"]["rgb-patches"]
    assert patches["more_than_default"] == pytest.approx(1.0 - default["mAP"])
    low, high = patches["more_than_default_interval"]
    assert low <= patches["more_than_default"] <= high
    assert report["class_map"]["n_objects"] == 8
    assert report["class_map"]["n_names"] == 2
    assert 0 <= report["class_map"]["auc_other_objects"] <= 1
    table = waldo("evaluate", "scenes", "--root", scenes, "--method", "rgb-patches")
    assert "easy" in table.out
    assert "naming 8 objects by 2 names" in " ".join(table.out.split())


def test_methods_by_class_do_not_see_the_region() -> None:
    method = METHODS["late-by-class"]
    assert isinstance(method, MapMethod)
    asked = Query(Path("photo.jpg"), "dog", box=(0.0, 0.0, 5.0, 5.0))
    assert method.asks(asked) == Query(Path("photo.jpg"), "dog")
    late = METHODS["late"]
    assert isinstance(late, MapMethod)
    assert late.asks(asked) == asked


def test_a_method_told_nothing_looks_for_the_whole_upright_photo(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.jpg", exif=turned)
    asked = Query(tmp_path / "photo.jpg", "dog", mask=tmp_path / "mask.png")
    method = METHODS["consistent-whole-photo"]
    assert isinstance(method, MapMethod)
    assert not method.needs_class
    assert method.asks(asked) == Query(asked.photo, box=(0.0, 0.0, 30.0, 40.0))


def test_rootsift_counts_the_objects_own_matches(tmp_path: Path) -> None:
    # A textured square on a flat ground; seen again elsewhere, darker, or not at all.
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (12, 12), dtype=np.uint8)
    square = np.asarray(Image.fromarray(texture).resize((96, 96), Image.Resampling.BICUBIC))
    other = np.asarray(
        Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).resize((96, 96))
    )
    paths = []
    for name, content, (x, y) in (
        ("query", square, (20, 20)),
        ("again", (square * 0.7).astype(np.uint8), (100, 90)),
        ("other", other, (60, 60)),
    ):
        canvas = np.full((200, 240), 128, np.uint8)
        canvas[y : y + 96, x : x + 96] = content
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(canvas).convert("RGB").save(paths[-1])
    relevant, nothing = np.array([0]), np.empty(0, dtype=np.int64)
    inside = Query(paths[0], box=(20.0, 20.0, 116.0, 116.0))
    outside = Query(paths[0], box=(150.0, 150.0, 230.0, 190.0))
    queries = [BenchmarkQuery(query, relevant, nothing, False) for query in (inside, outside)]
    scores = np.stack([*rootsift_scores(Benchmark("folders", paths[1:], None, queries, []))])
    assert scores[0, 0] > 20
    assert scores[0, 0] > 4 * scores[0, 1]
    assert scores[1].tolist() == [0.0, 0.0]


@dataclass
class FakeExtractor:
    """F_S is the one-hot code of the label that a cell of a 4 x 4 map has in `codes`: 0 ground, 1
    cup, 2 dog; with 3 a cell looks like a dog, and also twice as much like a cup as a cup does.
    """

    codes: NDArray[np.int64]
    image_size: int = 32
    grid: int = 4
    dim: int = 3

    @property
    def rival_vectors(self) -> NDArray[np.float32]:
        return np.eye(3, dtype=np.float32)

    def background_vector(self) -> NDArray[np.float32]:
        return np.eye(3, dtype=np.float32)[0]

    def class_vector(self, name: str) -> NDArray[np.float32]:
        return np.eye(3, dtype=np.float32)[["cup", "dog"].index(name) + 1]

    def extract(self, inputs: list[ModelInput]) -> list[FeatureMaps]:
        semantic = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 2, 4]], np.float16)[self.codes]
        return [FeatureMaps(semantic, semantic, photo.frame, "") for photo in inputs]


def test_class_map_against_hand_made_maps(tmp_path: Path) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :2] = 1
    mask[2:, 2:] = 2
    Image.fromarray(mask).resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / "m.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    scene = LabelledScene(tmp_path / "photo.png", tmp_path / "m.png", ["cup", "dog"])
    benchmark = Benchmark("scenes", [scene.photo], [{"cup", "dog"}], [], [scene])

    def measure(codes: NDArray[np.int64]) -> Any:
        return measure_class_map(benchmark, cast(FeatureExtractor, FakeExtractor(codes)))

    perfect = measure(mask.astype(np.int64))
    assert (perfect.auc_everything, perfect.auc_other_objects, perfect.top1) == (1.0, 1.0, 1.0)
    # Objects told from the ground, but cups and dogs mistaken for each other.
    swapped = measure(np.array([0, 2, 1])[mask])
    assert swapped.auc_other_objects == 0.0
    # 4 of 12 cells beat every positive, the other 8 are level with it.
    assert swapped.auc_everything == pytest.approx(8 / 12 / 2)
    assert (swapped.top1, swapped.top5) == (0.0, 1.0)
    # Told from the ground, the 4 beat every positive, and every positive beats the ground.
    assert swapped.from_background_everything == pytest.approx(8 / 12)
    assert swapped.from_background_other_objects == 0.0
    # Dogs beat cups at being cups, but are dogs all the more.
    both = measure(np.array([0, 1, 3])[mask])
    assert (both.auc_other_objects, both.among_names_other_objects) == (0.5, 1.0)
    assert both.auc_everything == pytest.approx((8 / 12 + 1) / 2)
    assert both.among_names_everything == 1.0
    nothing = measure(np.zeros((4, 4), np.int64))
    assert (nothing.auc_everything, nothing.auc_other_objects) == (0.5, 0.5)


values = st.lists(st.integers(-5, 5), min_size=1, max_size=30)


@given(values, values)
@settings(max_examples=200, deadline=None)
def test_auc_is_scikit_learns(positive: list[int], negative: list[int]) -> None:
    truth = [1] * len(positive) + [0] * len(negative)
    expected = roc_auc_score(truth, positive + negative)
    first, second = (np.array(v, dtype=np.float32) for v in (positive, negative))
    assert _auc(first, second) == pytest.approx(expected, abs=1e-6)
