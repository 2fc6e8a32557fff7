"""Masks, boxes and copies of the matches of a query."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from search.segmentation import match_masks
from search.segmentation.match_masks import boxes_in
from search.segmentation.segment import Segmentation, box_around, load_picture, segment
from tests.helpers.command_line import CommandLine


@dataclass(frozen=True)
class Collection:
    """A collection of two photos, one.jpg and two.jpg, and the arguments of a query of it."""

    photos: Path
    query: tuple[object, ...]


@pytest.fixture(scope="module")
def collection(
    tiny: FeatureExtractor, scene: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Collection:
    photos = tmp_path_factory.mktemp("photos")
    shutil.copy(scene["target"], photos / "one.jpg")
    shutil.copy(scene["photo"], photos / "two.jpg")
    index = tmp_path_factory.mktemp("index") / "index"
    index_photos([photos], index, tiny, batch_size=tiny.batch_size)
    query = ("query", scene["photo"], "--mask", scene["mask"], "--index", index)
    return Collection(photos, query)


@pytest.fixture
def missing(collection: Collection) -> Iterator[Path]:
    """One photo of the collection, which is gone during the test."""
    path = collection.photos / "one.jpg"
    elsewhere = path.rename(path.with_suffix(".gone"))
    yield path
    elsewhere.rename(path)


def test_query_writes_masks_and_photos_of_its_matches(
    waldo: CommandLine, collection: Collection, tmp_path: Path
) -> None:
    masks, copies = tmp_path / "masks", tmp_path / "copies"
    result = waldo(*collection.query, "--masks", masks, "--export", copies, "--json")
    assert result.code == 0
    matches = json.loads(result.out)["matches"]
    assert [Path(match["mask"]).name for match in matches] == [
        f"{rank:03}-{Path(match['path']).stem}.mask.png"
        for rank, match in enumerate(matches, start=1)
    ]
    for match in matches:
        path = Path(match["path"])
        copy = copies / f"{match['rank']:03}-{path.name}"
        assert copy.read_bytes() == path.read_bytes()
        with Image.open(match["mask"]) as mask, Image.open(path) as photo:
            assert mask.size == photo.size
            drawn = np.asarray(mask) > 0
        # The boxes follow the mask.
        for box in match["boxes"]:
            assert box_around(drawn & inside(box, drawn.shape)) == tuple(box)
    # The same query may write its files again.
    assert waldo(*collection.query, "--masks", masks, "--export", copies).code == 0


def test_a_match_is_opened_and_segmented_once(
    waldo: CommandLine, collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, segmented = [], []

    def opening(path: Path) -> Image.Image:
        opened.append(path.name)
        return load_picture(path)

    def segmenting(*given: Any, **named: Any) -> list[Segmentation]:
        segmented.append(given)
        return segment(*given, **named)

    monkeypatch.setattr(match_masks, "load_picture", opening)
    monkeypatch.setattr(match_masks, "segment", segmenting)
    files = ("--masks", tmp_path / "masks", "--html", tmp_path / "page.html")
    result = waldo(*collection.query, *files, "--json")
    assert result.code == 0
    paths = [Path(match["path"]).name for match in json.loads(result.out)["matches"]]
    assert opened == paths
    assert len(segmented) == len(paths)


def inside(box: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = box
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_each_box_takes_the_pixels_that_are_nearest_to_it() -> None:
    boxes = ((10, 10, 30, 30), (60, 10, 80, 30), (10, 70, 30, 90))
    first, second = (5, 12, 35, 28), (62, 8, 95, 40)
    mask = inside(first, (100, 100)) | inside(second, (100, 100))
    assert boxes_in(mask, boxes) == (first, second, boxes[2])
    assert boxes_in(mask, boxes[:1]) == ((5, 8, 95, 40),)
    assert boxes_in(np.zeros((100, 100), dtype=bool), boxes) == boxes


def test_query_warns_of_photos_that_are_gone(
    waldo: CommandLine, collection: Collection, missing: Path, tmp_path: Path
) -> None:
    result = waldo(
        *(*collection.query, "--masks", tmp_path / "masks", "--export", tmp_path / "copies"),
        "--json",
    )
    assert result.code == 0
    masks = {Path(m["path"]).name: m["mask"] for m in json.loads(result.out)["matches"]}
    assert masks[missing.name] is None
    assert masks["two.jpg"] is not None
    assert sum(line.startswith("warning:") for line in result.err.splitlines()) == 2


def test_export_does_not_replace_other_files(
    waldo: CommandLine, collection: Collection, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for name in ("001-one.jpg", "001-two.jpg"):
        (copies / name).write_text("mine")
    result = waldo(*collection.query, "--export", copies)
    assert result.code == 2
    assert "give a new folder" in result.err
    assert (copies / "001-two.jpg").read_text() == "mine"


def test_masks_and_export_need_a_single_search(
    waldo: CommandLine, collection: Collection, tmp_path: Path
) -> None:
    for option in ("--masks", "--export"):
        line = waldo.refusal(*collection.query, tmp_path / "second.jpg", option, tmp_path / "out")
        assert f"{option} shows one search" in line
