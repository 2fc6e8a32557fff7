"""Query expansion: the first matches show the object too, so they are asked with as well.

One photo shows the object from one side. Its first matches often show it from others, and what
resembles these too is more likely to be the object (Chum et al., "Total Recall", ICCV 2007). They
also tell which cells of the query are the object: background is not found again in other photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.codec.tokens import TokenMap
from indexer.reader import IndexReader, MapBatch
from search.candidates import CandidateMaps, ScoringReference, scoring_blocks, to_candidates
from search.clock import Clock
from search.confidence import MINIMUM_PHOTOS
from search.localise import distance_to_object, object_cells
from search.reference import Reference
from search.rerank import score_references
from search.scores import Score

if TYPE_CHECKING:
    import torch

# Matches that ask, the weight of the first beside that of the query, which is 1, and the power by
# which a second counts less (docs/scores.md). With more weight, a wrong match drags in more wrong
# ones.
_ASKING = 2
_WEIGHT = np.float32(0.35)
_POWER = 4

# The weight of the query's shared cells beside that of all its cells, which is 1.
_SHARED_WEIGHT = np.float32(2)

# Among this many of the best photos, those that ask are looked for: copies of the query's photo,
# which tell nothing new, come before them.
_LOOKED_AT = 20


@dataclass(frozen=True)
class _Asking:
    """What asks beside the query.

    refined: the query by the cells that it shares with matches, for each of the references
    `inexact`. matches: the object in m photos, m >= 1. rows: (m,), their places among the
    candidates. by_shown: (m,) float32, how well each finds the query's object.
    """

    refined: list[ScoringReference]
    inexact: list[int]
    matches: list[ScoringReference]
    rows: NDArray[np.intp]
    by_shown: NDArray[np.float32]


def expand(
    reader: IndexReader,
    ids: NDArray[np.int64],
    wanted: NDArray[np.float32],
    scores: NDArray[np.float32],
    references: Sequence[Reference],
    score: Score,
    device: "torch.device",
    clock: Clock,
) -> NDArray[np.float32]:
    """Scores by the query and by its first matches, (n,) float32: their weighted mean.

    First the query is refined: it asks again by those of its cells at which one of the first two
    matches finds the object, unless these are the cells of a mask. The best photos are put in order
    by the refined query. The first two of these ask, by the cells at which the refined query finds
    the object. A match does not vouch for itself: in place of its likeness to itself, what counts
    is how well the query's object is found by it. Scores that are means over the map stay as they
    are, and so do all with fewer than 20 photos or without a match that stands out.

    ids: (n,), the candidates. wanted: (r, n), their scores by each reference. scores: (n,), the
    best of these less what is lost by likeness to unwanted objects; first matches are chosen by it.
    references: the object in each of the query's photos. device: of the scores. clock: gets the
    stage "expand".
    """
    import torch

    best: NDArray[np.float32] = wanted.max(axis=0)
    if score.recall != "words" or len(ids) < MINIMUM_PHOTOS:
        return best
    with clock("expand"), torch.inference_mode():
        asking = _choose(reader, ids, wanted, scores, references, score, device)
    if asking is None:
        return best
    every = [*asking.refined, *asking.matches]
    asked = score_references(reader, ids, every, [score], clock, stage="expand")
    if asked.damaged:  # since these maps were read the first time
        return best
    by_refined, by_match = np.split(asked.by_score[score.name], [len(asking.refined)])
    by_match[np.arange(len(asking.rows)), asking.rows] = asking.by_shown
    by_photo = wanted.copy()
    by_photo[asking.inexact] += _SHARED_WEIGHT * by_refined
    by_photo[asking.inexact] /= 1 + _SHARED_WEIGHT
    by_query = by_photo.max(axis=0)
    weights = asking_weights(by_query - (best - scores), asking.rows)[:, None]
    total = by_query + (weights * by_match).sum(axis=0)
    expanded: NDArray[np.float32] = total / (1 + weights.sum())
    return expanded


def _choose(
    reader: IndexReader,
    ids: NDArray[np.int64],
    wanted: NDArray[np.float32],
    scores: NDArray[np.float32],
    references: Sequence[Reference],
    score: Score,
    device: "torch.device",
) -> _Asking | None:
    """What asks beside the query, as `expand` takes it; None where no match stands out."""
    first = _first_photos(reader, ids, scores, references)
    if len(first) == 0 or scores[first[0]] <= np.median(scores):
        return None
    maps = reader.read_maps(ids[first])
    if maps.damaged:  # since they were read the first time
        return None
    prepared = [reference.for_scoring(device) for reference in references]
    shown = [prepared[number] for number in wanted[:, first].argmax(axis=0)]
    matches, _ = _as_references(reader, maps, shown[:_ASKING], score)
    inexact = [number for number, reference in enumerate(references) if not reference.exact]
    like = to_candidates(reader, maps.rows(slice(1)), matches)
    for number in inexact:
        prepared[number] = refined_reference(references[number], matches, like, score)
    refined = [prepared[number] for number in inexact]
    again = wanted[:, first]
    again[inexact] = _score(reader, maps, refined, score)
    lost = (wanted.max(axis=0) - scores)[first]
    order = np.argsort(lost - again.max(axis=0), kind="stable")[:_ASKING]
    shown = [prepared[number] for number in again[:, order].argmax(axis=0)]
    matches, by_shown = _as_references(reader, maps.rows(order), shown, score)
    return _Asking(refined, inexact, matches, first[order], by_shown)


def asking_weights(scores: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """The weights of matches that ask, beside the weight 1 of the query, (m,) float32.

    0.35 times (s - median) / (first - median) to the power of 4, where the median is that of all
    candidates' scores s, and `first` is the score of the first match: a second that is far behind
    hardly counts. scores: (n,). rows: (m,), places of the matches among the candidates, m >= 1.
    """
    above = scores[rows] - np.median(scores)
    # Without a spread nothing tells a match from the other photos.
    if above[0] <= 0:
        return np.zeros(len(rows), dtype=np.float32)
    return (_WEIGHT * (above / above[0]).clip(0, 1) ** _POWER).astype(np.float32)


def _first_photos(
    reader: IndexReader,
    ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    references: Sequence[Reference],
) -> NDArray[np.intp]:
    """Places of the best 20 photos among the candidates, best first, without copies of the
    query's.
    """
    own = {reference.maps.content_hash for reference in references}
    order = np.lexsort((ids, -scores))[:_LOOKED_AT]
    new = [record.content_hash not in own for record in reader.photos(ids[order])]
    return order[np.array(new, dtype=bool)]


def _as_references(
    reader: IndexReader, maps: MapBatch, shown: Sequence[ScoringReference], score: Score
) -> tuple[list[ScoringReference], NDArray[np.float32]]:
    """The first photos as references, and the score of the query's object by each, (m,) float32.

    maps: of at least m photos. shown: for each of m, the reference that it resembles most.
    """
    matches, by_query = [], np.empty(len(shown), dtype=np.float32)
    for row, reference in enumerate(shown):
        candidate = to_candidates(reader, maps.rows(np.array([row])), [reference])
        match = _found_object(reference, candidate, score, reader.grid)
        matches.append(match)
        query = _as_candidate(reference, candidate, reader.grid)
        by_query[row] = float(score.function(match, query))
    return matches, by_query


def _found_object(
    reference: ScoringReference, candidate: CandidateMaps, score: Score, grid: int
) -> ScoringReference:
    """The object in a single candidate, at the cells where it is found."""
    import torch

    heat = score.heat(reference, candidate)
    [cells] = object_cells(candidate, distance_to_object(reference, candidate), heat)
    places = cells.nonzero().squeeze(1)
    return ScoringReference(
        tokens=candidate.appearance.decode()[0, places],
        semantic=candidate.semantic.decode()[0, places],
        class_vector=reference.class_vector,
        positions=torch.stack([places // grid, places % grid], dim=1).float(),
    )


def refined_reference(
    query: Reference, matches: Sequence[ScoringReference], like: CandidateMaps, score: Score
) -> ScoringReference:
    """The query by those of its cells at which a match finds the object; by all where none does.

    like: gives the collection's means and the device.
    """
    import torch

    device = like.valid.device

    def plain(values: NDArray[np.float16], of: TokenMap) -> TokenMap:
        tokens = torch.from_numpy(values.astype(np.float32)).to(device)
        return TokenMap.plain(tokens.flatten(0, 1)[None], of.mean)

    photo = replace(
        like,
        appearance=plain(query.maps.appearance, like.appearance),
        semantic=plain(query.maps.semantic, like.semantic),
        valid=torch.from_numpy(query.maps.frame.valid()).flatten()[None].to(device),
    )
    found = np.zeros_like(query.cells)
    for match in matches:
        cells = object_cells(photo, distance_to_object(match, photo), score.heat(match, photo))
        found |= cells.cpu().numpy().reshape(found.shape)
    shared = query.cells & found
    return (replace(query, cells=shared) if shared.any() else query).for_scoring(device)


def _as_candidate(reference: ScoringReference, like: CandidateMaps, grid: int) -> CandidateMaps:
    """The object of a reference as a candidate, of which no other cell counts.

    like: gives the collection's means.
    """
    places = (reference.positions @ reference.positions.new_tensor([grid, 1])).long()
    valid = like.valid.new_zeros(1, grid**2)
    valid[0, places] = True

    def plain(tokens: "torch.Tensor", of: TokenMap) -> TokenMap:
        spread = tokens.new_zeros(1, grid**2, tokens.shape[1])
        spread[0, places] = tokens
        return TokenMap.plain(spread, of.mean)

    return replace(
        like,
        appearance=plain(reference.tokens, like.appearance),
        semantic=plain(reference.semantic, like.semantic),
        valid=valid,
        references=(),
    )


def _score(
    reader: IndexReader, maps: MapBatch, references: Sequence[ScoringReference], score: Score
) -> NDArray[np.float32]:
    """Scores of a few photos, (n_references, n) float32."""
    scores = np.empty((len(references), len(maps.ids)), dtype=np.float32)
    if references:
        for rows, candidates in scoring_blocks(reader, maps, references):
            for number, reference in enumerate(references):
                scores[number, rows] = score.function(reference, candidates).cpu().numpy()
    return scores
