"""Scores that compare a reference with candidates' full maps.

Each gives a heatmap over a candidate's cells, which says where the evidence lies, and one number a
candidate. All work on batches, in float32, on whatever device the tensors are on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ScoringReference:
    """What the reference photo contributes to a score; float32 tensors on the scoring device.

    tokens: (n, d), F_AM_r of PDM Eq. 4, appearance at the object's cells, n >= 1.
    class_vector: (d,), C, or None where no class name was given.
    mean_appearance: (d,), the collection's mean appearance, subtracted before cosines.
    """

    tokens: "torch.Tensor"
    class_vector: "torch.Tensor | None"
    mean_appearance: "torch.Tensor"


@dataclass(frozen=True)
class CandidateMaps:
    """A batch of candidates; float32 tensors on the scoring device.

    appearance, semantic: (batch, cells, d), F_A and F_S. valid: (batch, cells) bool, False in
    padding; every candidate has a valid cell.
    """

    appearance: "torch.Tensor"
    semantic: "torch.Tensor"
    valid: "torch.Tensor"


@dataclass(frozen=True)
class Scored:
    """scores: (batch,) float32, higher is better. heatmaps: (batch, cells) float32."""

    scores: "torch.Tensor"
    heatmaps: "torch.Tensor"


def pdm(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """The mean of S_DF over the map (PDM Eq. 5 to 7).

    Without a class name S_S is left out, and the score is the mean of S_A / 2.
    """
    # Eq. 5 is linear: the mean over reference tokens of inner products is one inner product.
    fused = candidates.appearance @ reference.tokens.mean(dim=0)
    if reference.class_vector is not None:
        fused = fused + candidates.semantic @ reference.class_vector
    return _mean_over_map(fused / 2, candidates.valid)


def appearance(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """The mean of S_A over the map (PDM Eq. 5)."""
    return _mean_over_map(candidates.appearance @ reference.tokens.mean(dim=0), candidates.valid)


def semantic(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """The mean of S_S over the map (PDM Eq. 6). Needs a class vector."""
    assert reference.class_vector is not None
    return _mean_over_map(candidates.semantic @ reference.class_vector, candidates.valid)


def cosine(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """Cosine of the object's mean appearance with the whole candidate's: one vector a photo.

    The heatmap is the cosine of the object's mean with each cell.
    """
    mean = _unit(reference.tokens.mean(dim=0))
    pooled = _unit(candidates.appearance.masked_fill(~candidates.valid[:, :, None], 0.0).sum(dim=1))
    return Scored(pooled @ mean, _unit(candidates.appearance) @ mean)


def late_interaction(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """Late interaction (ColBERT's MaxSim) by centred cosine of appearance.

    Every reference token takes its best cell of the candidate; their mean is the score. A cell's
    heat is its best cosine with any reference token.
    """
    import torch

    tokens = _unit(reference.tokens - reference.mean_appearance)
    cells = _unit(candidates.appearance - reference.mean_appearance)
    cosines = cells @ tokens.T
    # Padding must lose against any cosine, negative ones too.
    cosines = cosines.masked_fill(~candidates.valid[:, :, None], -torch.inf)
    return Scored(cosines.amax(dim=1).mean(dim=1), cosines.amax(dim=2))


@dataclass(frozen=True)
class Score:
    """A score people can name.

    source: where it comes from. recall: what chooses its candidates, visual words or the inner
    product of pooled vectors. needs_class: cannot do without C.
    """

    name: str
    source: str
    function: Callable[[ScoringReference, CandidateMaps], Scored]
    recall: Literal["words", "pooled"] = "pooled"
    needs_class: bool = False


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            "late",
            "late interaction on F_A (ColBERT, 2020), centred cosine",
            late_interaction,
            recall="words",
        ),
        Score("pdm", "mean of S_DF (PDM Eq. 5 to 7)", pdm),
        Score("appearance", "mean of S_A (PDM Eq. 5)", appearance),
        Score("cosine", "cosine of pooled F_A", cosine),
        Score("semantic", "mean of S_S (PDM Eq. 6)", semantic, needs_class=True),
    )
}

DEFAULT_SCORE = "late"


def _mean_over_map(heatmaps: "torch.Tensor", valid: "torch.Tensor") -> Scored:
    total = heatmaps.masked_fill(~valid, 0.0).sum(dim=1)
    return Scored(total / valid.sum(dim=1), heatmaps)


def _unit(vectors: "torch.Tensor") -> "torch.Tensor":
    """Vectors scaled to length 1; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1)
