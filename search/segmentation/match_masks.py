"""The masks of a query's matches, at all their places, and boxes around them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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


def segment_matches(
    index: Index, answer: Answer
) -> Iterator[tuple[Match, Segmentation | WaldoError]]:
    """Each match of an answer with boxes around its mask, and where its photo shows the object.

    The object is looked for by the reference that the match resembles most. A match keeps its
    boxes, which are those of cells, where an error comes instead: PhotoError for a photo that is
    gone, is broken or was changed since it was indexed, IndexDamagedError for maps that cannot be
    read.
    """
    device = index.extractor.device
    tokens = [ObjectTokens.of(reference, device) for reference in answer.references]
    for match, picture in _pictures(answer.matches):
        try:
            found = _segment(index, match, tokens[match.reference], picture())
        except WaldoError as error:
            yield match, error
        else:
            yield replace(match, boxes=boxes_in(found.mask, match.boxes)), found


def fit_boxes(index: Index, answer: Answer) -> Answer:
    """The answer with the boxes of its matches around their masks, for which photos are opened.

    A match whose photo is gone, is broken or was changed keeps its boxes.
    """
    return replace(answer, matches=[match for match, _ in segment_matches(index, answer)])


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


def _pictures(matches: Sequence[Match]) -> Iterator[tuple[Match, Callable[[], Image.Image]]]:
    """Each match with a function that gives its photo, or raises the error of reading it.

    A photo is decoded in a thread while the one before it is segmented.
    """
    with ThreadPoolExecutor(max_workers=1) as decoder:
        ahead: Future[Image.Image] | None = None
        for match, following in zip_longest(matches, matches[1:]):
            opened = ahead or decoder.submit(_open, match)
            ahead = None if following is None else decoder.submit(_open, following)
            yield match, opened.result


def _open(match: Match) -> Image.Image:
    if match.changed:
        raise PhotoError(f"{match.path}: was changed since it was indexed; index it again")
    return load_picture(match.path)


def _segment(
    index: Index, match: Match, tokens: ObjectTokens, picture: Image.Image
) -> Segmentation:
    maps = index.reader.read_maps(np.array([match.id]))
    if len(maps.ids) == 0:
        raise IndexDamagedError(maps.damaged[0])
    candidates = to_candidates(index.reader, maps, [tokens.scoring])
    places = len(match.boxes)
    return segment(tokens, candidates, [match.frame], [picture], places=places)[0]
