"""Where in a photo the object is."""

import math
from typing import TYPE_CHECKING

from search.hough import place
from search.scores import CandidateMaps, ScoringReference

if TYPE_CHECKING:
    import torch

# How far (cells) beyond its voted place the object may reach.
_MARGIN = 1.0


def beyond_object(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """How far each cell is from where the object is voted to be, (batch, cells) float32, in cells.

    Tokens' best cells vote for the object's place and size (see `hough`). 0 or less is under the
    reference's object, as it would lie there.
    """
    import torch

    side = math.isqrt(candidates.valid.shape[1])
    best, cells = candidates.best(reference)
    voted = place(best, cells, reference.positions, side)
    all_cells = torch.arange(side**2, device=best.device)
    grid = torch.stack([all_cells // side, all_cells % side], dim=1)
    apart = (voted.places[:, :, None] - grid).abs().amax(dim=3).amin(dim=1)
    return apart - (voted.scale / 2).clamp(min=0.5)[:, None]


def object_cells(
    reference: ScoringReference, candidates: CandidateMaps, heat: "torch.Tensor"
) -> "torch.Tensor":
    """The object's cells in each candidate, (batch, cells) bool, at least one.

    Of the cells that the object covers where it is voted to be, and those around them, the warm
    ones count: above half way from the photo's median to the upper quartile among them.
    `benchmarks/localise.py` measures it.

    heat: (batch, cells) float32, evidence by cell.
    """
    import torch

    valid = candidates.valid
    region = (beyond_object(reference, candidates) <= _MARGIN) & valid
    # votes may point outside of the photo
    region |= ~region.any(dim=1, keepdim=True) & valid
    nothing = heat.new_tensor(torch.nan)
    middle = torch.where(valid, heat, nothing).nanmedian(dim=1).values
    upper = torch.where(region, heat, nothing).nanquantile(0.75, dim=1)
    warm = region & (heat >= ((middle + upper) / 2)[:, None])
    return torch.where(warm.any(dim=1, keepdim=True), warm, region)
