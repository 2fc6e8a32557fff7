"""From a question to an answer: the data a query takes and gives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.frame import Frame
from features.regions import Box, Point
from indexer.store.filters import PhotoFilter
from search.scores import DEFAULT_SCORE


@dataclass(frozen=True)
class Query:
    """One object to look for.

    photo: the reference photo's file. class_name: what the object is, in words.
    mask: a file that is non-zero on the object. box: [x0, y0, x1, y1] and point: (x, y), in
    pixels of the upright photo. At most one of mask, box and point; one of them, or a class name,
    or both. also: the same object in other photos. unlike: other objects, which are not it.
    """

    photo: Path
    class_name: str | None = None
    mask: Path | None = None
    box: Box | None = None
    point: Point | None = None
    also: "tuple[Query, ...]" = ()
    unlike: "tuple[Query, ...]" = ()


@dataclass(frozen=True)
class SearchOptions:
    """top: matches to return. candidates: photos from recall that are re-ranked.

    score: the name of the re-ranking score. rerank: False keeps the order of recall.
    recall: the name of the index's descriptor that finds the candidates; None: the score's own way.
    filter: the photos that may be answered; None allows all. min_confidence: 0..1, matches of less
    are left out.
    """

    top: int = 20
    candidates: int = 400
    score: str = DEFAULT_SCORE
    rerank: bool = True
    recall: str | None = None
    filter: PhotoFilter | None = None
    min_confidence: float | None = None


@dataclass(frozen=True)
class Match:
    """One photo of the collection, as an answer.

    rank: from 1. path: the file. id: its id in the index. score: what the rank was decided by,
    higher is better. recall_score: what recall went by: the inner product that is mean(S_DF) of
    PDM Eq. 7, the nearness of visual words, or the cosine of descriptors.
    confidence: 0..1, how sure it is that this is no chance likeness; None where it cannot be told.
    boxes: [x0, y0, x1, y1] around the object at each place where the photo shows it, best first, at
    least one; pixels of the upright photo. box: the first.
    heatmap: (grid, grid) float32, the score's evidence by cell. frame: maps cells to pixels.
    is_query: the file is the reference photo itself or an exact copy of it.
    """

    rank: int
    path: Path
    id: int
    score: float
    recall_score: float | None
    confidence: float | None
    boxes: tuple[tuple[int, int, int, int], ...]
    heatmap: NDArray[np.float32]
    frame: Frame
    is_query: bool

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.boxes[0]


@dataclass(frozen=True)
class Answer:
    """What a query found.

    query, options: as asked. reference_cells: (grid, grid) bool, the cells taken as the object.
    frame: the reference photo's. matches: best first. best_confidence: of the best photo that is
    not the reference photo itself, among the matches or not; None where it cannot be told.
    n_photos: size of the collection.
    damaged: one line for each stored row that could not be trusted and was left out, and one where
    photos lack the descriptor that recall goes by.
    timing: seconds by stage: extract, recall, fetch, score, localise, total.
    """

    query: Query
    options: SearchOptions
    reference_cells: NDArray[np.bool_]
    frame: Frame
    matches: list[Match]
    best_confidence: float | None
    n_photos: int
    damaged: list[str]
    timing: dict[str, float]

    @property
    def found(self) -> bool | None:
        """Whether a photo other than the reference reached the confidence asked for; None where
        none was asked for.
        """
        least = self.options.min_confidence
        return None if least is None else (self.best_confidence or 0.0) >= least
