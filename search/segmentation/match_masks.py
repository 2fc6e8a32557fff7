"""The masks of a query's matches, at all their places, from the maps of the index."""

from collections.abc import Callable

import numpy as np

from features.errors import PhotoError
from indexer.errors import IndexDamagedError
from search.index import Index
from search.query import Answer, Match
from search.rerank import to_candidates
from search.scores import consistent
from search.segmentation.segment import ObjectTokens, Segmentation, load_picture, segment


def segment_match(index: Index, answer: Answer) -> Callable[[Match], Segmentation]:
    """What finds the object in matches of an answer, seen by the reference that is likest.

    It raises PhotoError for a photo that is gone, broken, or of another size than when it was
    indexed, and IndexDamagedError for maps that cannot be read.
    """
    device = index.extractor.model.device
    asked = (answer.query, *answer.query.also)
    tokens = [ObjectTokens.of(index.reference(query), device) for query in asked]
    scoring = [each.scoring for each in tokens]

    def segmented(match: Match) -> Segmentation:
        picture = load_picture(match.path)
        frame = match.frame
        if abs(picture.height - picture.width * frame.height / frame.width) > 1:
            raise PhotoError(f"{match.path}: was changed since it was indexed; index it again")
        maps = index.reader.read_maps(np.array([match.id]))
        if len(maps.ids) == 0:
            raise IndexDamagedError(maps.damaged[0])
        candidates = to_candidates(index.reader, maps, scoring)
        likest = int(np.argmax([float(consistent(each, candidates)) for each in scoring]))
        places = len(match.boxes)
        return segment(tokens[likest], candidates, [frame], [picture], places=places)[0]

    return segmented
