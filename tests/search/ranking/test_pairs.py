"""Pairs of cells behind a match: against naive loops, and in photos of a search."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from features.extractor import FeatureExtractor
from indexer.codec.tokens import TokenMap
from indexer.ingest.build import index_photos
from search.index import open_index
from search.query import Query, SearchOptions
from search.ranking.pairs import MOST_PAIRS, strongest_pairs
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.hough import SCALES
from tests.helpers.pictures import smooth_pixels

SIDE = 12

# A naive pair: the token, its row and column, those of its cell, and their cosine.
Naive = tuple[int, tuple[float, float], tuple[int, int], float]


def random_object(rng: np.random.Generator) -> tuple[ScoringReference, CandidateMaps]:
    """Some cells of an object, and three photos: at random, with the object moved, and larger."""
    n = int(rng.integers(1, 50))
    own = rng.choice(SIDE**2 // 2, n, replace=False)
    positions = np.stack([own // SIDE, own % SIDE], axis=1)
    tokens = rng.normal(size=(n, 16))
    photos = 0.5 * rng.normal(size=(3, SIDE, SIDE, 16))
    for photo, scale, shift in ((1, 1.0, 2), (2, 1.4, 0)):
        places = np.minimum(np.round(scale * positions).astype(int) + shift, SIDE - 1)
        photos[photo, places[:, 0], places[:, 1]] += tokens
    valid = np.ones((3, SIDE, SIDE), dtype=bool)
    valid[0, -2:] = False
    as_tensor = torch.from_numpy(tokens).float()
    maps = TokenMap.plain(torch.from_numpy(photos).float().flatten(1, 2), torch.zeros(16))
    reference = ScoringReference(as_tensor, as_tensor, None, torch.from_numpy(positions).float())
    return reference, CandidateMaps(maps, maps, torch.from_numpy(valid).flatten(1))


def voted_places(
    found: list[tuple[int, int]], cosines: list[float], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where each token should be, by the most votes; votes are counted in a loop."""
    offsets = positions - np.round(positions.mean(axis=0))
    most, winner = -np.inf, np.zeros_like(offsets)
    for scale in SCALES:
        for centre in np.ndindex(SIDE, SIDE):
            places = np.array(centre) + scale * offsets
            apart = ((np.array(found) - places) ** 2).sum(axis=1)
            votes = float((np.array(cosines) * np.exp(-apart / 2)).sum())
            if votes > most:
                most, winner = votes, places
    return winner


def naive_pairs(
    tokens: NDArray[np.float64],
    positions: NDArray[np.float64],
    photo: NDArray[np.float64],
    valid: NDArray[np.bool_],
) -> list[Naive]:
    best: list[Naive] = []
    for number, token in enumerate(tokens):
        cosines = {
            (row, column): float(
                photo[row, column]
                @ token
                / np.linalg.norm(photo[row, column])
                / np.linalg.norm(token)
            )
            for row, column in np.argwhere(valid).tolist()
        }
        cell = max(cosines, key=lambda at: cosines[at])
        best.append((number, tuple(positions[number].tolist()), cell, cosines[cell]))
    places = voted_places([b[2] for b in best], [b[3] for b in best], positions)
    left = [b for b in best if sum((np.array(b[2]) - places[b[0]]) ** 2) <= 4.0]
    room = len(left) / MOST_PAIRS
    chosen: list[Naive] = []
    while left and len(chosen) < MOST_PAIRS:

        def crowd(pair: Naive) -> int:
            return sum(
                pair[2] == other[2]
                or (pair[1][0] - other[1][0]) ** 2 + (pair[1][1] - other[1][1]) ** 2 < room
                for other in chosen
            )

        chosen.append(min(left, key=lambda pair: (crowd(pair), -pair[3])))
        left.remove(chosen[-1])
    return sorted(chosen, key=lambda pair: -pair[3])


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_pairs_equal_those_of_naive_loops(seed: int) -> None:
    reference, candidates = random_object(np.random.default_rng(seed))
    maps = candidates.appearance.decode().double().numpy().reshape(3, SIDE, SIDE, -1)
    tokens, positions = reference.tokens.double().numpy(), reference.positions.double().numpy()
    for photo, found in enumerate(strongest_pairs(reference, candidates)):
        valid = candidates.valid[photo].numpy().reshape(SIDE, SIDE)
        expected = naive_pairs(tokens, positions, maps[photo], valid)
        assert [(tuple(p.token), tuple(p.cell)) for p in found] == [p[1:3] for p in expected]
        assert [p.similarity for p in found] == pytest.approx([p[3] for p in expected], abs=1e-5)


def whole_object(photo: NDArray[np.float64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Tokens and cells of the pairs where the object is 8 x 8 cells, and the photo as given."""
    rng = np.random.default_rng(2)
    tokens = torch.from_numpy(rng.normal(size=(64, 32))).float()
    positions = torch.tensor([[row, column] for row in range(8) for column in range(8)]).float()
    cells = torch.from_numpy(photo).float()
    cells[0, 3:11, 2:10] += tokens.reshape(8, 8, 32)
    maps = TokenMap.plain(cells.flatten(1, 2), torch.zeros(32))
    valid = torch.ones((1, SIDE**2), dtype=torch.bool)
    candidates = CandidateMaps(maps, maps, valid)
    [pairs] = strongest_pairs(ScoringReference(tokens, tokens, None, positions), candidates)
    return [(np.array(pair.token), np.array(pair.cell)) for pair in pairs]


def test_pairs_are_spread_over_the_object() -> None:
    rng = np.random.default_rng(7)
    noise = 0.4 * rng.normal(size=(1, SIDE, SIDE, 32))
    noise[0, 3:6, 2:5] = 0  # nine cells of the object that are clearer than all others
    pairs = whole_object(noise)
    assert len(pairs) == MOST_PAIRS
    for token, cell in pairs:
        np.testing.assert_array_equal(cell - token, [3, 2])
    quarters = {(int(row) // 4, int(column) // 4) for (row, column), _ in pairs}
    assert quarters == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert sum(row < 3 and column < 3 for (row, column), _ in pairs) < 9


def test_cells_that_are_alike_elsewhere_are_no_pairs() -> None:
    photo = 0.1 * np.random.default_rng(7).normal(size=(1, SIDE, SIDE, 32))
    first = np.random.default_rng(2).normal(size=(64, 32))[0]
    photo[0, 3, 2] -= first  # where the first token should be, it is not
    photo[0, 11, 11] = first
    pairs = whole_object(photo)
    assert len(pairs) == MOST_PAIRS
    assert all(cell.tolist() != [11, 11] for _, cell in pairs)


@pytest.mark.parametrize("score", ["consistent", "mutual", "pdm"])
def test_a_match_shows_which_places_are_alike(
    tmp_path: Path, small_tiny: FeatureExtractor, score: str
) -> None:
    """The reference is the left half of a photo; the other photo shows it in its right half."""
    pixels, other = smooth_pixels(256, 128, seed=1), smooth_pixels(256, 128, seed=4).copy()
    other[:, 128:] = pixels[:, :128]
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(pixels).save(photos / "asked.png")
    Image.fromarray(other).save(photos / "found.png")
    index_photos([photos], tmp_path / "two.waldo", small_tiny, quality="none")
    with open_index(tmp_path / "two.waldo") as index:
        query = Query(photos / "asked.png", box=(16, 16, 112, 112))
        matches = index.search(query, SearchOptions(score=score)).matches
    by_name = {match.path.name: match for match in matches}
    for name, shift in (("asked.png", 0), ("found.png", 128)):
        pairs = by_name[name].pairs
        assert 8 <= len(pairs) <= MOST_PAIRS
        assert [p.similarity for p in pairs] == sorted((p.similarity for p in pairs), reverse=True)
        assert all(16 <= x <= 112 and 16 <= y <= 112 for x, y in (pair.query for pair in pairs))
        moved = [np.subtract(pair.match, pair.query) for pair in pairs]
        assert np.median(moved, axis=0) == pytest.approx([shift, 0], abs=8)
