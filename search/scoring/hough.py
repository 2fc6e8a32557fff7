"""Hough voting: where an object lies in a photo, by the votes of its tokens.

With the similarities of late interaction it makes the score `consistent`: late interaction with
Hough voting. This is the generalised Hough transform (Ballard, 1981), with votes over position and
scale.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The sizes of the object that are tried, relative to its size in the reference, and the standard
# deviation of a vote, in cells (docs/scores.md).
SCALES = (0.5, 0.7, 1.0, 1.4, 2.0)
_SIGMA = 1.0
# On a CPU, votes are counted for as many photos at a time as keep these numbers in the cache.
_BLOCK_NUMBERS = 250_000
# Centres of votes are rounded to tenths of a cell, up to 6 cells outside the photo.
_FINENESS = 10
_FAR = 6


@dataclass(frozen=True)
class Placement:
    """The most voted position and size of an object in each photo of a batch; float32 tensors.

    agreement: (batch,), the sum of the votes over the number of tokens, at most 1.
    scale: (batch,), the size of the object relative to its size in the reference.
    places: (batch, n, 2), row and column, in cells, of each token of the object at that position.
    """

    agreement: "torch.Tensor"
    scale: "torch.Tensor"
    places: "torch.Tensor"


def place(
    best: "torch.Tensor", cells: "torch.Tensor", positions: "torch.Tensor", side: int
) -> Placement:
    """Find the most voted position and size of an object.

    At each of five scales every token votes for the centre that the object has if the token's best
    cell is its true place. A vote is a Gaussian around that centre times the cosine of the token
    with the cell.

    best: (batch, n) float32, the best cosine of each token in each photo.
    cells: (batch, n) int64, the cells with these cosines, in row-major order of a square map.
    positions: (n, 2) float32, row and column of each token in the reference.
    side: rows and columns of the map.
    """
    import torch

    found = torch.stack([cells // side, cells % side], dim=2)
    # Votes are counted at whole cells. The centre is rounded to a cell, so that the reference photo
    # agrees fully with itself.
    offsets = positions - positions.mean(dim=0).round()
    scales = _scales(best.device)
    centres = found[:, None] - scales[:, None, None] * offsets
    gaussians = _gaussians(side, best.device)
    which = ((centres + _FAR) * _FINENESS).round_().clamp_(0, len(gaussians) - 1).int()
    photos = len(best)
    if best.device.type == "cpu":
        photos = max(1, _BLOCK_NUMBERS // (len(scales) * best.shape[1] * side))
    strongest = [
        _strongest(some, of, gaussians)
        for some, of in zip(best.split(photos), which.split(photos), strict=True)
    ]
    most, winner = map(torch.cat, zip(*strongest, strict=True))
    scale = scales[winner // side**2]
    centre = torch.stack([winner % side**2 // side, winner % side], dim=1)
    places = centre[:, None] + scale[:, None, None] * offsets
    return Placement(most / best.shape[1], scale, places)


def _strongest(
    best: "torch.Tensor", which: "torch.Tensor", gaussians: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """The sum of votes at the most voted scale and cell of each photo, and which these are.

    best: (batch, n). which: (batch, scales, n, 2) int32, the row of `gaussians` for the row and the
    column of each vote. Returns (batch,) float32, and (batch,) int64 that counts cells within
    scales.
    """
    # A two-dimensional Gaussian is one over rows times one over columns, (batch, scales, n, side).
    rows, columns = (
        gaussians.index_select(0, places.flatten()).view(*places.shape, gaussians.shape[1])
        for places in which.unbind(dim=3)
    )
    rows *= best[:, None, :, None]
    return (rows.transpose(2, 3) @ columns).flatten(1).max(dim=1)


@cache
def _scales(device: "torch.device") -> "torch.Tensor":
    """`SCALES` on a device, where they are copied once."""
    import torch

    return torch.tensor(SCALES, device=device)


@cache
def _gaussians(side: int, device: "torch.device") -> "torch.Tensor":
    """The vote for each cell of a row by each centre, tenths of a cell apart, that is less than
    6 cells outside of it: (centres, side) float32.

    Centres are rounded to tenths, so that few Gaussians are possible, and they are computed once.
    """
    import torch

    centres = torch.arange(_FINENESS * (side + 2 * _FAR), device=device) / _FINENESS - _FAR
    distances = centres[:, None] - torch.arange(side, device=device)
    return torch.exp(-(distances**2) / (2 * _SIGMA**2))
