"""Localisation: the votes against a naive loop, the cells against synthetic scenes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.codec.tokens import TokenMap
from search.ranking.localise import distance_to_object, object_cells
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.hough import SCALES, place
from search.scoring.scores import SCORES

SIDE = 16


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_votes_equal_a_naive_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    best = rng.uniform(-0.2, 1.0, (2, n))
    cells = rng.integers(0, SIDE**2, (2, n))
    positions = rng.integers(0, SIDE, (n, 2))
    found = place(
        torch.from_numpy(best).float(),
        torch.from_numpy(cells),
        torch.from_numpy(positions).float(),
        SIDE,
    )
    offsets = positions - np.round(positions.mean(axis=0))
    for photo in range(2):
        votes = {}
        for scale in SCALES:
            for row, column in np.ndindex(SIDE, SIDE):
                total = 0.0
                for token in range(n):
                    dy = cells[photo, token] // SIDE - scale * offsets[token, 0] - row
                    dx = cells[photo, token] % SIDE - scale * offsets[token, 1] - column
                    total += best[photo, token] * np.exp(-(dy**2 + dx**2) / 2)
                votes[scale, row, column] = total / n
        most = max(votes.values())
        assert found.agreement[photo].item() == pytest.approx(most, abs=1e-5)
        # The place has the highest number of votes; several places may.
        scale = min(SCALES, key=lambda s: abs(s - found.scale[photo].item()))
        centre = found.places[photo].numpy()[0] - scale * offsets[0]
        assert votes[scale, *np.round(centre).astype(int)] == pytest.approx(most, abs=1e-5)


def scene(places: np.ndarray, seed: int = 3) -> tuple[ScoringReference, CandidateMaps]:
    """An object of 4 x 3 different cells, and a photo that shows these cells at `places`.

    places: (12, 2), rows and columns. The photo's last four rows are padding.
    """
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy(rng.normal(size=(12, 32))).float()
    positions = torch.tensor([[row, column] for row in range(4) for column in range(3)]).float()
    photo = torch.from_numpy(0.3 * rng.normal(size=(1, SIDE**2, 32))).float()
    for token, (row, column) in zip(tokens, places, strict=True):
        photo[0, row * SIDE + column] = token
    valid = torch.ones((1, SIDE**2), dtype=torch.bool)
    valid[:, -4 * SIDE :] = False
    maps = TokenMap.plain(photo, torch.zeros(32))
    reference = ScoringReference(tokens, tokens, None, positions)
    return reference, CandidateMaps(maps, maps, valid)


def found_in(reference: ScoringReference, candidates: CandidateMaps) -> np.ndarray:
    heat = SCORES["consistent"].heat(reference, candidates)
    distance = distance_to_object(reference, candidates)
    return object_cells(candidates, distance, heat).numpy().reshape(SIDE, SIDE)


def test_the_cells_of_the_object_are_found() -> None:
    rows, columns = np.mgrid[5:9, 7:10]
    expected = np.zeros((SIDE, SIDE), dtype=bool)
    expected[5:9, 7:10] = True
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    np.testing.assert_array_equal(found_in(*scene(places)), expected)


def test_a_similar_cell_elsewhere_is_not_taken() -> None:
    rows, columns = np.mgrid[1:5, 1:4]
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    places[-1] = 10, 14  # one cell of the object, far away
    cells = found_in(*scene(places))
    assert cells[1:4, 1:4].all()
    assert not cells[6:].any()
    assert not cells[:, 6:].any()


def test_an_object_twice_as_large_is_covered_completely() -> None:
    rows, columns = np.mgrid[2:9:2, 4:9:2]
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    cells = found_in(*scene(places))
    assert all(cells[row, column] for row, column in places)
    assert not cells[11:].any()
    assert not cells[:, 11:].any()


def test_padding_is_never_the_object() -> None:
    rows, columns = np.mgrid[8:12, 6:9]
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    reference, candidates = scene(places)
    # A cell of the padding looks like the object.
    candidates.appearance.levels[0, 12 * SIDE + 7] = reference.tokens[0]
    cells = found_in(reference, candidates)
    assert cells[8:12, 6:9].all()
    assert not cells[12:].any()


def test_some_cells_are_found_where_votes_point_outside_the_photo() -> None:
    reference, candidates = scene(np.zeros((12, 2), dtype=int))
    far = ScoringReference(reference.tokens, reference.semantic, None, reference.positions * 100)
    assert found_in(far, candidates).any()
