"""Masks: the evidence against a naive computation, the pixels, and the files of the commands."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from features.errors import PhotoError, WaldoError
from features.extractor import FeatureExtractor
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import ModelInput, Photo, load_photo
from search.evaluation.metrics.masks import mask_iou
from search.query import Query
from search.ranking.localise import distance_to_object, object_cells
from search.reference import Reference, make_reference
from search.scoring.scores import token_heat
from search.segmentation.mask_files import write_masks
from search.segmentation.segment import (
    ObjectTokens,
    Resemblance,
    box_around,
    candidates_of,
    confidence_of,
    resemblances,
    score_of,
    segment,
    segment_photos,
)
from tests.helpers.command_line import CommandLine

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
GRID, DIM = 8, 16


def maps_of(appearance: NDArray[np.floating], frame: Frame) -> FeatureMaps:
    stored = appearance.astype(np.float16)
    return FeatureMaps(stored, np.zeros_like(stored), frame, "")


def random_pair() -> tuple[Reference, FeatureMaps]:
    """A reference, and a photo that shows its object two cells lower; random backgrounds."""
    rng = np.random.default_rng(3)
    frame = Frame(80, 60, 64, GRID)
    first, second = rng.normal(size=(2, GRID, GRID, DIM)) + rng.normal(size=DIM)
    second[3:6, 2:5] = first[1:4, 2:5] + rng.normal(scale=0.1, size=(3, 3, DIM))
    cells = np.zeros((GRID, GRID), dtype=bool)
    cells[1:4, 2:5] = True
    return Reference(maps_of(first, frame), cells, None), maps_of(second, frame)


def test_evidence_equals_its_definition() -> None:
    reference, maps = random_pair()
    candidates = candidates_of(maps, reference, CPU)
    tokens = ObjectTokens.of(reference, CPU)
    [seen] = resemblances(tokens, candidates)
    found = seen.evidence().numpy()

    mean = ((maps.pooled() + reference.maps.pooled()) / 2)[:DIM].astype(np.float64)

    def unit(values: NDArray[np.floating]) -> NDArray[np.float64]:
        centred = values.astype(np.float64) - mean
        return np.asarray(centred / np.linalg.norm(centred, axis=-1, keepdims=True))

    heat = token_heat(tokens.scoring, candidates)
    apart = distance_to_object(tokens.scoring, candidates)
    seeds, beyond = object_cells(candidates, apart, heat)[0].numpy(), apart[0].numpy()
    valid = maps.frame.valid().ravel()
    cells = unit(maps.appearance.reshape(-1, DIM))
    first = unit(reference.maps.appearance)
    rest = first[reference.maps.frame.valid() & ~reference.cells]

    def check(
        found: NDArray[np.floating], seeds: NDArray[np.bool_], beyond: NDArray[np.floating]
    ) -> None:
        for number, cell in enumerate(cells):
            others = np.arange(len(cells)) != number
            shown, far = cells[seeds & others], cells[valid & (beyond > 2) & others]
            alike = sorted([*(first[reference.cells] @ cell), *(shown @ cell)])[-3:]
            unlike = sorted([*(rest @ cell), *(far @ cell)])[-5:]
            wanted = np.mean(alike) - np.mean(unlike) - 0.2 * max(0.0, beyond[number] - 1)
            assert found[number] == pytest.approx(np.clip(wanted, -0.5, 0.5), abs=1e-4)

    check(found, seeds, beyond)
    # A mask says anew which cells are the object's.
    drawn = np.zeros((GRID, GRID), dtype=bool)
    drawn[3:6, 4:7] = True
    rows, columns = np.indices((GRID, GRID))
    to_drawn = np.maximum(
        np.maximum(3 - rows, rows - 5).clip(0), np.maximum(4 - columns, columns - 6).clip(0)
    )
    again = seen.with_cells(drawn).evidence().numpy()
    check(again, drawn.ravel(), np.minimum(beyond, to_drawn.ravel()))


def test_the_region_of_the_object_equals_its_definition() -> None:
    rng = np.random.default_rng(5)
    for trial in range(40):
        cosines = rng.uniform(0.3, 0.9, (GRID**2, 4)).astype(np.float32)
        valid, found = rng.random((2, GRID**2)) < np.array([[0.9], [0.08]])
        found[9] = valid[9] = True
        if trial == 0:
            cosines[:] = 0  # nothing resembles the object
        distance = rng.uniform(-2, 5, GRID**2).astype(np.float32)
        given = map(torch.from_numpy, (cosines, cosines, cosines, valid, found, distance))
        region = Resemblance(*given).object_region()

        alike = {
            cell
            for cell in range(GRID**2)
            if valid[cell]
            and np.sort(cosines[cell].astype(np.float64))[-3:].mean()
            >= 0.56 + 0.04 * float(distance[cell])
        }
        reached = {cell for cell in alike if found[cell]}
        while True:  # from cell to cell, to the four sides
            more = {
                cell
                for cell in alike - reached
                for row, column in [divmod(cell, GRID)]
                for other in reached
                if abs(other // GRID - row) + abs(other % GRID - column) == 1
            }
            if not more:
                break
            reached |= more
        expected = np.zeros(GRID**2, dtype=bool)
        expected[list(reached)] = True
        if not reached:
            expected = found
        np.testing.assert_array_equal(region.ravel(), expected)


def test_the_mask_covers_the_object() -> None:
    reference, maps = random_pair()
    candidates = candidates_of(maps, reference, CPU)
    picture = Image.new("RGB", (80, 60), "grey")
    [found] = segment(
        ObjectTokens.of(reference, CPU),
        candidates,
        [maps.frame],
        [picture],
        lambda evidence, frame, _: frame.to_photo(evidence, frame.width, frame.height) > 0,
    )
    truth = np.zeros((60, 80), dtype=bool)
    truth[30:60, 20:50] = True
    assert mask_iou(found.mask, truth) > 0.6
    assert found.box == box_around(found.mask)
    assert found.score > 0.8
    assert found.evidence.shape == (GRID, GRID)
    assert found.picture is picture


def test_the_object_may_fill_the_reference_photo() -> None:
    reference, maps = random_pair()
    everything = Reference(reference.maps, reference.maps.frame.valid(), None)
    tokens = ObjectTokens.of(everything, CPU)
    assert tokens.background.shape == (0, DIM)
    [seen] = resemblances(tokens, candidates_of(reference.maps, everything, CPU))
    evidence = seen.evidence()
    assert (evidence[torch.from_numpy(maps.frame.valid().ravel())] > 0).all()


def test_the_box_of_a_mask() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    assert box_around(mask) is None
    mask[1, 2] = mask[3, 5] = True
    assert box_around(mask) == (2, 1, 6, 4)


def test_the_mask_of_a_photo_does_not_depend_on_other_photos(
    tiny: FeatureExtractor, scene: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(scene["target"].read_bytes()[:300])
    gone = tmp_path / "gone.jpg"
    reference = make_reference(Query(scene["photo"], mask=scene["mask"]), tiny)
    several = [scene["photo"], broken, gone, scene["target"]]
    found = list(segment_photos(reference, several, tiny))
    assert [path for path, _ in found] == several
    assert isinstance(found[1][1], PhotoError)
    assert isinstance(found[2][1], WaldoError)
    assert str(gone) in str(found[2][1])
    [(_, alone)] = segment_photos(reference, [scene["target"]], tiny)
    last = found[3][1]
    assert not isinstance(last, WaldoError)
    assert not isinstance(alone, WaldoError)
    np.testing.assert_array_equal(alone.mask, last.mask)
    # The reference photo shows its own object.
    itself = found[0][1]
    assert not isinstance(itself, WaldoError)
    with Image.open(scene["mask"]) as file:
        assert mask_iou(itself.mask, np.asarray(file) > 0) > 0.5


class Counting(FeatureExtractor):
    """Counts the photos that it extracts."""

    extracted = 0

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        self.extracted += len(inputs)
        return super().extract(inputs)


def test_the_reference_photo_is_extracted_once_and_each_photo_decoded_once(
    tiny: FeatureExtractor,
    scene: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[Path] = []

    def load(path: Path, at_least: int | None = None) -> Photo:
        decoded.append(path)
        return load_photo(path, at_least)

    extractor = Counting(tiny.model, tiny.settings, batch_size=2)
    reference = make_reference(Query(scene["photo"], mask=scene["mask"]), extractor)
    monkeypatch.setattr("search.segmentation.segment.load_photo", load)
    photos = [scene["photo"], scene["target"]]
    written, failures = write_masks(tmp_path, reference, photos, extractor)
    assert failures == []
    assert [one.path for one in written] == photos
    assert extractor.extracted == 2
    assert decoded == photos


@pytest.fixture
def targets(scene: dict[str, Path], tmp_path: Path) -> Path:
    """A folder with two photos of one name in two formats, a broken photo and a text."""
    folder = tmp_path / "targets"
    (folder / "more").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(scene["target"].read_bytes())
    with Image.open(scene["target"]) as image:
        image.save(folder / "more" / "A.png")
    (folder / "broken.jpg").write_bytes(scene["target"].read_bytes()[:300])
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_segment_writes_masks_and_overlays(
    waldo: CommandLine, scene: dict[str, Path], targets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "masks"
    result = waldo(
        *("segment", scene["photo"], targets, "--mask", scene["mask"], "--out", out),
        *("--device", "cpu", "--json"),
    )
    assert result.code == 2  # One photo is broken; the others have masks.
    answer = json.loads(result.out)
    assert answer["reference"]["mask"] == str(scene["mask"])
    assert [Path(mask["path"]).name for mask in answer["masks"]] == ["a.jpg", "A.png"]
    assert [Path(mask["mask"]).name for mask in answer["masks"]] == ["a.mask.png", "A-2.mask.png"]
    [failure] = answer["failed"]
    assert failure["path"] == str(targets / "broken.jpg")
    assert [line for line in result.err.splitlines() if line.startswith("error:")] == [
        f"error: {' '.join(failure['reason'].split())}"
    ]
    for written in answer["masks"]:
        with Image.open(written["path"]) as photo, Image.open(written["mask"]) as mask:
            assert mask.size == photo.size
            assert mask.mode == "L"
            values = np.asarray(mask)
        assert set(np.unique(values)) == {0, 255}
        assert written["area"] == (values == 255).sum()
        assert tuple(written["box"]) == box_around(values > 0)
        with Image.open(written["overlay"]) as overlay:
            assert overlay.size == photo.size
    assert sorted(path.name for path in out.iterdir()) == sorted(
        Path(mask[kind]).name for mask in answer["masks"] for kind in ("mask", "overlay")
    )


def test_segment_says_where_the_object_is_not(
    waldo: CommandLine, scene: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = Path("photos")
    photos.mkdir()
    shutil.copy(scene["target"], photos / "shown.jpg")
    shutil.copy(ROOT / "data" / "demo" / "query" / "cat.jpg", photos / "cat.jpg")
    asked = ("segment", scene["photo"], photos, "--mask", scene["mask"], "--device", "cpu")
    result = waldo(*asked, "--out", "masks", "--json")
    assert result.code == 0
    answer = json.loads(result.out)
    [shown], [other] = answer["masks"], answer["not_here"]
    assert (Path(shown["path"]).name, Path(other["path"]).name) == ("shown.jpg", "cat.jpg")
    assert other["confidence"] < 0.5 <= shown["confidence"]
    assert other["confidence"] == pytest.approx(confidence_of(other["score"]))
    assert sorted(path.name for path in Path("masks").iterdir()) == [
        "shown.mask.png",
        "shown.overlay.jpg",
    ]
    assert "not here: 1 of 2 photos" in result.err
    table = waldo(*asked, "--out", "masks")
    [row] = [line for line in table.out.splitlines() if "cat.jpg" in line]
    assert "not here" in row
    assert str(tmp_path) not in table.out
    every = json.loads(waldo(*asked, "--out", "all", "--min-confidence", "0", "--json").out)
    assert len(every["masks"]) == 2
    assert every["not_here"] == []
    assert waldo.refusal(*asked, "--out", "all", "--min-confidence", "90")


def test_scores_of_confidences_are_the_inverse() -> None:
    for score in (-0.5, 0.0, 0.4, 0.7):
        assert score_of(confidence_of(score)) == pytest.approx(score)
    assert score_of(0) == -np.inf
    assert f"{confidence_of(score_of(1)):.2f}" == "1.00"
    assert score_of(1) < 1


def test_masks_are_not_written_into_the_folder_of_the_photos(
    waldo: CommandLine, scene: dict[str, Path], targets: Path
) -> None:
    for target in (targets, targets / "a.jpg"):
        line = waldo.refusal("segment", scene["photo"], target, "--class", "dog", "--out", targets)
        assert "a folder of their own" in line


def test_segment_refuses_bad_input_before_it_loads_a_model(
    waldo: CommandLine, scene: dict[str, Path], tmp_path: Path
) -> None:
    base = ("segment", scene["photo"], scene["target"], "--out", tmp_path / "masks")
    assert "--box 1,2" in waldo.refusal(*base, "--box", "1,2")
    assert "sam nowhere: no such" in waldo.refusal(*base, "--class", "dog", "--sam", "nowhere")
    gone = tmp_path / "gone.jpg"
    assert str(gone) in waldo.refusal(
        "segment", scene["photo"], gone, "--class", "dog", "--out", tmp_path / "masks"
    )
    assert not (tmp_path / "masks").exists()
