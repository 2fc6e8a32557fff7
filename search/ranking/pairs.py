"""The pairs of cells, one of the reference and one of a candidate, that speak for a match."""

import math
from collections.abc import Sequence
from itertools import compress, starmap
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from search.answer import Pair
from search.scoring.candidates import CandidateMaps, ScoringReference

MOST_PAIRS = 20
# A pair agrees with the voted place where its cell is within this many cells of the token's own
# place there: two standard deviations of a vote.
_AGREEING = 2.0
# More than cosines can differ by: a pair that is crowded by chosen ones comes after those that are
# not; and one that does not agree, after all that do.
_CROWDED = np.float32(2)
_DISAGREES = np.float32(1e6)


class CellPair(NamedTuple):
    """A token of the reference and its most similar cell: [row, column] in each map, and the
    centred cosine of the two.
    """

    token: Sequence[int]
    cell: Sequence[int]
    similarity: float


def strongest_pairs(reference: ScoringReference, candidates: CandidateMaps) -> list[list[CellPair]]:
    """For each candidate at most 20 pairs of tokens with their best cells, most similar first.

    Only pairs count that agree with the place where the object is voted to be, within two cells. Of
    these the most similar are chosen, but spread over the object: a pair that is crowded by fewer
    chosen pairs comes first. One pair crowds another where both have the same cell, or where their
    tokens are nearer than they would be if 20 pairs were spread evenly. A candidate has no pair
    where no best cell agrees, which is rare.
    """
    side = math.isqrt(candidates.valid.shape[1])
    best, cells = (values.cpu().numpy() for values in candidates.best(reference))
    places = candidates.placement(reference).places.cpu().numpy()
    positions = reference.positions.cpu().numpy()
    found = np.stack([cells // side, cells % side], axis=2)
    agrees = np.square(found - places).sum(axis=2) <= _AGREEING**2
    tokens = _spread(best, agrees, cells, positions)
    chosen = np.take_along_axis(agrees, tokens, axis=1)
    numbers = zip(
        positions.astype(int)[tokens].tolist(),
        np.take_along_axis(found, tokens[:, :, None], axis=1).tolist(),
        np.take_along_axis(best, tokens, axis=1).tolist(),
        strict=True,
    )
    pairs = [list(starmap(CellPair, zip(*each, strict=True))) for each in numbers]
    return [
        sorted(compress(each, agreeing), key=lambda pair: -pair.similarity)
        for each, agreeing in zip(pairs, chosen, strict=True)
    ]


def _spread(
    best: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    cells: NDArray[np.int64],
    positions: NDArray[np.float32],
) -> NDArray[np.int64]:
    """The tokens of at most 20 pairs in each candidate, (batch, at most 20) int64; those that do
    not agree are chosen last.

    best, agrees, cells: (batch, n). positions: (n, 2), row and column of each token.
    """
    # The cells for each of 20 pairs: the square of how far apart they can be.
    room = agrees.sum(axis=1, keepdims=True) / MOST_PAIRS
    rows, columns = positions.T
    left = best - _DISAGREES * ~agrees
    tokens = np.empty((len(best), min(MOST_PAIRS, best.shape[1])), dtype=np.int64)
    for number in range(tokens.shape[1]):
        token = left.argmax(axis=1)[:, None]
        apart = np.square(rows[token] - rows) + np.square(columns[token] - columns)
        crowded = (apart < room) | (cells == np.take_along_axis(cells, token, axis=1))
        left -= _CROWDED * crowded
        np.put_along_axis(left, token, -np.inf, axis=1)
        tokens[:, number] = token[:, 0]
    return tokens


def in_pixels(pairs: Sequence[CellPair], reference: Frame, candidate: Frame) -> tuple[Pair, ...]:
    """Pairs of cells as pairs of their centres, in pixels of the two photos."""
    return tuple(
        Pair(reference.centre_of(*pair.token), candidate.centre_of(*pair.cell), pair.similarity)
        for pair in pairs
    )
