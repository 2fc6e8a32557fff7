"""Scores that compare a reference with candidates' full maps.

Each gives one number a candidate, and a heatmap over a candidate's cells, which says where the
evidence lies. All work on batches, on whatever device the tensors are on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.codec.tokens import TokenMap, unit
from search.hough import place

if TYPE_CHECKING:
    import torch

# How many cells `top_mean` looks at.
_TOP_CELLS = 8
# What share of a photo's cells `late_gated` passes over.
_GATED_SHARE = 0.25

Values = TypeVar("Values", "torch.Tensor", NDArray[np.float32])


@dataclass(frozen=True)
class FusionWeights:
    """What else counts beside likeness in appearance, which counts 1 (docs/scores.md).

    agreement: of the object's parts about its place. class_evidence: see `class_evidence`.
    """

    agreement: float = 0.3
    class_evidence: float = 0.0


NO_CLASS = FusionWeights()


@dataclass(frozen=True, eq=False)
class ScoringReference:
    """What the reference photo contributes to a score; float32 tensors on the scoring device.

    tokens: (n, d), F_AM_r of PDM Eq. 4, appearance at the object's cells, n >= 1.
    semantic: (n, d), F_S at the same cells.
    class_vector: (d,), C, or None where no class name was given.
    positions: (n, 2), row and column of each token's cell.
    rivals: (m, d), vectors of what the class is to be told from, or None where weights make
    nothing of them. weights: of `consistent` and `fused`.
    """

    tokens: "torch.Tensor"
    semantic: "torch.Tensor"
    class_vector: "torch.Tensor | None"
    positions: "torch.Tensor"
    rivals: "torch.Tensor | None" = None
    weights: FusionWeights = NO_CLASS


@dataclass(frozen=True)
class CandidateMaps:
    """A batch of candidates on the scoring device.

    appearance, semantic: F_A and F_S, cells row by row of a square map; cosines are about their
    mean, the collection's. valid: (batch, cells) bool, False in padding; every candidate has a
    valid cell. references: those that will all be compared with these candidates.
    """

    appearance: TokenMap
    semantic: TokenMap
    valid: "torch.Tensor"
    references: tuple[ScoringReference, ...] = ()

    def best(self, reference: ScoringReference) -> "tuple[torch.Tensor, torch.Tensor]":
        """Each token's most similar cell in each candidate, as `TokenMap.best` gives it.

        The tokens of all `references` go through one matrix product, and what is found is kept: for
        each of them, and for every score that asks for it.
        """
        import torch

        if reference not in self._best:
            together = self.references if reference in self.references else (reference,)
            tokens = torch.cat([each.tokens for each in together])
            sizes = [len(each.tokens) for each in together]
            found = (part.split(sizes, dim=1) for part in self.appearance.best(tokens, self.valid))
            self._best.update(zip(together, zip(*found, strict=True), strict=True))
        return self._best[reference]

    @cached_property
    def _best(self) -> "dict[ScoringReference, tuple[torch.Tensor, torch.Tensor]]":
        return {}

    def mass_of(self, rivals: "torch.Tensor") -> "torch.Tensor":
        """log(sum(exp(F_S . r / sqrt(d)))) over rivals, (m, d), at each cell, (batch, cells)
        float32; taken once for all references that have the same.
        """
        import torch

        for known, mass in self._masses:
            if torch.equal(known, rivals):
                return mass
        mass = (self.semantic.products(rivals) / math.sqrt(rivals.shape[1])).logsumexp(dim=2)
        self._masses.append((rivals, mass))
        return mass

    @cached_property
    def _masses(self) -> "list[tuple[torch.Tensor, torch.Tensor]]":
        return []

    @cached_property
    def pooled(self) -> "torch.Tensor":
        """The mean appearance of each candidate, (batch, d) float32."""
        tokens = self.appearance.decode().masked_fill(~self.valid[:, :, None], 0.0)
        return tokens.sum(dim=1) / self.valid.sum(dim=1, keepdim=True)


def fused_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """S_DF (PDM Eq. 7). Without a class name S_S is left out: S_A / 2."""
    heat = appearance_heat(reference, candidates)
    if reference.class_vector is not None:
        heat = heat + semantic_heat(reference, candidates)
    return heat / 2


def appearance_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """S_A (PDM Eq. 5)."""
    # Eq. 5 is linear: the mean over reference tokens of inner products is one inner product.
    return candidates.appearance.products(reference.tokens.mean(dim=0, keepdim=True)).squeeze(2)


def semantic_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """S_S (PDM Eq. 6). Needs a class vector."""
    assert reference.class_vector is not None
    return candidates.semantic.products(reference.class_vector[None]).squeeze(2)


def class_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """S_S told from other names: sqrt(d) times the logarithm of the class's share of attention.

    The share is that of PDM Eq. 3, softmax(F_S C^T / sqrt(d)), over the class and its rivals at
    each cell. In S_S's units, at most 0, and comparable between cells, photos and classes, where
    S_S itself is high also at what looks like many classes. Needs a class vector and rivals.
    """
    import torch

    assert reference.rivals is not None
    root = math.sqrt(reference.rivals.shape[1])
    own = semantic_heat(reference, candidates) / root
    return root * (own - torch.logaddexp(own, candidates.mass_of(reference.rivals)))


def mean_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Centred cosine of each cell with the object's mean appearance."""
    return candidates.appearance.cosines(reference.tokens.mean(dim=0, keepdim=True)).squeeze(2)


def token_heat(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Each cell's best centred cosine with any reference token."""
    return candidates.appearance.cosines(reference.tokens).amax(dim=2)


def pdm(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """The mean of S_DF over the map (PDM Eq. 5 to 7).

    Without a class name S_S is left out, and the score is the mean of S_A / 2.
    """
    return _mean_over_map(fused_heat(reference, candidates), candidates.valid)


def appearance(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """The mean of S_A over the map (PDM Eq. 5)."""
    return _mean_over_map(appearance_heat(reference, candidates), candidates.valid)


def semantic(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """The mean of S_S over the map (PDM Eq. 6). Needs a class vector."""
    return _mean_over_map(semantic_heat(reference, candidates), candidates.valid)


def cosine(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Cosine of the object's mean appearance with the whole candidate's: one vector a photo."""
    return unit(candidates.pooled) @ unit(reference.tokens.mean(dim=0))


def maximum(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """The map's largest centred cosine with the object's mean appearance."""
    import torch

    heat = mean_heat(reference, candidates)
    return heat.masked_fill(~candidates.valid, -torch.inf).amax(dim=1)


def top_mean(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """As `maximum`, but the mean of the 8 best cells, or of all where there are fewer."""
    return _mean_of_best(mean_heat(reference, candidates), candidates.valid)


def late_interaction(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Late interaction (ColBERT's MaxSim) by centred cosine of appearance.

    Every reference token takes its best cell of the candidate; their mean is the score.
    """
    best, _ = candidates.best(reference)
    return best.mean(dim=1)


def late_gated(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """`late_interaction` with those cells alone that the class map (S_S, PDM Eq. 6) does not put
    among the photo's least likely quarter. Needs a class vector.
    """
    import torch

    likely = semantic_heat(reference, candidates)
    inside = torch.where(candidates.valid, likely, torch.nan)
    least = inside.nanquantile(_GATED_SHARE, dim=1, keepdim=True)
    best, _ = candidates.appearance.best(reference.tokens, inside >= least)
    return best.mean(dim=1)


def correspondence(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """The score of the code published with PDM, of what an index holds: every token's best cell by
    centred cosine of F_A, and that times the cosine of F_S at the pair; the mean.

    There, DIFT features are matched, and cosines of attention's queries and of its keys multiplied;
    its exchange of row and column is left out.
    """
    import torch

    best, cells = candidates.best(reference)
    photos = torch.arange(len(cells), device=cells.device)[:, None]
    found = candidates.semantic.decode()[photos, cells]
    return (best * (unit(found) * unit(reference.semantic)).sum(dim=2)).mean(dim=1)


def mutual(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Mean centred cosine over mutual nearest neighbours (pairs of Best-Buddies Similarity).

    A token and a cell are a pair where each is the other's best.
    """
    import torch

    cosines = candidates.appearance.cosines(reference.tokens)
    # Padding must lose against any cosine, negative ones too.
    cosines = cosines.masked_fill(~candidates.valid[:, :, None], -torch.inf)
    best, cells = cosines.max(dim=1)
    tokens = cosines.argmax(dim=2)
    pairs = tokens.gather(1, cells) == torch.arange(best.shape[1], device=best.device)
    # The best of all cosines is a pair, but where several are equal none may be.
    count = pairs.sum(dim=1).clamp(min=1)
    return best.masked_fill(~pairs, 0.0).sum(dim=1) / count


def consistent(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Late interaction, and more where the best cells lie to each other as the object's do: a
    weighted mean of `late_interaction` and `agreement`, 1 for the object itself.
    """
    likeness = late_interaction(reference, candidates)
    return fuse(reference.weights, likeness, agreement(reference, candidates), 0.0)


def fused(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """`consistent`, and the class map's word on whether the photo shows the class at all."""
    likeness = late_interaction(reference, candidates)
    evidence = class_evidence(reference, candidates)
    return fuse(reference.weights, likeness, agreement(reference, candidates), evidence)


def fuse(
    weights: FusionWeights, likeness: Values, agreement: Values, class_evidence: Values | float
) -> Values:
    """One score of three kinds of evidence, of any shape."""
    consistent = (likeness + weights.agreement * agreement) / (1 + weights.agreement)
    return consistent + weights.class_evidence * class_evidence


def agreement(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """How far tokens' best cells lie to each other as the object's parts do, (batch,) float32.

    They vote for the object's place and size (see `hough`): 1 for the object itself.
    """
    best, cells = candidates.best(reference)
    side = math.isqrt(candidates.valid.shape[1])
    return place(best, cells, reference.positions, side).agreement


def class_evidence(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """How clearly each photo shows the class: the mean over the 8 clearest cells of `class_heat`,
    (batch,) float32. Without a class vector or rivals 0 for every photo.
    """
    if reference.class_vector is None or reference.rivals is None:
        return reference.tokens.new_zeros(len(candidates.valid))
    return _mean_of_best(class_heat(reference, candidates), candidates.valid)


@dataclass(frozen=True)
class Score:
    """A score people can name.

    source: where it comes from. function: scores of a batch, (batch,) float32, higher is better.
    heat: the evidence by cell, (batch, cells) float32. recall: what chooses its candidates, visual
    words or the inner product of pooled vectors. needs_class: cannot do without C. uses_rivals:
    compares C with what it is to be told from, where it is given.
    """

    name: str
    source: str
    function: "Callable[[ScoringReference, CandidateMaps], torch.Tensor]"
    heat: "Callable[[ScoringReference, CandidateMaps], torch.Tensor]"
    recall: Literal["words", "pooled"] = "pooled"
    needs_class: bool = False
    uses_rivals: bool = False


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            "consistent",
            "late, and votes for the object's place and size (Ballard, 1981)",
            consistent,
            token_heat,
            recall="words",
        ),
        Score(
            "fused",
            "consistent, and how clearly the photo shows the class by F_S (PDM Eq. 7)",
            fused,
            token_heat,
            recall="words",
            uses_rivals=True,
        ),
        Score(
            "late",
            "late interaction on F_A (ColBERT, 2020), centred cosine",
            late_interaction,
            token_heat,
            recall="words",
        ),
        Score(
            "late-gated",
            "late, without the quarter of cells where S_S (PDM Eq. 6) is least",
            late_gated,
            token_heat,
            recall="words",
            needs_class=True,
        ),
        Score(
            "correspondence",
            "cosine of F_A times cosine of F_S at matched cells (the code published with PDM)",
            correspondence,
            token_heat,
            recall="words",
        ),
        Score(
            "mutual",
            "cosine of mutual nearest neighbours (Best-Buddies Similarity, CVPR 2015)",
            mutual,
            token_heat,
            recall="words",
        ),
        Score(
            "maximum",
            "maximum over the map of the centred cosine with mean F_A",
            maximum,
            mean_heat,
            recall="words",
        ),
        Score(
            "top-mean",
            "mean over the 8 best cells of the centred cosine with mean F_A",
            top_mean,
            mean_heat,
            recall="words",
        ),
        Score("pdm", "mean of S_DF (PDM Eq. 5 to 7)", pdm, fused_heat),
        Score("appearance", "mean of S_A (PDM Eq. 5)", appearance, appearance_heat),
        Score("cosine", "cosine of pooled F_A", cosine, appearance_heat),
        Score("semantic", "mean of S_S (PDM Eq. 6)", semantic, semantic_heat, needs_class=True),
    )
}

DEFAULT_SCORE = "consistent"


def _mean_over_map(heat: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
    return heat.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1)


def _mean_of_best(heat: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
    """The mean over a map's 8 highest valid cells, or over all where there are fewer."""
    import torch

    count = min(_TOP_CELLS, heat.shape[1])
    best = heat.masked_fill(~valid, -torch.inf).topk(count, dim=1).values
    return _mean_over_map(best, best.isfinite())
