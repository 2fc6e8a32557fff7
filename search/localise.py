"""Where in a photo the object is."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from search.hough import place
from search.scores import CandidateMaps, ScoringReference

if TYPE_CHECKING:
    import torch

# How far (cells) beyond its voted place the object may reach.
_MARGIN = 1.0
# Cells so near to it are not looked at again for another place.
_TAKEN = 2.0

# An object is looked for in so many places of a photo.
MOST_PLACES = 8


def beyond_object(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """How far each cell is from where the object is voted to be, (batch, cells) float32, in cells.

    Tokens' best cells vote for the object's place and size (see `hough`). 0 or less is under the
    reference's object, as it would lie there.
    """
    import torch

    side = math.isqrt(candidates.valid.shape[1])
    best, cells = candidates.best(reference)
    voted = place(best, cells, reference.positions, side)
    apart = (voted.places[:, :, :, None] - torch.arange(side, device=best.device)).abs()
    # the larger of the distances in rows and in columns
    farthest = torch.maximum(apart[:, :, 0, :, None], apart[:, :, 1, None, :])
    nearest = farthest.amin(dim=1).flatten(1)
    return nearest - (voted.scale / 2).clamp(min=0.5)[:, None]


def object_cells(
    candidates: CandidateMaps, beyond: "torch.Tensor", heat: "torch.Tensor"
) -> "torch.Tensor":
    """The object's cells in each candidate, (batch, cells) bool, at least one.

    Of the cells that the object covers where it is voted to be, and those around them, the warm
    ones count: above half way from the photo's median to the upper quartile among them.
    `benchmarks/localise.py` measures it.

    beyond: as `beyond_object` gives it. heat: (batch, cells) float32, evidence by cell.
    """
    import torch

    valid = candidates.valid
    region = (beyond <= _MARGIN) & valid
    # votes may point outside of the photo
    region |= ~region.any(dim=1, keepdim=True) & valid
    nothing = heat.new_tensor(torch.nan)
    middle = torch.where(valid, heat, nothing).nanmedian(dim=1).values
    upper = torch.where(region, heat, nothing).nanquantile(0.75, dim=1)
    warm = region & (heat >= ((middle + upper) / 2)[:, None])
    return torch.where(warm.any(dim=1, keepdim=True), warm, region)


def without_place(
    candidates: CandidateMaps, beyond: "torch.Tensor"
) -> "tuple[CandidateMaps, torch.Tensor]":
    """Photos without the cells where the object is voted to be, and two around it.

    Also tells which photos have any cell left, (batch,) bool; the others keep theirs. beyond: as
    `beyond_object` gives it.
    """
    import torch

    left = candidates.valid & (beyond > _TAKEN)
    any_left = left.any(dim=1)
    valid = torch.where(any_left[:, None], left, candidates.valid)
    return replace(candidates, valid=valid), any_left


def object_places(
    reference: ScoringReference,
    candidates: CandidateMaps,
    heat: "torch.Tensor",
    score: "Callable[[CandidateMaps], torch.Tensor]",
    least: "torch.Tensor",
) -> "list[torch.Tensor]":
    """The object's cells at each place where it is, best first: 1 to 8 times (batch, cells) bool.

    The first is `object_cells`. Then its place is taken away, and where the rest of the photo
    scores enough, tokens choose their best cells and vote again, and so on. Photos of fewer places
    than others have no cell in the later ones.

    heat: (batch, cells) float32, evidence by cell. score: of photos by their valid cells, (batch,).
    least: (batch,), a photo whose rest does not score more has no further place.
    """
    beyond = beyond_object(reference, candidates)
    places = [object_cells(candidates, beyond, heat)]
    going = least.isfinite()
    while going.any() and len(places) < MOST_PLACES:
        candidates, left = without_place(candidates, beyond)
        going = going & left & (score(candidates) > least)
        if going.any():
            beyond = beyond_object(reference, candidates)
            places.append(object_cells(candidates, beyond, heat) & going[:, None])
    return places
