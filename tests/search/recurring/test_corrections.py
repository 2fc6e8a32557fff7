"""What people say of recurring objects: it holds, and outlives everything but the photos."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from features.errors import WaldoError
from indexer.errors import IndexDamagedError
from indexer.ingest.build import index_photos
from indexer.object_corrections import Correction, Places, read_corrections, write_corrections
from indexer.reader import IndexReader
from indexer.region_links import RegionLinks
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from indexer.upkeep.remove import remove
from search.recurring.corrected import corrected
from search.recurring.corrections import correct_objects
from search.recurring.recurrence import recurring_objects
from tests.helpers.command_line import CommandLine
from tests.helpers.linked_photos import link_regions, objects_of
from tests.helpers.stores import PixelExtractor, make_photos

# Photos of each object, by the links that the index is given: one region for each photo.
OBJECTS = ((0, 1, 2), (3, 4, 5), (6, 7))
COUNT = 8


@pytest.fixture
def index(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", COUNT)
    index_photos([tmp_path / "photos"], tmp_path / "index", PixelExtractor())
    link_regions(tmp_path / "index", OBJECTS)
    return tmp_path / "index"


def number_of(index: Path, *photos: int) -> int:
    """The number of the object of which these are all photos."""
    with IndexReader.open(index) as reader:
        [number] = [
            one.number
            for one in recurring_objects(reader)
            if {int(photo.record.path.stem[-3:]) for photo in one.photos} == set(photos)
        ]
    return number


def id_of(index: Path, photo: int) -> int:
    with IndexReader.open(index) as reader:
        [number] = [
            one.id for one in reader.photos(reader.ids) if one.path.name == f"photo-{photo:03}.png"
        ]
    return number


def take_out(index: Path, number: int, *photos: int) -> None:
    correct_objects(index, taken_out={number: [id_of(index, photo) for photo in photos]})


def as_sets(*objects: tuple[int, ...]) -> set[frozenset[int]]:
    return set(map(frozenset, objects))


def test_nothing_said_changes_nothing(index: Path) -> None:
    before = read_manifest(index)
    correct_objects(index)
    assert read_manifest(index) == before
    assert objects_of(index) == as_sets(*OBJECTS)


def test_objects_are_merged_and_photos_taken_out_in_one_commit(index: Path) -> None:
    generation = read_manifest(index).generation
    first, last = number_of(index, 0, 1, 2), number_of(index, 6, 7)
    other = number_of(index, 3, 4, 5)
    correct_objects(index, [[first, last]], {other: [id_of(index, 4)], first: [id_of(index, 1)]})
    assert objects_of(index) == as_sets((0, 2, 6, 7), (3, 5))
    assert read_manifest(index).generation == generation + 1
    assert verify(index) == []


def test_what_is_taken_out_together_is_an_object_of_its_own(index: Path) -> None:
    take_out(index, number_of(index, 0, 1, 2), 1, 2)
    assert objects_of(index) == as_sets((1, 2), (3, 4, 5), (6, 7))


def test_what_is_said_last_holds(index: Path) -> None:
    take_out(index, number_of(index, 0, 1, 2), 1, 2)
    take_out(index, number_of(index, 3, 4, 5), 3)
    correct_objects(index, [[number_of(index, 1, 2), number_of(index, 4, 5)]])
    take_out(index, number_of(index, 1, 2, 4, 5), 2)
    assert objects_of(index) == as_sets((1, 4, 5), (6, 7))


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        # Photo 5 has gone to the third object, which the person did not speak of.
        (((0, 1, 2), (3, 4), (5, 6, 7)), ((0, 1, 2, 3, 4), (5, 6, 7))),
        # More has joined each, and each is known again.
        (((0, 1, 2, 6), (3, 4, 5, 7)), (tuple(range(8)),)),
        # One is not found any more; its regions stand for it.
        (((0, 1, 2), (6, 7)), ((0, 1, 2, 3, 4, 5), (6, 7))),
    ],
)
def test_what_was_merged_stays_one_when_links_differ(
    index: Path, later: tuple[tuple[int, ...], ...], expected: tuple[tuple[int, ...], ...]
) -> None:
    correct_objects(index, [[number_of(index, 0, 1, 2), number_of(index, 3, 4, 5)]])
    link_regions(index, later)
    assert objects_of(index) == as_sets(*expected)


def test_a_photo_stays_out_when_links_differ(index: Path) -> None:
    take_out(index, number_of(index, 3, 4, 5), 5)
    link_regions(index, ((0, 1, 2), (3, 4, 5, 6, 7)))
    assert objects_of(index) == as_sets((0, 1, 2), (3, 4, 6, 7))
    link_regions(index, ((0, 1, 2, 5), (3, 4), (6, 7)))
    assert objects_of(index) == as_sets((0, 1, 2, 5), (3, 4), (6, 7))


def test_it_outlives_moves_removal_compaction_and_indexing_again(
    index: Path, tmp_path: Path
) -> None:
    correct_objects(
        index,
        [[number_of(index, 0, 1, 2), number_of(index, 6, 7)]],
        {number_of(index, 3, 4, 5): [id_of(index, 4)]},
    )
    expected = as_sets((0, 1, 2, 6, 7), (3, 5))
    photos = tmp_path / "photos"
    remove(index, sorted(photos.iterdir())[1:])
    compact(index)
    assert objects_of(index) == set()
    moved = photos.rename(tmp_path / "moved")
    index_photos([moved], index, PixelExtractor())
    compact(index)
    assert read_manifest(index).corrections is not None
    link_regions(index, OBJECTS)
    assert objects_of(index) == expected
    assert verify(index) == []


def test_merged_objects_that_keep_one_photo_each_are_an_object(index: Path, tmp_path: Path) -> None:
    correct_objects(index, [[number_of(index, 0, 1, 2), number_of(index, 6, 7)]])
    remove(index, [tmp_path / "photos" / f"photo-{photo:03}.png" for photo in (0, 1, 6)])
    assert objects_of(index) == as_sets((2, 7), (3, 4, 5))


def test_any_copy_of_a_photo_is_taken_out_with_it(index: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "photos" / "photo-002.png", tmp_path / "photos" / "photo-100.png")
    index_photos([tmp_path / "photos"], index, PixelExtractor())
    take_out(index, number_of(index, 0, 1, 2), 100)
    assert objects_of(index) == as_sets((0, 1), (3, 4, 5), (6, 7))


def test_a_region_is_known_again_by_its_content_and_most_of_its_cells() -> None:
    contents = np.arange(3, dtype=np.uint8).repeat(32).reshape(3, 32)
    cells = np.zeros((4, 16), bool)
    cells[0, :4] = cells[1, 8:12] = cells[2, :4] = cells[3, :4] = True  # two regions of photo 0
    nothing = np.empty((0, 2))
    links = RegionLinks(
        contents,
        np.ones(3, bool),
        np.array([0, 0, 1, 2]),
        cells,
        nothing.astype(np.float32),
        nothing.astype(np.int64),
        np.empty(0, np.float32),
    )
    shifted = np.zeros((1, 16), bool)
    shifted[0, 10:14] = True
    other = np.zeros((1, 16), bool)
    other[0, 1:4] = True
    said = Correction(
        (Places(contents[:1], shifted), Places(contents[2:], other)), np.empty((0, 32), np.uint8)
    )
    assert sorted(corrected([[0, 2]], links, [said])) == [[0, 2], [1, 3]]


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def places(count: int) -> Places:
        return Places(rng.integers(0, 256, (count, 32), np.uint8), rng.random((count, 25)) < 0.5)

    none = np.empty((0, 32), np.uint8)
    said = [
        Correction((places(3), places(1)), none),
        Correction((places(2),), rng.integers(0, 256, (4, 32), np.uint8)),
        Correction((places(1), places(2), places(5)), none),
    ]
    write_corrections(tmp_path / "file", said)
    found = read_corrections(tmp_path / "file")
    assert len(found) == len(said)
    for one, expected in zip(found, said, strict=True):
        np.testing.assert_array_equal(one.without, expected.without)
        for had, wanted in zip(one.objects, expected.objects, strict=True):
            np.testing.assert_array_equal(had.contents, wanted.contents)
            np.testing.assert_array_equal(had.cells, wanted.cells)


def test_a_damaged_file_is_reported_and_never_given_up_unasked(index: Path, tmp_path: Path) -> None:
    correct_objects(index, [[1, 2]])
    file = read_manifest(index).corrections
    assert file is not None
    path = index / file.name
    path.write_bytes(path.read_bytes()[:-9])
    assert [problem for problem in verify(index) if file.name in problem]
    for act in (objects_of, lambda index: correct_objects(index, [[1, 2]])):
        with pytest.raises(IndexDamagedError, match="put back a copy"):
            act(index)
    make_photos(tmp_path / "photos", 1, first=50)
    index_photos([tmp_path / "photos"], index, PixelExtractor())
    assert read_manifest(index).corrections == file
    path.unlink()
    index_photos([tmp_path / "photos"], index, PixelExtractor())
    assert objects_of(index) == as_sets(*OBJECTS)
    assert verify(index) == []


@pytest.mark.parametrize(
    ("merged", "taken_out"),
    [
        ([[1, 9]], {}),
        ([[0, 1]], {}),
        ([[2, 2]], {}),
        ([[1]], {}),
        ([[1, 2]], {9: [0]}),
        ([[1, 2]], {3: [0]}),  # a photo of another object
        ([[1, 2]], {3: [99]}),
        ([[1, 2]], {3: [6, 7]}),  # all of its photos
    ],
)
def test_what_cannot_be_is_refused_whole(
    index: Path, merged: list[list[int]], taken_out: dict[int, list[int]]
) -> None:
    before = read_manifest(index)
    with pytest.raises(WaldoError):
        correct_objects(index, merged, taken_out)
    assert read_manifest(index) == before


def test_the_command_corrects_and_lists_what_follows(
    index: Path, waldo: CommandLine, tmp_path: Path
) -> None:
    first, last = number_of(index, 0, 1, 2), number_of(index, 6, 7)
    path = tmp_path / "photos" / "photo-001.png"
    arguments = ["--merge", f"{first},{last}", "--split", f"{first}={path}"]
    arguments += ["--split", f"{number_of(index, 3, 4, 5)}={id_of(index, 3)}"]
    answer = waldo("objects", "--index", index, *arguments, "--json")
    found = json.loads(answer.out)["objects"]
    assert {frozenset(int(photo["path"][-7:-4]) for photo in one["photos"]) for one in found} == (
        as_sets((0, 2, 6, 7), (4, 5))
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--merge", "1"],
        ["--merge", "1,x"],
        ["--merge", "1,9"],
        ["--split", "1"],
        ["--split", "x=0"],
        ["--split", "1=nowhere.png"],
        ["--split", "9=0"],
        ["--merge", "1,2", "--name", "1=Rex"],
    ],
)
def test_what_corrects_nothing_is_refused(
    index: Path, waldo: CommandLine, arguments: list[str]
) -> None:
    before = read_manifest(index)
    waldo.refusal("objects", "--index", index, *arguments)
    assert read_manifest(index) == before
