"""Where an object lies in a photo, by the votes of its tokens (generalised Hough transform)."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# How much larger than in the reference the object may be, and how far (cells) a vote reaches; see
# docs/scores.md.
SCALES = (0.5, 0.7, 1.0, 1.4, 2.0)
_REACH = 1.0


@dataclass(frozen=True)
class Placement:
    """Where photos' votes put the object; float32 tensors.

    agreement: (batch,), votes of the most voted place over the number of tokens, 1 at most.
    scale: (batch,), the object's size there, in parts of that in the reference. places:
    (batch, n, 2), row and column in cells where each token of the object would then lie.
    """

    agreement: "torch.Tensor"
    scale: "torch.Tensor"
    places: "torch.Tensor"


def place(
    best: "torch.Tensor", cells: "torch.Tensor", positions: "torch.Tensor", side: int
) -> Placement:
    """The most voted place and size of an object (Ballard, 1981).

    At each of five scales every token votes for where the object's centre would be if its best cell
    were right, with its cosine times a Gaussian about that place.

    best: (batch, n) float32, tokens' best cosines in each photo. cells: (batch, n), the cells that
    have them, row by row of a square map. positions: (n, 2), tokens' rows and columns in the
    reference. side: of the map, cells.
    """
    import torch

    found = torch.stack([cells // side, cells % side], dim=2)
    # Votes are counted at whole cells, so the centre is one: then the object itself agrees fully.
    offsets = positions - positions.mean(dim=0).round()
    scales = offsets.new_tensor(SCALES)
    centres = found[:, None] - scales[:, None, None] * offsets
    # A Gaussian over places is one over rows times one over columns. Centres are whole tenths of
    # cells, so all the Gaussians there can be are few.
    far = 6 * _REACH
    tenths = torch.arange(math.floor(-10 * far), math.ceil(10 * (side + far)), device=best.device)
    distances = tenths[:, None] / 10 - torch.arange(side, device=best.device)
    gaussians = torch.exp(-(distances**2) / (2 * _REACH**2))
    which = (10 * centres).round().clamp(float(tenths[0]), float(tenths[-1])) - tenths[0]
    # (batch, scales, n, side) each
    rows, columns = (
        gaussians.index_select(0, places.flatten().int()).view(*places.shape, side)
        for places in which.unbind(dim=3)
    )
    rows *= best[:, None, :, None]
    votes = (rows.transpose(2, 3) @ columns).flatten(1)
    most, winner = votes.max(dim=1)
    scale = scales[winner // side**2]
    centre = torch.stack([winner % side**2 // side, winner % side], dim=1)
    places = centre[:, None] + scale[:, None, None] * offsets
    return Placement(most / best.shape[1], scale, places)
