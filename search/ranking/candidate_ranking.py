"""Candidates re-ranked: their scores by full maps, and how sure each is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from indexer.collection import Collection
from search.clock import Clock
from search.query import Query
from search.ranking.expansion import expand
from search.recall import Candidates, Recall
from search.reference import Reference
from search.scoring.candidates import ScoringReference
from search.scoring.confidence import MINIMUM_PHOTOS, confidences, probabilities
from search.scoring.rerank import combine, score_references
from search.scoring.scores import Score


@dataclass(frozen=True)
class Asked:
    """A query in features, and what is searched for it.

    query: without names. objects: what was taken in each of its photos: in those of the object, and
    then in those of what it is not. prepared, unlike: the two on the scoring device. score: bound
    to the index's weights.
    recalls: one per reference. allowed: ids of the photos that are searched, (n,) int64; None for
    all. searched: how many these are.
    """

    query: Query
    objects: tuple[Reference, ...]
    prepared: list[ScoringReference]
    unlike: list[ScoringReference]
    score: Score
    recalls: Sequence[Recall]
    allowed: NDArray[np.int64] | None
    searched: int

    @property
    def references(self) -> tuple[Reference, ...]:
        """The object, in each of its photos."""
        return self.objects[: len(self.query.views)]

    @property
    def hashes(self) -> set[str]:
        """The content hashes of the photos that show the object."""
        return {reference.maps.content_hash for reference in self.references}


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order of their final scores, best first.

    ids: (n,) int64. scores: (n,) float32. own_scores: (n,) float32, by the query's photos without
    its first matches. recall_scores: (n,) float32, by recall.
    references: (n,) int64, the number of the reference that each photo resembles most.
    confidences, probabilities: (n,) float64, or None where they cannot be estimated.
    damaged: a line for each candidate that was left out.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    own_scores: NDArray[np.float32]
    recall_scores: NDArray[np.float32]
    references: NDArray[np.int64]
    confidences: NDArray[np.float64] | None
    probabilities: NDArray[np.float64] | None
    damaged: list[str]


def keep_recall(candidates: Candidates) -> Ranking:
    """Candidates in the order of recall."""
    first = np.zeros(len(candidates.ids), dtype=np.int64)
    scores = candidates.scores
    return Ranking(candidates.ids, scores, scores, scores, first, None, None, [])


def rank(reader: Collection, asked: Asked, candidates: Candidates, clock: Clock) -> Ranking:
    """Candidates by their full maps. clock: gets "fetch", "score" and "expand"."""
    every = [*asked.prepared, *asked.unlike]
    scored = score_references(reader, candidates.ids, every, [asked.score], clock, stage="score")
    by_reference = scored.by_score[asked.score.name]
    wanted, unwanted = np.split(by_reference, [len(asked.prepared)])
    own = combine(wanted, unwanted)
    expanded = expand(
        *(reader, scored.ids, wanted, own, asked.prepared, asked.hashes, asked.score), clock
    )
    scores = combine(expanded[None], unwanted)
    # By the query's own scores: a match that asks must not vouch for itself, nor for others.
    sure = confidences(own)
    likely = None
    if asked.score.recall == "words":  # means over the map are distributed otherwise
        is_own = reader.has_content(scored.ids, asked.hashes)
        likely = probabilities(scores, asked.searched, is_own)
    by_id = dict(zip(candidates.ids.tolist(), candidates.scores.tolist(), strict=True))
    recalled = np.array([by_id[number] for number in scored.ids.tolist()], dtype=np.float32)
    # Equal scores are in the order of their ids, whatever the order of recall.
    order = np.lexsort((scored.ids, -scores))
    return Ranking(
        scored.ids[order],
        scores[order],
        own[order],
        recalled[order],
        wanted.argmax(axis=0)[order],
        None if sure is None else sure[order],
        None if likely is None else likely[order],
        scored.damaged,
    )


def check_confidence(ranking: Ranking, least: float | None) -> None:
    """Raise WaldoError where matches of some confidence are wanted, and none can be estimated."""
    if least is not None and ranking.confidences is None:
        raise WaldoError(
            f"min-confidence: {len(ranking.ids)} photos are too few to estimate a confidence; at "
            f"least {MINIMUM_PHOTOS} must be compared"
        )
