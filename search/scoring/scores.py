"""Scores that compare a reference with candidates' full maps, by name in `SCORES`.

Each score gives one number per candidate, and a heatmap over a candidate's cells that shows where
the evidence lies. All work on batches, on whatever device the tensors are on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from indexer.codec.tokens import unit
from indexer.protocols import Extractor
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.fusion import DEFAULT_WEIGHTS, FusionWeights, default_weights, fuse

if TYPE_CHECKING:
    import torch

# Cells of a map that `top_mean` averages over.
_TOP_CELLS = 8
# The share of a photo's cells that `late_gated` leaves out.
_GATED_SHARE = 0.25


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


def class_heat(
    reference: ScoringReference, candidates: CandidateMaps, rivals: "torch.Tensor"
) -> "torch.Tensor":
    """sqrt(d) times the log-softmax of S_S over the class and its rivals.

    The softmax is that of PDM Eq. 3, softmax(F_S C^T / sqrt(d)), taken over the names at each cell.
    The result has S_S's units and is at most 0. It can be compared between cells, photos and
    classes, whereas S_S itself is also high where a cell resembles many classes. Needs a class
    vector. rivals: (m, d) float32, class vectors of competing names, m >= 1.
    """
    import torch

    root = math.sqrt(rivals.shape[1])
    own = semantic_heat(reference, candidates) / root
    return root * (own - torch.logaddexp(own, candidates.rival_mass(rivals)))


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
    """Cosine of the object's mean appearance with the whole candidate's: one vector per photo."""
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
    """`late_interaction` without the quarter of a photo's cells where S_S (PDM Eq. 6) is lowest.

    Needs a class vector.
    """
    import torch

    likely = semantic_heat(reference, candidates)
    inside = torch.where(candidates.valid, likely, torch.nan)
    least = inside.nanquantile(_GATED_SHARE, dim=1, keepdim=True)
    best, _ = candidates.appearance.best(reference.tokens, inside >= least)
    return best.mean(dim=1)


def correspondence(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """The score of the code published with PDM, computed from what an index holds.

    Every token takes its best cell by the centred cosine of F_A; that cosine is multiplied by the
    cosine of F_S at the matched pair, and the products are averaged. The published code matches
    DIFT features instead, and multiplies by cosines of the attention's queries and keys; it also
    exchanges row and column in one look-up, which is not done here.
    """
    import torch

    best, cells = candidates.best(reference)
    photos = torch.arange(len(cells), device=cells.device)[:, None]
    found = candidates.semantic.decode()[photos, cells]
    return (best * (unit(found) * unit(reference.semantic)).sum(dim=2)).mean(dim=1)


def mutual(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Mean centred cosine over mutual nearest neighbours (Best-Buddies Similarity, CVPR 2015).

    A token and a cell form a pair where each is the other's best.
    """
    import torch

    cosines = candidates.appearance.cosines(reference.tokens)
    # Padding must lose against any cosine, negative ones too.
    cosines = cosines.masked_fill(~candidates.valid[:, :, None], -torch.inf)
    best, cells = cosines.max(dim=1)
    tokens = cosines.argmax(dim=2)
    pairs = tokens.gather(1, cells) == torch.arange(best.shape[1], device=best.device)
    # The highest cosine of all is a pair, but equal cosines may leave no pair.
    count = pairs.sum(dim=1).clamp(min=1)
    return best.masked_fill(~pairs, 0.0).sum(dim=1) / count


def consistent(
    reference: ScoringReference,
    candidates: CandidateMaps,
    weights: FusionWeights = DEFAULT_WEIGHTS,
) -> "torch.Tensor":
    """Late interaction with Hough voting: a weighted mean of `late_interaction` and `agreement`.

    1 for the object itself.
    """
    likeness = late_interaction(reference, candidates)
    return fuse(weights, likeness, agreement(reference, candidates), 0.0)


def fused(
    reference: ScoringReference,
    candidates: CandidateMaps,
    weights: FusionWeights = DEFAULT_WEIGHTS,
    rivals: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """`consistent` plus `class_evidence`, which says whether the photo shows the class at all.

    rivals: as `class_evidence` takes them.
    """
    likeness = late_interaction(reference, candidates)
    evidence = class_evidence(reference, candidates, rivals)
    return fuse(weights, likeness, agreement(reference, candidates), evidence)


def agreement(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """How well the tokens' best cells are arranged as the object's parts are, (batch,) float32.

    The best cells vote for the object's place and size (see `hough`). 1 for the object itself.
    """
    return candidates.placement(reference).agreement


def class_evidence(
    reference: ScoringReference, candidates: CandidateMaps, rivals: "torch.Tensor | None"
) -> "torch.Tensor":
    """How clearly each photo shows the class: the mean of `class_heat` over its 8 best cells,
    (batch,) float32; 0 for every photo without a class vector or rivals.

    rivals: (m, d) float32, class vectors of competing names; None where class evidence is not used.
    """
    if reference.class_vector is None or rivals is None:
        return reference.tokens.new_zeros(len(candidates.valid))
    return _mean_of_best(class_heat(reference, candidates, rivals), candidates.valid)


@dataclass(frozen=True)
class Score:
    """A score that people can name.

    source: where it comes from. function: the scores of a batch, (batch,) float32, higher is
    better. heat: the evidence by cell, (batch, cells) float32. recall: how its candidates are
    found, by visual words or by the inner product of pooled vectors. needs_class: it cannot do
    without C. takes: what its function takes besides, which `bound` gives it.
    """

    name: str
    source: str
    function: "Callable[..., torch.Tensor]"
    heat: "Callable[[ScoringReference, CandidateMaps], torch.Tensor]"
    recall: Literal["words", "pooled"] = "pooled"
    needs_class: bool = False
    takes: tuple[Literal["weights", "rivals"], ...] = ()

    def bound(self, weights: FusionWeights, rivals: "torch.Tensor | None" = None) -> "Score":
        """This score with fusion weights and class vectors of competing names of its own."""
        given = {"weights": weights, "rivals": rivals}
        function = partial(self.function, **{name: given[name] for name in self.takes})
        return replace(self, function=function)


def bind_score(
    score: Score,
    extractor: Extractor,
    references: Sequence[ScoringReference],
    weights: FusionWeights | None = None,
) -> Score:
    """A score with all it needs to compare references by an extractor's features.

    The rivals of a class are many words for a text encoder, so they are made only where a reference
    has a class and class evidence has weight. weights: None for the model's own.
    """
    import torch

    weights = weights or default_weights(str(extractor.fingerprint()["model"]))
    named = [reference for reference in references if reference.class_vector is not None]
    counts = "weights" not in score.takes or weights.class_evidence > 0
    if "rivals" not in score.takes or not named or not counts:
        return score.bound(weights)
    rivals = torch.from_numpy(extractor.rival_vectors).to(named[0].tokens.device)
    return score.bound(weights, rivals)


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            "consistent",
            "late interaction with Hough voting for the object's place and size (Ballard, 1981)",
            consistent,
            token_heat,
            recall="words",
            takes=("weights",),
        ),
        Score(
            "fused",
            "consistent, plus how clearly the photo shows the class by F_S (PDM Eq. 7)",
            fused,
            token_heat,
            recall="words",
            takes=("weights", "rivals"),
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
            "late, without the quarter of cells where S_S (PDM Eq. 6) is lowest",
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
