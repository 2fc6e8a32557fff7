"""An object that a photo shows more than once: its places, one after the other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from features.extractor import FeatureExtractor
from indexer.codec.tokens import TokenMap
from indexer.ingest.build import index_photos
from search.index import open_index
from search.query import Query, SearchOptions
from search.ranking.localise import (
    MOST_PLACES,
    distance_to_object,
    localise,
    object_places,
    without_place,
)
from search.reference import make_reference
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.confidence import MINIMUM_PHOTOS, minimum_remaining_score
from search.scoring.hough import place
from search.scoring.scores import SCORES
from search.segmentation.segment import ObjectTokens, resemblances
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo, smooth_pixels

SIDE = 16
CONSISTENT = SCORES["consistent"]


def photos(*corners: list[tuple[int, int]]) -> tuple[ScoringReference, CandidateMaps]:
    """An object of 3 x 3 different cells, and photos that show it with its upper left cell there;
    every place is a little less like the object than the one before. The last rows are padding.
    """
    rng = np.random.default_rng(5)
    tokens = rng.normal(size=(9, 48))
    cells = 0.3 * rng.normal(size=(len(corners), SIDE, SIDE, 48))
    for photo, places in zip(cells, corners, strict=True):
        for number, (row, column) in enumerate(places):
            copy = tokens + 0.3 * number * rng.normal(size=tokens.shape)
            photo[row : row + 3, column : column + 3] = copy.reshape(3, 3, 48)
    valid = torch.ones((len(corners), SIDE, SIDE), dtype=torch.bool)
    valid[:, -3:] = False
    own = torch.from_numpy(tokens).float()
    positions = torch.tensor([[row, column] for row in range(3) for column in range(3)]).float()
    maps = TokenMap.plain(torch.from_numpy(cells).float().flatten(1, 2), torch.zeros(48))
    reference = ScoringReference(own, own, None, positions)
    return reference, CandidateMaps(maps, maps, valid.flatten(1))


def places_of(
    reference: ScoringReference, candidates: CandidateMaps, least: float
) -> list[list[set[tuple[int, int]]]]:
    """For each photo the cells of each place, as rows and columns."""
    found = object_places(
        reference,
        candidates,
        CONSISTENT.heat(reference, candidates),
        lambda left: CONSISTENT.function(reference, left),
        torch.full((len(candidates.valid),), least),
    )
    grids = [
        [cells[row].reshape(SIDE, SIDE).numpy() for cells in found] for row in range(len(found[0]))
    ]
    return [[{(r, c) for r, c in np.argwhere(g).tolist()} for g in own if g.any()] for own in grids]


def square(row: int, column: int) -> set[tuple[int, int]]:
    return {(row + i, column + j) for i in range(3) for j in range(3)}


def test_places_are_found_best_first_in_each_photo_for_itself() -> None:
    twice, once, thrice = [(9, 10), (2, 1)], [(5, 6)], [(0, 0), (0, 8), (9, 4)]
    reference, candidates = photos(twice, once, thrice)
    found = places_of(reference, candidates, 0.6)
    assert found == [[square(*corner) for corner in corners] for corners in (twice, once, thrice)]
    # the last place of each photo is the least like the object: a higher bar leaves it out
    scores = CONSISTENT.function(reference, candidates)
    assert [len(own) for own in places_of(reference, candidates, 0.97)] == [1, 1, 1]
    assert (scores > 0.97).all()


def test_one_place_where_no_more_is_asked_for() -> None:
    reference, candidates = photos([(9, 10), (2, 1)])

    def never(_: CandidateMaps) -> torch.Tensor:
        raise AssertionError("scored")

    heat = CONSISTENT.heat(reference, candidates)
    [only] = object_places(reference, candidates, heat, never, torch.tensor([torch.inf]))
    assert only.reshape(SIDE, SIDE)[9:12, 10:13].all()


def test_places_are_few_apart_and_in_the_photo() -> None:
    reference, candidates = photos([(5, 6)], [(0, 0)])
    for own in places_of(reference, candidates, -1.0):
        assert 2 <= len(own) <= MOST_PLACES
        assert sum(map(len, own)) == len(set().union(*own))
        assert max(row for row, _ in set().union(*own)) < SIDE - 3


def test_a_photo_that_is_all_object_has_one_place() -> None:
    reference, candidates = photos([(5, 6)])
    large = ScoringReference(
        candidates.appearance.levels[0, : SIDE * (SIDE - 3)].clone(),
        reference.semantic,
        None,
        torch.stack(
            torch.meshgrid(torch.arange(SIDE - 3.0), torch.arange(float(SIDE)), indexing="ij"), 2
        ).flatten(0, 1),
    )
    assert [len(own) for own in places_of(large, candidates, -1.0)] == [1]


def test_what_is_taken_away_lies_within_two_cells_of_the_place() -> None:
    reference, candidates = photos([(9, 10), (2, 1)], [(5, 6)])
    best, cells = candidates.best(reference)
    voted = place(best, cells, reference.positions, SIDE)
    distance = distance_to_object(reference, candidates)
    left, any_left = without_place(candidates, distance)
    assert any_left.all()
    for photo in range(2):
        half = max(0.5, voted.scale[photo].item() / 2)
        for number in range(SIDE**2):
            at = number // SIDE, number % SIDE
            apart = min(
                max(abs(row - at[0]), abs(column - at[1]))
                for row, column in voted.places[photo].tolist()
            )
            assert distance[photo, number].item() == pytest.approx(apart - half, abs=1e-5)
            expected = candidates.valid[photo, number].item() and apart - half > 2
            assert left.valid[photo, number].item() == expected


def test_a_place_must_beat_chance_and_half_of_the_first() -> None:
    scores = np.random.default_rng(0).normal(0.4, 0.05, 300).astype(np.float32)
    middle, high = np.quantile(scores.astype(np.float64), [0.5, 0.9])
    by_chance = middle + norm.ppf(0.99) * (high - middle) / norm.ppf(0.9)
    found = np.array([0.45, 0.9], dtype=np.float32)
    expected = [by_chance, (middle + 0.9) / 2]
    np.testing.assert_allclose(minimum_remaining_score(scores, found), expected, atol=1e-4)
    # of photos that do not show the object, about one in a hundred scores so much
    more = np.random.default_rng(1).normal(0.4, 0.05, 20_000)
    assert np.mean(more > by_chance) == pytest.approx(0.01, abs=0.006)
    assert np.isposinf(minimum_remaining_score(scores[: MINIMUM_PHOTOS - 1], found)).all()


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos without the object, one with it, one with it twice; and photo.png, to ask with."""
    folder = tmp_path_factory.mktemp("collection")
    (folder / "photos").mkdir()
    colours = np.random.default_rng(4).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    thing = Image.fromarray(colours).resize((60, 60), Image.Resampling.NEAREST)
    for number in range(24):
        save_photo(folder / "photos" / f"{number}.png", 192, 144, seed=number)
    for name, corners in (
        ("photos/once", [(30, 60)]),
        ("photos/twice", [(8, 16), (120, 72)]),
        ("photo", [(64, 40)]),
    ):
        picture = Image.fromarray(smooth_pixels(192, 144, seed=len(name)))
        for corner in corners:
            picture.paste(thing, corner)
        picture.save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def index(collection: Path, tiny: FeatureExtractor) -> Path:
    index_photos([collection / "photos"], collection / "index", tiny)
    return collection / "index"


def overlap(a: list[int], corner: tuple[int, int]) -> float:
    """IoU of a box with the object at a corner."""
    b = (*corner, corner[0] + 60, corner[1] + 60)
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + 3600 - both)


def test_json_has_every_place_and_the_mask_covers_them(
    waldo: CommandLine, collection: Path, index: Path, tmp_path: Path
) -> None:
    ask = ("query", collection / "photo.png", "--index", index, "--box", "64,40,124,100")
    result = waldo(*ask, "--top", "4", "--masks", tmp_path / "masks", "--json")
    matches = json.loads(result.out)["matches"]
    assert [Path(match["path"]).stem for match in matches[:2]] in (
        ["once", "twice"],
        ["twice", "once"],
    )
    by_name = {Path(match["path"]).stem: match for match in matches}
    for match in matches:
        assert match["boxes"][0] == match["box"]
    assert [len(match["boxes"]) for match in matches[2:]] == [1, 1]
    [once] = by_name["once"]["boxes"]
    assert overlap(once, (30, 60)) > 0.5
    boxes = by_name["twice"]["boxes"]
    assert len(boxes) == 2
    mask = np.asarray(Image.open(by_name["twice"]["mask"])) > 0
    for x, y in ((8, 16), (120, 72)):
        assert max(overlap(box, (x, y)) for box in boxes) > 0.5
        assert mask[y : y + 60, x : x + 60].mean() > 0.5
    table = waldo(*ask, "--top", "2").out.splitlines()
    assert [line.endswith("(2 places)") for line in table[1:]].count(True) == 1


def test_scores_that_are_means_and_recall_alone_give_one_place(
    collection: Path, index: Path
) -> None:
    query = Query(collection / "photo.png", box=(64, 40, 124, 100))
    with open_index(index, device="cpu") as opened:
        for options in (SearchOptions(score="pdm"), SearchOptions(rerank=False)):
            assert {len(match.boxes) for match in opened.search(query, options).matches} == {1}


def test_being_like_what_is_not_looked_for_counts_against_another_place(
    collection: Path, index: Path
) -> None:
    query = Query(collection / "photo.png", box=(64, 40, 124, 100))
    twice = collection / "photos" / "twice.png"
    with open_index(index, device="cpu") as opened:
        [match] = [m for m in opened.search(query).matches if m.path == twice]
        maps = opened.reader.read_maps(np.array([match.id]))
        wanted, unwanted = (
            make_reference(asked, opened.extractor).for_scoring(torch.device("cpu"))
            for asked in (query, Query(twice, box=match.boxes[1]))
        )

        def highest_bar(unlike: list[ScoringReference]) -> float:
            """Of those under which there are two places, the highest."""
            passed = []
            for bar in np.linspace(0.5, 1.0, 26, dtype=np.float32):
                options = (np.array([0]), CONSISTENT, bar[None], unlike)
                found = localise(opened.reader, maps, [wanted], *options)
                if found.places[0].any(axis=1).sum() >= 2:
                    passed.append(float(bar))
            return max(passed)

        assert highest_bar([unwanted]) < highest_bar([]) - 0.02


def test_evidence_covers_as_many_places_as_are_asked_for() -> None:
    reference, candidates = photos([(9, 10), (2, 1)])
    tokens = ObjectTokens(reference, torch.zeros((0, 48)))
    for places in (1, 2):
        [seen] = resemblances(tokens, candidates, places)
        evidence = seen.evidence().reshape(SIDE, SIDE)
        assert evidence[9:12, 10:13].mean() > -0.1
        assert (evidence[2:5, 1:4].mean() > -0.1) == (places == 2)
