"""The masks of a query's matches, at all their places, and boxes around them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features.errors import PhotoError, WaldoError
from indexer.errors import IndexDamagedError
from search.candidates import to_candidates
from search.index import Index
from search.query import Answer, Match
from search.segmentation.segment import (
    ObjectTokens,
    Segmentation,
    box_around,
    load_picture,
    segment,
)

Box = tuple[int, int, int, int]


def segment_match(index: Index, answer: Answer) -> Callable[[Match], Segmentation]:
    """A function that finds the object in a match of an answer, by the reference it resembles most.

    The function raises PhotoError for a photo that is gone, is broken, or was changed since it was
    indexed, and IndexDamagedError for maps that cannot be read.
    """
    device = index.extractor.device
    tokens = [ObjectTokens.of(reference, device) for reference in answer.references]

    def segmented(match: Match) -> Segmentation:
        if match.changed:
            raise PhotoError(f"{match.path}: was changed since it was indexed; index it again")
        picture, frame = load_picture(match.path), match.frame
        maps = index.reader.read_maps(np.array([match.id]))
        if len(maps.ids) == 0:
            raise IndexDamagedError(maps.damaged[0])
        best = tokens[match.reference]
        candidates = to_candidates(index.reader, maps, [best.scoring])
        places = len(match.boxes)
        return segment(best, candidates, [frame], [picture], places=places)[0]

    return segmented


def fit_boxes(index: Index, answer: Answer) -> Answer:
    """The answer with the boxes of its matches around their masks, for which photos are opened.

    A match whose photo is gone, is broken or was changed keeps its boxes, which are those of cells.
    """
    segmented = segment_match(index, answer)

    def fitted(match: Match) -> Match:
        try:
            return replace(match, boxes=boxes_in(segmented(match).mask, match.boxes))
        except WaldoError:
            return match

    return replace(answer, matches=[fitted(match) for match in answer.matches])


def boxes_in(mask: NDArray[np.bool_], boxes: Sequence[Box]) -> tuple[Box, ...]:
    """Each box fitted to the pixels of a (height, width) mask that are nearer to it than to others.

    A box to which no pixel is nearest stays as it is.
    """
    columns, rows = np.arange(mask.shape[1]) + 0.5, np.arange(mask.shape[0])[:, None] + 0.5
    least, nearest = np.full(mask.shape, np.inf), np.zeros(mask.shape, dtype=np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes if len(boxes) > 1 else ()):
        across = np.maximum(np.maximum(x0 - columns, columns - x1), 0)
        down = np.maximum(np.maximum(y0 - rows, rows - y1), 0)
        away = across**2 + down**2
        nearest[away < least] = number
        least = np.minimum(least, away)
    return tuple(box_around(mask & (nearest == number)) or box for number, box in enumerate(boxes))
