"""What a search found."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from search.query import Query, SearchOptions
from search.reference import Reference


@dataclass(frozen=True)
class Pair:
    """A place of the object in its reference photo, and the place of a match that is most like it.

    query, match: (x, y) in pixels of each upright photo, the centres of two cells. similarity:
    the centred cosine of these cells' appearance, at most 1.
    """

    query: tuple[float, float]
    match: tuple[float, float]
    similarity: float


@dataclass(frozen=True)
class Match:
    """One photo of the collection, as an answer.

    rank: from 1. path: the file. id: its id in the index. score: decides the rank, higher is
    better; by the query and its first matches (`expansion`). recall_score: what recall ranked by:
    the inner product that is mean(S_DF) of PDM Eq. 7, the similarity of visual words, or the cosine
    of descriptors. confidence: 0..1, the estimated precision at the photo's score by the query
    alone, so it may rise from one rank to the next; None where there are too few photos to
    estimate it. probability: 0..1, how likely this photo is to show the object; None there too, and
    by scores that are means over the map. boxes: [x0, y0, x1, y1] around each instance of the
    object in the photo, best first, at least one; pixels of the upright photo. box: the first.
    heatmap: (grid, grid) float32, the score's evidence by cell. frame: maps cells to pixels.
    is_query: the file is the reference photo itself or an exact copy of it.
    reference: which of the answer's references the photo resembles most.
    copies: other files of the index with the same content; they are no matches of their own.
    changed: the file has another content than when it was indexed, which is what was compared.
    pairs: what the photo shares with the object in that reference: at most 20 pairs of cells that
    are alike and lie in `box` as they do in the reference, most similar first
    (`search.ranking.pairs`).
    """

    rank: int
    path: Path
    id: int
    score: float
    recall_score: float
    confidence: float | None
    boxes: tuple[tuple[int, int, int, int], ...]
    heatmap: NDArray[np.float32]
    frame: Frame
    is_query: bool
    reference: int
    copies: tuple[Path, ...] = ()
    changed: bool = False
    probability: float | None = None
    pairs: tuple[Pair, ...] = ()

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.boxes[0]


@dataclass(frozen=True)
class Answer:
    """What a query found.

    query, options: as asked. references: the object in the query's photo, then in those of `also`.
    matches: best first. best_confidence: the highest confidence of a photo other than the reference
    photo, whether or not it is among the matches; None where it cannot be estimated.
    n_photos: the size of the collection.
    damaged: one line for each stored row that is damaged and was left out, and one where photos
    lack the descriptor that recall uses.
    timing: seconds by stage: extract, recall, fetch, score, expand, localise, total.
    """

    query: Query
    options: SearchOptions
    references: tuple[Reference, ...]
    matches: list[Match]
    best_confidence: float | None
    n_photos: int
    damaged: list[str]
    timing: dict[str, float]

    @property
    def found(self) -> bool | None:
        """Whether a photo other than the reference photo reached the confidence asked for; None
        where none was asked for.
        """
        least = self.options.min_confidence
        return None if least is None else (self.best_confidence or 0.0) >= least
