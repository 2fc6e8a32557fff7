"""Query expansion: the first matches show the object too, so they are asked with as well.

One photo shows the object from one side. Its first matches often show it from others, and what
resembles these too is more likely to be the object (Chum et al., "Total Recall", ICCV 2007).
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.codec.tokens import TokenMap
from indexer.collection import Collection
from search.clock import Clock
from search.ranking.localise import distance_to_object, object_cells
from search.scoring.candidates import CandidateMaps, ScoringReference, to_candidates
from search.scoring.confidence import MINIMUM_PHOTOS
from search.scoring.rerank import score_references
from search.scoring.scores import Score

if TYPE_CHECKING:
    import torch

# Matches that ask, the weight of the first beside that of the query, which is 1, and the power by
# which a second counts less (docs/scores.md). With more weight, a wrong match drags in more wrong
# ones.
_ASKING = 2
_WEIGHT = np.float32(0.35)
_POWER = 4

# Among this many of the best photos, those that ask are looked for: copies of the query's photo,
# which tell nothing new, come before them.
_LOOKED_AT = 20


@dataclass(frozen=True)
class Asking:
    """The matches that ask, m of at most 2.

    rows: (m,) int64, their places among the candidates. weights: (m,) float32, beside the weight 1
    of the query: 0.35 times (s - median) / (best - median) to the power of 4, where the median is
    that of all candidates' scores s, and the best is the first match. So a second match that is far
    behind the first hardly counts.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float32]


def asking_matches(scores: NDArray[np.float32], best_first: Sequence[int]) -> Asking:
    """The matches that ask; none where fewer than 20 photos are compared.

    scores: (n,), of all candidates. best_first: places of the photos that may ask, best first.
    """
    rows = np.array(best_first[:_ASKING], dtype=np.int64)
    median = np.median(scores) if len(scores) else np.float32(0)
    # Without a spread nothing tells a match from the other photos.
    if len(scores) < MINIMUM_PHOTOS or len(rows) == 0 or scores[rows[0]] <= median:
        return Asking(rows[:0], np.empty(0, dtype=np.float32))
    above = (scores[rows] - median) / (scores[rows[0]] - median)
    return Asking(rows, (_WEIGHT * above.clip(min=0) ** _POWER).astype(np.float32))


def expand(
    reader: Collection,
    ids: NDArray[np.int64],
    wanted: NDArray[np.float32],
    scores: NDArray[np.float32],
    references: Sequence[ScoringReference],
    own: Set[str],
    score: Score,
    clock: Clock,
) -> NDArray[np.float32]:
    """Scores by the query and by its first matches, (n,) float32: their weighted mean.

    A match is asked with as a photo of the query is: by the cells at which the object was found in
    it. It does not vouch for itself: in place of its likeness to itself, what counts is how well
    the query's object is found by it. Scores that are means over the map stay as they are.

    ids: (n,), the candidates. wanted: (r, n), their scores by each reference. scores: (n,), by
    which the first matches are chosen. references: the object in each of the query's photos. own:
    content hashes of these photos. clock: gets the stage "expand".
    """
    best: NDArray[np.float32] = wanted.max(axis=0)
    if score.recall != "words":
        return best
    with clock("expand"):
        order = np.lexsort((ids, -scores))[:_LOOKED_AT]
        records = zip(order.tolist(), reader.photos(ids[order]), strict=True)
        asking = asking_matches(
            scores, [row for row, record in records if record.content_hash not in own]
        )
        if len(asking.rows) == 0:
            return best
        likest = wanted.argmax(axis=0)[asking.rows]
        shown = [references[number] for number in likest]
        matches, by_query = _as_references(reader, ids[asking.rows], shown, score)
    asked = score_references(reader, ids, matches, [score], clock, stage="expand")
    if asked.damaged or len(matches) < len(shown):  # since these maps were read the first time
        return best
    by_match = asked.by_score[score.name]
    by_match[np.arange(len(matches)), asking.rows] = by_query
    weights = asking.weights[:, None]
    total = best + (weights * by_match).sum(axis=0)
    expanded: NDArray[np.float32] = total / (1 + weights.sum())
    return expanded


def _as_references(
    reader: Collection,
    ids: NDArray[np.int64],
    shown: Sequence[ScoringReference],
    score: Score,
) -> tuple[list[ScoringReference], NDArray[np.float32]]:
    """Matches as references, and the score of the query's object by each, (m,) float32.

    shown: for each match, the reference that it resembles most. Matches whose maps are damaged are
    left out.
    """
    import torch

    matches, by_query = [], np.zeros(len(ids), dtype=np.float32)
    with torch.inference_mode():
        for row, (number, reference) in enumerate(zip(ids.tolist(), shown, strict=True)):
            maps = reader.read_maps([number])
            if maps.damaged:
                continue
            candidate = to_candidates(reader, maps, [reference])
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
