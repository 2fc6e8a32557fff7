"""Coarse recall: the photos of an index that may show the object."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from features.errors import ModelError
from features.photo import Photo, load_photo
from features.vision.descriptors import ImageDescriptor
from indexer.collection import Collection
from search.query import Query
from search.reference import Reference
from search.scoring.scores import Score

# Finds the k best photos of those allowed (None: of all): ids (n,) and scores (n,), n <= k.
Recall = Callable[[int, NDArray[np.int64] | None], tuple[NDArray[np.int64], NDArray[np.float32]]]


@dataclass(frozen=True)
class Candidates:
    """The photos that recall found, best first.

    ids: (n,) int64. scores: (n,) float32, higher is better.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


def find_candidates(
    recalls: Sequence[Recall], k: int, allowed: NDArray[np.int64] | None
) -> Candidates:
    """The k most promising photos, each by the recall that scores it highest.

    recalls: one per reference photo. allowed: ids of the photos that may be found; None for all.
    """
    found: dict[int, float] = {}
    for recall in recalls:
        ids, scores = recall(k, allowed)
        for number, value in zip(ids.tolist(), scores.tolist(), strict=True):
            found[number] = max(value, found.get(number, -np.inf))
    best = sorted(found, key=lambda number: (-found[number], number))[:k]
    return Candidates(
        np.array(best, dtype=np.int64),
        np.array([found[number] for number in best], dtype=np.float32),
    )


def recall_by_maps(reader: Collection, reference: Reference, score: Score) -> Recall:
    """Recall as suits a score: by visual words, where the index has them, or by pooled vectors."""
    by_words = reader.word_recall if score.recall == "words" else None
    if by_words is None:
        return partial(reader.recall.search, reference.recall_vector())
    tokens = reference.tokens()
    # The parts of a fleet have one codec.
    return partial(by_words.search, cache(lambda codec: reader.words_in(tokens, codec)))


def recall_by_descriptor(
    reader: Collection, query: Query, reference: Reference, descriptor: ImageDescriptor
) -> Recall:
    """Recall by a global descriptor of what the query's photo shows of the object.

    Raises PhotoError for a broken photo, ModelError where the model gives no finite numbers.
    """
    vector = query_vector(query, reference, descriptor)
    return partial(reader.descriptor_recall(descriptor.name).search, vector)


def query_vector(
    query: Query, reference: Reference, descriptor: ImageDescriptor
) -> NDArray[np.float32]:
    """The descriptor of a query, (d,) float32: of the box around its region, or of the whole photo
    where only a class name says which object is meant.

    Raises as `recall_by_descriptor`.
    """
    [vector] = descriptor.describe([descriptor.prepare(_described_part(query, reference))])
    if not np.isfinite(vector).all():
        raise ModelError(f"{query.photo}: {descriptor.name} gave no finite numbers for it")
    return vector


def _described_part(query: Query, reference: Reference) -> Photo:
    """The part of a query's photo that is described."""
    frame = reference.maps.frame
    box = query.box
    if query.mask is not None or query.point is not None:
        box = frame.box_of(reference.cells)
    if box is None or box == (0, 0, frame.width, frame.height):
        return load_photo(query.photo, at_least=2 * frame.size)  # as when it is indexed
    photo = load_photo(query.photo)
    x0, y0, x1, y1 = floor(box[0]), floor(box[1]), ceil(box[2]), ceil(box[3])
    return replace(photo, image=photo.image.crop((x0, y0, x1, y1)), width=x1 - x0, height=y1 - y0)
