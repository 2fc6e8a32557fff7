"""One search over several indexes of the same photos, made by different models (late fusion).

Each model overlooks other photos than the next, so together they rank better than each alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from indexer.collection import Collection
from search.answer import Answer
from search.clock import Clock
from search.index import Index
from search.query import Query, SearchOptions
from search.ranking.candidate_ranking import Asked, Ranking
from search.recall import Candidates, find_candidates
from search.reference import Reference
from search.scoring.confidence import combined_heights, confidences, heights


def search_indexes(
    indexes: Sequence[Index], query: Query, options: SearchOptions | None = None
) -> Answer:
    """Rank photos by all of several indexes: `Index.search` of the first one, in which the others
    have a say.

    Every index recalls candidates, and each re-ranks those of all. A photo's score is its height
    above chance by the indexes that hold it (`confidence.combined_heights`), which does not depend
    on the scale of a model's scores; its confidence follows from it. There is no probability. Ids,
    boxes and pairs are those of the first index. Photos that it lacks cannot be matches; a line of
    `damaged` counts them.

    Where a class name or a name alone says what the object is, the other indexes are asked for the
    box of what the first one takes. indexes: at least one. Raises as `Index.search`, and WaldoError
    without re-ranking.
    """
    options = options or SearchOptions()
    first, *others = indexes
    if not others:
        return first.search(query, options)
    if not options.rerank:
        raise WaldoError("several indexes rank together by re-ranking; leave out --no-rerank")
    clock = Clock()
    asked = [first.ask(query, options, clock)]
    shown = _with_boxes(asked[0])
    asked += [index.ask(shown, options, clock) for index in others]
    found = [
        index.candidates(one, options, clock) for index, one in zip(indexes, asked, strict=True)
    ]
    with clock("recall"):
        contents = np.concatenate(
            [index.reader.hashes_of(one.ids) for index, one in zip(indexes, found, strict=True)]
        )
        found = [
            _of_contents(index.reader, one, candidates, contents)
            for index, one, candidates in zip(indexes, asked, found, strict=True)
        ]
    rankings = [
        index.rank(one, candidates, options, clock)
        for index, one, candidates in zip(indexes, asked, found, strict=True)
    ]
    fused = _fuse(rankings, [index.reader for index in indexes])
    return first.answer(asked[0], fused, options, clock)


def _with_boxes(asked: Asked) -> Query:
    """A query whose photos all show their objects by a region: where they do not, by the box of
    what was taken.
    """

    def shown(view: Query, reference: Reference) -> Query:
        alone = replace(view, also=(), unlike=(), of_name=None)
        if view.mask or view.box or view.point:
            return alone
        x0, y0, x1, y1 = map(float, reference.box)
        return replace(alone, box=(x0, y0, x1, y1))

    views = [shown(*pair) for pair in zip(asked.query.photos, asked.objects, strict=True)]
    count = len(asked.query.views)
    return replace(views[0], also=tuple(views[1:count]), unlike=tuple(views[count:]))


def _of_contents(
    reader: Collection, asked: Asked, found: Candidates, contents: NDArray[np.uint8]
) -> Candidates:
    """Candidates with those of other indexes. contents: (n, 32) uint8, the hashes of all."""
    ids = reader.ids if asked.allowed is None else asked.allowed
    wanted = ids[np.isin(_keys(reader.hashes_of(ids)), _keys(contents))]
    if len(wanted) == len(found.ids):
        return found
    return find_candidates(asked.recalls, len(wanted), wanted)


def _fuse(rankings: Sequence[Ranking], readers: Sequence[Collection]) -> Ranking:
    """The first ranking, ordered by what all say."""
    first = rankings[0]
    keys = [
        _keys(reader.hashes_of(ranking.ids))
        for reader, ranking in zip(readers, rankings, strict=True)
    ]
    shape = len(rankings), len(first.ids)
    scores, own, known = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    missing = []
    for row, (ranking, theirs, reader) in enumerate(zip(rankings, keys, readers, strict=True)):
        common, here, there = np.intersect1d(keys[0], theirs, return_indices=True)
        scores[row, here] = heights(ranking.scores)[there]
        own[row, here] = heights(ranking.own_scores)[there]
        known[row, here] = True
        if lacking := len(theirs) - len(common):
            missing.append(
                f"{readers[0].place}: lacks {lacking} of the photos that {reader.place} "
                "finds; index them here too"
            )
    together = combined_heights(scores, known)
    sure = confidences(combined_heights(own, known).astype(np.float32))
    order = np.lexsort((first.ids, -together))
    return Ranking(
        first.ids[order],
        together[order].astype(np.float32),
        first.own_scores[order],
        first.recall_scores[order],
        first.references[order],
        None if sure is None else sure[order],
        None,
        [*(line for ranking in rankings for line in ranking.damaged), *missing],
    )


def _keys(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first 8 bytes of SHA-256 hashes, (n, 32), which tell contents apart, (n,) uint64."""
    keys: NDArray[np.uint64] = np.ascontiguousarray(hashes[:, :8]).view(np.uint64)[:, 0]
    return keys
