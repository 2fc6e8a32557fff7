"""Scores that compare a reference with candidates' full maps.

Each gives a heatmap over a candidate's cells, which says where the evidence lies, and one number a
candidate. All work on batches, in float32, on whatever device the tensors are on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

# How many cells `top_mean` looks at.
_TOP_CELLS = 8

# How `consistent` lets tokens vote: how much larger the object may be in the candidate, how far
# (cells) a vote reaches, and what agreement is worth beside likeness (docs/scores.md).
_SCALES = (0.5, 0.7, 1.0, 1.4, 2.0)
_REACH = 1.0
_AGREEMENT_WEIGHT = 0.2


@dataclass(frozen=True)
class ScoringReference:
    """What the reference photo contributes to a score; float32 tensors on the scoring device.

    tokens: (n, d), F_AM_r of PDM Eq. 4, appearance at the object's cells, n >= 1.
    class_vector: (d,), C, or None where no class name was given.
    mean_appearance: (d,), the collection's mean appearance, subtracted before cosines.
    positions: (n, 2), row and column of each token's cell.
    """

    tokens: "torch.Tensor"
    class_vector: "torch.Tensor | None"
    mean_appearance: "torch.Tensor"
    positions: "torch.Tensor"


@dataclass(frozen=True)
class CandidateMaps:
    """A batch of candidates; float32 tensors on the scoring device.

    appearance, semantic: (batch, cells, d), F_A and F_S, cells row by row of a square map. valid:
    (batch, cells) bool, False in padding; every candidate has a valid cell.
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


def maximum(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """The map's largest centred cosine with the object's mean appearance."""
    import torch

    heatmaps = _mean_cosines(reference, candidates)
    return Scored(heatmaps.masked_fill(~candidates.valid, -torch.inf).amax(dim=1), heatmaps)


def top_mean(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """As `maximum`, but the mean of the 8 best cells, or of all where there are fewer."""
    import torch

    heatmaps = _mean_cosines(reference, candidates)
    count = min(_TOP_CELLS, heatmaps.shape[1])
    best = heatmaps.masked_fill(~candidates.valid, -torch.inf).topk(count, dim=1).values
    return Scored(_mean_over_map(best, best.isfinite()).scores, heatmaps)


def late_interaction(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """Late interaction (ColBERT's MaxSim) by centred cosine of appearance.

    Every reference token takes its best cell of the candidate; their mean is the score. A cell's
    heat is its best cosine with any reference token.
    """
    cosines = _token_cosines(reference, candidates)
    return Scored(cosines.amax(dim=1).mean(dim=1), cosines.amax(dim=2))


def mutual(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """Mean centred cosine over mutual nearest neighbours (pairs of Best-Buddies Similarity).

    A token and a cell are a pair where each is the other's best. Heat as in late interaction.
    """
    import torch

    cosines = _token_cosines(reference, candidates)
    best, cells = cosines.max(dim=1)
    heatmaps, tokens = cosines.max(dim=2)
    pairs = tokens.gather(1, cells) == torch.arange(best.shape[1], device=best.device)
    # The best of all cosines is a pair, but where several are equal none may be.
    count = pairs.sum(dim=1).clamp(min=1)
    return Scored(best.masked_fill(~pairs, 0.0).sum(dim=1) / count, heatmaps)


def consistent(reference: ScoringReference, candidates: CandidateMaps) -> Scored:
    """Late interaction, and more where the best cells lie to each other as the object's do.

    A generalised Hough transform (Ballard, 1981): at each of five scales, every token's best cell
    votes for where the object's centre would then be, with its cosine times a Gaussian about that
    place. The votes of the most voted place, divided by the number of tokens, are the agreement.
    The score is a weighted mean of it and late interaction's: 1 for the object itself. Heat as in
    late interaction.
    """
    import torch

    cosines = _token_cosines(reference, candidates)
    best, cells = cosines.max(dim=1)
    side = math.isqrt(cosines.shape[1])
    found = torch.stack([cells // side, cells % side], dim=2)
    # Votes are counted at whole cells, so the centre is one: then the object itself agrees fully.
    offsets = reference.positions - reference.positions.mean(dim=0).round()
    scales = offsets.new_tensor(_SCALES)[:, None, None]
    centres = found[:, None] - scales * offsets
    distances = centres[..., None] - torch.arange(side, device=best.device)
    # (batch, scales, n, row or column, side): a Gaussian over places is one over rows times one
    # over columns.
    near = torch.exp(-(distances**2) / (2 * _REACH**2))
    rows, columns = near[:, :, :, 0] * best[:, None, :, None], near[:, :, :, 1]
    votes = rows.transpose(2, 3) @ columns
    agreement = votes.flatten(1).amax(dim=1) / best.shape[1]
    likeness = best.mean(dim=1)
    scores = (likeness + _AGREEMENT_WEIGHT * agreement) / (1 + _AGREEMENT_WEIGHT)
    return Scored(scores, cosines.amax(dim=2))


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
            "consistent",
            "late, and votes for the object's place and size (Ballard, 1981)",
            consistent,
            recall="words",
        ),
        Score(
            "late",
            "late interaction on F_A (ColBERT, 2020), centred cosine",
            late_interaction,
            recall="words",
        ),
        Score(
            "mutual",
            "cosine of mutual nearest neighbours (Best-Buddies Similarity, CVPR 2015)",
            mutual,
            recall="words",
        ),
        Score(
            "maximum",
            "maximum over the map of the centred cosine with mean F_A",
            maximum,
            recall="words",
        ),
        Score(
            "top-mean",
            "mean over the 8 best cells of the centred cosine with mean F_A",
            top_mean,
            recall="words",
        ),
        Score("pdm", "mean of S_DF (PDM Eq. 5 to 7)", pdm),
        Score("appearance", "mean of S_A (PDM Eq. 5)", appearance),
        Score("cosine", "cosine of pooled F_A", cosine),
        Score("semantic", "mean of S_S (PDM Eq. 6)", semantic, needs_class=True),
    )
}

DEFAULT_SCORE = "consistent"


def _token_cosines(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Centred cosines of every cell with every token, (batch, cells, n)."""
    import torch

    tokens = _unit(reference.tokens - reference.mean_appearance)
    cells = _unit(candidates.appearance - reference.mean_appearance)
    # Padding must lose against any cosine, negative ones too.
    return (cells @ tokens.T).masked_fill(~candidates.valid[:, :, None], -torch.inf)


def _mean_cosines(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Centred cosine of every cell with the object's mean appearance, (batch, cells)."""
    mean = _unit(reference.tokens.mean(dim=0) - reference.mean_appearance)
    return _unit(candidates.appearance - reference.mean_appearance) @ mean


def _mean_over_map(heatmaps: "torch.Tensor", valid: "torch.Tensor") -> Scored:
    total = heatmaps.masked_fill(~valid, 0.0).sum(dim=1)
    return Scored(total / valid.sum(dim=1), heatmaps)


def _unit(vectors: "torch.Tensor") -> "torch.Tensor":
    """Vectors scaled to length 1; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1)
