"""The masks of a query's matches, at all their places, from the maps of the index."""

from collections.abc import Callable

import numpy as np

from features.errors import PhotoError
from indexer.errors import IndexDamagedError
from search.candidates import to_candidates
from search.index import Index
from search.query import Answer, Match
from search.segmentation.segment import ObjectTokens, Segmentation, load_picture, segment


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
