"""The masks of a query's matches, at all their places, and boxes around them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from features.errors import PhotoError, WaldoError
from features.frame import Frame
from indexer.collection import Collection
from indexer.errors import IndexDamagedError
from search.answer import Match
from search.reference import Reference
from search.scoring.candidates import CandidateMaps, to_candidates
from search.scoring.confidence import POSSIBLE
from search.segmentation.graph_cut import Cut, cut_part
from search.segmentation.segment import (
    ObjectTokens,
    Segmentation,
    box_around,
    load_picture,
    object_evidence,
    resemblances,
    segment,
)

if TYPE_CHECKING:
    import torch

Box = tuple[int, int, int, int]

# Matches that are looked at together: their photos are read while the masks of others are cut.
_THREADS = 3


def fit_boxes(
    reader: Collection,
    references: Sequence[Reference],
    device: "torch.device",
    matches: Sequence[Match],
) -> list[Match]:
    """The matches with boxes around their masks, for which their photos are opened.

    The object is looked for by the reference that the match resembles most. A match keeps its
    boxes, which are those of cells, where it may be chance; where its photo is gone, is broken or
    was changed since it was indexed; and where its maps are damaged.
    """
    tokens = [ObjectTokens.of(reference, device) for reference in references]
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(partial(_fit, reader, tokens), matches))


def _fit(reader: Collection, tokens: Sequence[ObjectTokens], match: Match) -> Match:
    if match.changed or (match.probability is not None and match.probability < POSSIBLE):
        return match
    known = tokens[match.reference]
    boxes = fit_in_photo(reader, known, match.id, match.path, match.frame, match.boxes)
    return replace(match, boxes=boxes)


def fit_in_photo(
    reader: Collection,
    tokens: ObjectTokens,
    number: int,
    photo: Path,
    frame: Frame,
    boxes: tuple[Box, ...],
) -> tuple[Box, ...]:
    """The boxes of cells in a photo, one for each place of the object, fitted to its mask.

    number: the photo's id. They stay as they are where the photo is gone or broken, where its maps
    are damaged, and where nothing in it resembles the object more than the background.
    """
    import torch

    try:
        picture, candidates = load_picture(photo), _candidates(reader, number, tokens)
    except WaldoError:
        return boxes
    with torch.inference_mode():
        [seen] = resemblances(tokens, candidates, len(boxes))
        cut = cut_part(object_evidence(seen, frame), frame, picture)
    return boxes if cut is None else boxes_in(cut, boxes)


def boxes_in(cut: Cut, boxes: Sequence[Box]) -> tuple[Box, ...]:
    """Each box of a photo fitted to the pixels of a mask that are nearer to it than to others.

    A box to which no pixel is nearest stays as it is.
    """
    mask, (left, top, right, bottom) = cut.mask, cut.part
    high, wide = (bottom - top) / mask.shape[0], (right - left) / mask.shape[1]
    columns = left + wide * (np.arange(mask.shape[1]) + 0.5)
    rows = top + high * (np.arange(mask.shape[0])[:, None] + 0.5)
    least, nearest = np.full(mask.shape, np.inf), np.zeros(mask.shape, dtype=np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes if len(boxes) > 1 else ()):
        across = np.maximum(np.maximum(x0 - columns, columns - x1), 0)
        down = np.maximum(np.maximum(y0 - rows, rows - y1), 0)
        away = across**2 + down**2
        nearest[away < least] = number
        least = np.minimum(least, away)
    fitted = []
    for number, box in enumerate(boxes):
        inside = box_around(mask & (nearest == number))
        if inside is None:
            fitted.append(box)
            continue
        # A pixel of the mask may be less than one of the photo.
        x0, y0 = int(left + wide * inside[0]), int(top + high * inside[1])
        x1, y1 = round(left + wide * inside[2]), round(top + high * inside[3])
        fitted.append((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
    return tuple(fitted)


def segment_matches(
    reader: Collection,
    references: Sequence[Reference],
    device: "torch.device",
    matches: Sequence[Match],
) -> Iterator[tuple[Match, Segmentation | WaldoError]]:
    """Each match, and where its photo shows the object, by the reference it resembles most.

    An error comes instead of a mask: PhotoError for a photo that is gone, is broken or was changed
    since it was indexed, IndexDamagedError for maps that cannot be read.
    """
    tokens = [ObjectTokens.of(reference, device) for reference in references]
    for match, picture in _pictures(matches):
        known = tokens[match.reference]
        try:
            seen = picture(), _candidates(reader, match.id, known)
        except WaldoError as error:
            yield match, error
        else:
            places = len(match.boxes)
            yield match, segment(known, seen[1], [match.frame], [seen[0]], places=places)[0]


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


def _candidates(reader: Collection, number: int, tokens: ObjectTokens) -> CandidateMaps:
    maps = reader.read_maps(np.array([number]))
    if len(maps.ids) == 0:
        raise IndexDamagedError(maps.damaged[0])
    return to_candidates(reader, maps, [tokens.scoring])
