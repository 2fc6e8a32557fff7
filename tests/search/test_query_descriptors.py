"""`waldo query --recall`: candidates by a stored descriptor, against an exhaustive ranking."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.photo import load_photo
from features.vision.descriptors import ImageDescriptor
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.store.filters import PhotoFilter
from indexer.upkeep.remove import remove
from search.answer import Match
from search.index import Index
from search.query import Query, SearchOptions
from search.reference import make_reference
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo, smooth_pixels

COUNT = 12


@pytest.fixture(scope="module")
def descriptor(descriptor_folder: Callable[[str], Path]) -> ImageDescriptor:
    return ImageDescriptor.load(str(descriptor_folder("dinov2")), "cpu", batch_size=4)


@pytest.fixture(scope="module")
def indexed(
    tmp_path_factory: pytest.TempPathFactory,
    small_tiny: FeatureExtractor,
    descriptor: ImageDescriptor,
) -> Path:
    """An index of twelve photos and a copy of one, in index; the photos lie in photos."""
    folder = tmp_path_factory.mktemp("indexed")
    (folder / "photos").mkdir()
    for seed in range(COUNT):
        save_photo(folder / "photos" / f"{seed:02}.png", 60 + 5 * seed, 96, seed=seed)
    shutil.copy(folder / "photos" / "03.png", folder / "photos" / "copy.png")
    index_photos([folder / "photos"], folder / "index", small_tiny, descriptors=[descriptor])
    return folder


@pytest.fixture
def opened(indexed: Path, small_tiny: FeatureExtractor, tmp_path: Path) -> Index:
    index = shutil.copytree(indexed / "index", tmp_path / "index")
    return Index(IndexReader.open(index), small_tiny)


def vector(image: Image.Image, descriptor: ImageDescriptor) -> np.ndarray:
    from features.vision.image_processor import ImageProcessor

    folder = Path(descriptor.name)
    shown = ImageProcessor.load(folder / "preprocessor_config.json", square=False)
    return descriptor.describe([shown.pixels(image)])[0].astype(np.float64)


def exhaustive(
    wanted: np.ndarray, photos: Path, descriptor: ImageDescriptor
) -> list[tuple[str, float]]:
    """Every photo's name and cosine, best first, equal ones in order of names (and so of ids).

    The copy, which is no match of its own, is left out.
    """
    cosines = {
        path.name: float(vector(load_photo(path).image, descriptor) @ wanted)
        for path in sorted(photos.iterdir())
        if path.name != "copy.png"
    }
    return sorted(cosines.items(), key=lambda item: (-round(item[1], 6), item[0]))


def found(matches: list[Match]) -> list[str]:
    return [match.path.name for match in matches]


@pytest.fixture
def query_photo(tmp_path: Path) -> Path:
    return save_photo(tmp_path / "query.png", 90, 80, seed=50)


REGIONS = {
    "class": ({"class_name": "cat"}, None),
    "box": ({"box": (10.0, 20.0, 70.0, 75.0)}, (10, 20, 70, 75)),
    "fractions": ({"box": (10.4, 20.6, 69.5, 74.2)}, (10, 20, 70, 75)),
    "whole": ({"box": (0.0, 0.0, 90.0, 80.0)}, None),
}


@pytest.mark.parametrize("region", REGIONS)
def test_recall_is_the_exhaustive_ranking(
    region: str, indexed: Path, opened: Index, descriptor: ImageDescriptor, query_photo: Path
) -> None:
    asked, box = REGIONS[region]
    image = load_photo(query_photo).image
    wanted = vector(image if box is None else image.crop(box), descriptor)
    expected = exhaustive(wanted, indexed / "photos", descriptor)
    options = SearchOptions(top=99, recall=descriptor.name, rerank=False)
    with opened:
        answer = opened.search(Query(query_photo, **asked), options)
    assert found(answer.matches) == [name for name, _ in expected]
    cosines = [cosine for _, cosine in expected]
    np.testing.assert_allclose([m.score for m in answer.matches], cosines, atol=1e-5)
    np.testing.assert_allclose([m.recall_score for m in answer.matches], cosines, atol=1e-5)
    assert answer.damaged == []


def test_a_mask_and_a_point_are_cut_out_by_their_cells(
    indexed: Path, opened: Index, descriptor: ImageDescriptor, query_photo: Path, tmp_path: Path
) -> None:
    mask = np.zeros((80, 90), dtype=np.uint8)
    mask[15:60, 30:80] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = SearchOptions(top=99, recall=descriptor.name, rerank=False)
    with opened:
        for asked in ({"mask": tmp_path / "mask.png"}, {"point": (44.0, 31.0)}):
            query = Query(query_photo, **asked)
            reference = make_reference(query, opened.extractor)
            box = reference.maps.frame.box_of(reference.cells)
            wanted = vector(load_photo(query_photo).image.crop(box), descriptor)
            answer = opened.search(query, options)
            expected = exhaustive(wanted, indexed / "photos", descriptor)
            assert found(answer.matches) == [name for name, _ in expected]


def test_candidates_are_the_descriptors_and_ranks_the_scores(
    indexed: Path, opened: Index, descriptor: ImageDescriptor, query_photo: Path
) -> None:
    query = Query(query_photo, box=(10.0, 20.0, 70.0, 75.0))
    wanted = vector(load_photo(query_photo).image.crop((10, 20, 70, 75)), descriptor)
    expected = dict(exhaustive(wanted, indexed / "photos", descriptor)[:5])
    with opened:
        options = SearchOptions(top=5, candidates=5, recall=descriptor.name)
        answer = opened.search(query, options)
        everything = opened.search(query, SearchOptions(top=99))
    assert {match.path.name for match in answer.matches} == expected.keys()
    for match in answer.matches:
        assert match.recall_score == pytest.approx(expected[match.path.name], abs=1e-5)
    scores = {match.path.name: match.score for match in everything.matches}
    by_score = sorted(expected, key=lambda name: (-scores[name], name))
    assert found(answer.matches) == by_score
    assert set(expected) != {match.path.name for match in everything.matches[:5]}


def test_several_photos_and_a_filter(
    indexed: Path, opened: Index, descriptor: ImageDescriptor, query_photo: Path, tmp_path: Path
) -> None:
    """The likest of two photos counts, and only photos that pass are found."""
    other = save_photo(tmp_path / "other.png", 70, 90, seed=51)
    both = [
        dict(exhaustive(vector(load_photo(p).image, descriptor), indexed / "photos", descriptor))
        for p in (query_photo, other)
    ]
    likest = {name: max(cosines[name] for cosines in both) for name in both[0]}
    options = SearchOptions(
        top=99, recall=descriptor.name, rerank=False, filter=PhotoFilter(paths=("0*.png",))
    )
    with opened:
        query = Query(query_photo, "cat", also=(Query(other, "cat"),))
        answer = opened.search(query, options)
    names = [name for name in likest if name.startswith("0")]
    assert found(answer.matches) == sorted(names, key=lambda name: -likest[name])


def test_removed_photos_are_not_found(
    indexed: Path, small_tiny: FeatureExtractor, descriptor: ImageDescriptor, tmp_path: Path
) -> None:
    index = shutil.copytree(indexed / "index", tmp_path / "index")
    remove(index, [indexed / "photos" / "03.png"])
    options = SearchOptions(top=99, recall=descriptor.name, rerank=False)
    with Index(IndexReader.open(index), small_tiny) as opened:
        query = Query(indexed / "photos" / "03.png", "cat")
        answer = opened.search(query, options)
    assert answer.matches[0].path.name == "copy.png"
    assert answer.matches[0].is_query
    assert answer.matches[0].recall_score == pytest.approx(1, abs=1e-5)
    assert "03.png" not in found(answer.matches)


def test_the_name_of_a_descriptor_that_is_not_there(
    indexed: Path, opened: Index, descriptor: ImageDescriptor, query_photo: Path
) -> None:
    with opened, pytest.raises(WaldoError, match=r"no such descriptor, it has \S+; .*adds one"):
        opened.search(Query(query_photo, "cat"), SearchOptions(recall="siglip"))


def test_index_and_query(
    waldo: CommandLine, descriptor_folder: Callable[[str], Path], query_photo: Path, tmp_path: Path
) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    for seed in range(3):
        save_photo(photos / f"{seed}.png", 60, 50, seed=seed)
    dino, siglip = descriptor_folder("dinov2"), descriptor_folder("siglip")
    common = ("--index", index, "--device", "cpu")
    asked = (query_photo, "--class", "cat", *common, "--json")
    assert waldo("index", photos, *common).code == 0
    line = waldo.refusal("query", *asked, "--recall", "dinov2")
    assert "has no such descriptor, it has none" in line

    result = waldo("index", photos, *common, "--descriptor", dino, "--descriptor", siglip, "--json")
    report = json.loads(result.out)
    assert (report["described"], report["unchanged"], report["new"]) == (3, 3, 0)
    assert f"loading the descriptor {dino}" in result.err
    # kept up to date without being asked for again
    save_photo(photos / "3.png", 60, 50, seed=3)
    result = waldo("index", photos, *common)
    assert "1 new, 1 described" in result.out
    held = json.loads(waldo("info", "--index", index, "--json").out)["descriptors"]
    assert [(d["name"], d["photos"]) for d in held] == [(str(dino), 4), (str(siglip), 4)]
    assert waldo("verify", "--index", index).out == "no problem found\n"

    answer = json.loads(waldo("query", *asked, "--recall", dino, "--no-rerank").out)
    assert answer["query"]["recall"] == str(dino)
    scores = [match["recall_score"] for match in answer["matches"]]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1.0001 for score in scores)
    line = waldo.refusal("query", *asked, "--recall", "openclip")
    assert f"it has {dino}, {siglip}" in line
    line = waldo.refusal("index", photos, *common, "--descriptor", tmp_path / "nowhere")
    assert "no such model; known names: dinov2, openclip, siglip" in line


def test_photos_that_lack_it_are_told_of(
    indexed: Path,
    waldo: CommandLine,
    small_tiny: FeatureExtractor,
    descriptor: ImageDescriptor,
    query_photo: Path,
    tmp_path: Path,
) -> None:
    first, second, index = tmp_path / "first", tmp_path / "second", tmp_path / "index"
    for folder, seed in ((first, 1), (second, 2)):
        folder.mkdir()
        save_photo(folder / "photo.png", 60, 50, seed=seed)
    index_photos([first, second], index, small_tiny, quality="none")
    index_photos([first], index, small_tiny, descriptors=[descriptor])
    asked = (query_photo, "--class", "cat", "--index", index, "--recall", descriptor.name)
    result = waldo("query", *asked, "--device", "cpu")
    assert "1 photos have no" in result.err
    assert "first/photo.png" in result.out
    assert "second/photo.png" not in result.out
    line = waldo.refusal("query", *asked, "--device", "cpu", "--path", second)
    assert "no photo that is searched has this descriptor yet" in line


def test_a_large_jpeg_is_shown_as_when_it_was_indexed(
    small_tiny: FeatureExtractor, descriptor: ImageDescriptor, tmp_path: Path
) -> None:
    """Both sides decode it at the same scale: the photo finds itself with a cosine of 1."""
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(smooth_pixels(1800, 1300)).save(photos / "large.jpg")
    index = tmp_path / "index"
    index_photos([photos], index, small_tiny, quality="none", descriptors=[descriptor])
    options = SearchOptions(recall=descriptor.name, rerank=False)
    with Index(IndexReader.open(index), small_tiny) as opened:
        [match] = opened.search(Query(photos / "large.jpg", "cat"), options).matches
    assert match.recall_score == pytest.approx(1, abs=1e-6)
