"""Masks, boxes and copies of the matches of a query."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search import Answer, Index, Match, Query
from search.segmentation import match_masks
from search.segmentation.graph_cut import Cut
from search.segmentation.match_masks import boxes_in, fit_boxes
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
        # The boxes follow the mask, to a pixel of the part that was cut.
        for box in match["boxes"]:
            around = box_around(drawn & inside(box, drawn.shape, 3))
            np.testing.assert_allclose(around, box, atol=max(drawn.shape) / 128 + 1)
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
    plain = waldo(*collection.query, "--json")
    assert plain.code == 0
    matches = json.loads(plain.out)["matches"]
    paths = [Path(match["path"]).name for match in matches]
    assert sorted(opened) == sorted(paths)  # for the boxes
    assert segmented == []
    opened.clear()
    files = ("--masks", tmp_path / "masks", "--html", tmp_path / "page.html")
    result = waldo(*collection.query, *files, "--json")
    assert result.code == 0
    assert sorted(opened) == sorted([*paths, *paths])  # for the boxes, and then for the masks
    assert len(segmented) == len(paths)
    # The boxes are the same whatever is written.
    for one, other in zip(matches, json.loads(result.out)["matches"], strict=True):
        assert one["boxes"] == other["boxes"]


def inside(box: Sequence[int], shape: tuple[int, ...], margin: int = 0) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = box
    mask = np.zeros(shape, dtype=bool)
    mask[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = True
    return mask


def test_each_box_takes_the_pixels_that_are_nearest_to_it() -> None:
    boxes = ((10, 10, 30, 30), (60, 10, 80, 30), (10, 70, 30, 90))
    first, second = (5, 12, 35, 28), (62, 8, 95, 40)
    cut = Cut(inside(first, (100, 100)) | inside(second, (100, 100)), (0, 0, 100, 100))
    assert boxes_in(cut, boxes) == (first, second, boxes[2])
    assert boxes_in(cut, boxes[:1]) == ((5, 8, 95, 40),)
    nothing = Cut(np.zeros((100, 100), dtype=bool), (0, 0, 100, 100))
    assert boxes_in(nothing, boxes) == boxes
    # A part of a larger photo, at half of its size; and pixels that are smaller than the photo's.
    part = Cut(cut.mask, (1000, 500, 1200, 700))
    [whole] = boxes_in(part, [(1010, 510, 1020, 520)])
    assert whole == (1010, 516, 1190, 580)
    small = Cut(inside((4, 8, 6, 9), (20, 20)), (3, 3, 5, 5))
    assert boxes_in(small, [(3, 3, 4, 4)]) == ((3, 3, 4, 4),)


@pytest.fixture(scope="module")
def matches(
    collection: Collection, tiny: FeatureExtractor, scene: dict[str, Path]
) -> tuple[Answer, list[Match], list[Match]]:
    """An answer; and its matches with boxes of cells, and with boxes of masks."""
    index = Path(str(collection.query[-1]))
    with Index(IndexReader.open(index), tiny) as opened:
        answer = opened.search(Query(scene["photo"], mask=scene["mask"]))
        cells = [replace(m, boxes=(m.frame.box_of(m.frame.valid()),)) for m in answer.matches]
        fitted = fit_boxes(opened.reader, answer.references, tiny.device, cells)
    return answer, cells, fitted


def test_boxes_fit_the_object(
    matches: tuple[Answer, list[Match], list[Match]], scene: dict[str, Path]
) -> None:
    answer, _, fitted = matches
    assert [match.boxes for match in fitted] == [match.boxes for match in answer.matches]
    with Image.open(scene["mask"]) as file:
        x0, y0, x1, y1 = box_around(np.asarray(file) > 0) or (0, 0, 0, 0)
    [own] = [match for match in fitted if match.path.name == "two.jpg"]
    a0, b0, a1, b1 = own.box
    both = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
    assert both / ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - both) > 0.7


def test_boxes_stay_where_a_photo_cannot_be_looked_at_or_may_be_chance(
    collection: Collection,
    tiny: FeatureExtractor,
    matches: tuple[Answer, list[Match], list[Match]],
    tmp_path: Path,
) -> None:
    answer, [cells, *_], [fitted, *_] = matches
    assert fitted.boxes != cells.boxes
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(cells.path.read_bytes()[:300])
    given = [
        cells,
        replace(cells, path=tmp_path / "gone.jpg"),
        replace(cells, path=broken),
        replace(cells, changed=True),
        replace(cells, probability=0.19),
        replace(cells, probability=0.2),
    ]
    index = Path(str(collection.query[-1]))
    with IndexReader.open(index) as reader:
        found = fit_boxes(reader, answer.references, tiny.device, given)
    moved = [one.boxes != cells.boxes for one in found]
    assert moved == [True, False, False, False, False, True]
    assert [replace(one, boxes=cells.boxes) for one in found] == given


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
