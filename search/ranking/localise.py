"""Where in a photo the object is: its cells at each place, by the votes of its tokens."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.device import upload
from features.errors import WaldoError
from features.frame import Frame
from indexer.collection import Collection, MapBatch
from search.ranking.pairs import CellPair, strongest_pairs
from search.scoring.candidates import CandidateMaps, ScoringReference, to_candidates
from search.scoring.rerank import combine
from search.scoring.scores import Score

if TYPE_CHECKING:
    import torch

# The object may reach this far (cells) beyond its voted place.
_MARGIN = 1.0
# Cells as near as this to a place that was found are not searched for another place.
_TAKEN = 2.0

# Places of a photo at which an object is looked for.
MOST_PLACES = 8


@dataclass(frozen=True)
class Evidence:
    """Where in n photos the object is.

    heat: (n, cells) float32, the score's evidence. places: (n, 8, cells) bool, the object's cells
    at each place, best first; the first has at least one cell, and places beyond the last one have
    none. pairs: for each photo, cells of the reference and cells at the first place that are alike,
    as `strongest_pairs` chooses them.
    """

    heat: NDArray[np.float32]
    places: NDArray[np.bool_]
    pairs: list[list[CellPair]]


def localise(
    reader: Collection,
    maps: MapBatch,
    references: Sequence[ScoringReference],
    which: NDArray[np.int64],
    score: Score,
    least: NDArray[np.float32],
    unlike: Sequence[ScoringReference] = (),
) -> Evidence:
    """Where in photos the object is, found on the references' device.

    which: (n,), the reference by which each photo is judged. least: (n,), the score that a photo
    must reach with the places found so far masked out, for another place to count. unlike: what
    the object is not.
    """
    import torch

    count, cells = len(maps.ids), reader.grid**2
    evidence = Evidence(
        np.empty((count, cells), dtype=np.float32),
        np.zeros((count, MOST_PLACES, cells), dtype=bool),
        [[] for _ in range(count)],
    )
    with torch.inference_mode():
        for number in np.unique(which):
            reference = references[number]
            chosen = np.flatnonzero(which == number)
            for rows, part in maps.rows(chosen).by_codec():
                photos = chosen[rows]
                candidates = to_candidates(reader, part, [reference, *unlike])
                heat = score.heat(reference, candidates)
                evidence.heat[photos] = heat.cpu().numpy()
                for photo, pairs in zip(
                    photos.tolist(), strongest_pairs(reference, candidates), strict=True
                ):
                    evidence.pairs[photo] = pairs
                scored = partial(_score_rest, score, reference, unlike)
                enough = upload(least[photos], heat.device)
                places = object_places(reference, candidates, heat, scored, enough)
                for at, found in enumerate(places):
                    evidence.places[photos, at] = found.cpu().numpy()
    return evidence


def first_boxes(
    reader: Collection,
    ids: NDArray[np.int64],
    reference: ScoringReference,
    score: Score,
) -> dict[int, tuple[int, int, int, int]]:
    """The box of the object's first place in each photo, [x0, y0, x1, y1] in pixels of the upright
    photo, by the photo's id. Raises WaldoError for a photo whose maps are damaged.
    """
    maps = reader.read_maps(ids)
    if maps.damaged:
        raise WaldoError(maps.damaged[0])
    only = np.zeros(len(maps.ids), dtype=np.int64)
    least = np.full(len(maps.ids), np.inf, dtype=np.float32)
    found = localise(reader, maps, [reference], only, score, least).places[:, 0]
    size, grid = reader.image_size, reader.grid
    return {
        record.id: Frame(record.width, record.height, size, grid).box_of(cells.reshape(grid, grid))
        for record, cells in zip(reader.photos(maps.ids), found, strict=True)
    }


def _score_rest(
    score: Score,
    reference: ScoringReference,
    unlike: Sequence[ScoringReference],
    candidates: CandidateMaps,
) -> "torch.Tensor":
    """Scores by one photo of the object and those of what it is not, (batch,) float32."""

    by_each = [score.function(each, candidates).cpu().numpy() for each in (reference, *unlike)]
    combined = combine(np.stack(by_each[:1]), np.stack(by_each)[1:])
    return upload(combined, candidates.valid.device)


def distance_to_object(reference: ScoringReference, candidates: CandidateMaps) -> "torch.Tensor":
    """Each cell's distance to the place that the object is voted to be at, (batch, cells) float32.

    The tokens' best cells vote for the object's place and size (see `hough`). The unit is cells; a
    cell of 0 or less is covered by the reference's object when it is moved to that place.
    """
    import torch

    side = math.isqrt(candidates.valid.shape[1])
    voted = candidates.placement(reference)
    apart = (voted.places[:, :, :, None] - torch.arange(side, device=voted.places.device)).abs()
    # the larger of the distances in rows and in columns
    farthest = torch.maximum(apart[:, :, 0, :, None], apart[:, :, 1, None, :])
    nearest = farthest.amin(dim=1).flatten(1)
    return nearest - (voted.scale / 2).clamp(min=0.5)[:, None]


def object_cells(
    candidates: CandidateMaps, distance: "torch.Tensor", heat: "torch.Tensor"
) -> "torch.Tensor":
    """The object's cells in each candidate, (batch, cells) bool, at least one.

    These are the warm cells among those that the object covers at its voted place, and those next
    to them. A cell is warm above the middle between the photo's median and the upper quartile of
    these cells. `benchmarks/localise.py` measures it.

    distance: from `distance_to_object`. heat: (batch, cells) float32, evidence by cell.
    """
    import torch

    valid = candidates.valid
    region = (distance <= _MARGIN) & valid
    # Votes may point outside the photo.
    region |= ~region.any(dim=1, keepdim=True) & valid
    middle = torch.where(valid, heat, torch.nan).nanmedian(dim=1).values
    upper = torch.where(region, heat, torch.nan).nanquantile(0.75, dim=1)
    warm = region & (heat >= ((middle + upper) / 2)[:, None])
    return torch.where(warm.any(dim=1, keepdim=True), warm, region)


def without_place(
    candidates: CandidateMaps, distance: "torch.Tensor"
) -> "tuple[CandidateMaps, torch.Tensor]":
    """The candidates with the voted place of the object, and two cells around it, masked out.

    The second result says which photos have a cell left, (batch,) bool; the others keep all their
    cells. distance: from `distance_to_object`.
    """
    import torch

    left = candidates.valid & (distance > _TAKEN)
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
    """The object's cells at each of its places, best first: 1 to 8 tensors, (batch, cells) bool.

    The first is `object_cells`. Then that place is masked out; where the rest of the photo still
    scores enough, the tokens choose their best cells and vote again, and so on. A photo with fewer
    places than others has no cell in the later tensors.

    heat: (batch, cells) float32, evidence by cell. score: scores candidates by their valid cells,
    (batch,). least: (batch,); a photo whose rest does not score more has no further place.
    """
    distance = distance_to_object(reference, candidates)
    places = [object_cells(candidates, distance, heat)]
    going = least.isfinite()
    while going.any() and len(places) < MOST_PLACES:
        candidates, left = without_place(candidates, distance)
        going = going & left & (score(candidates) > least)
        if going.any():
            distance = distance_to_object(reference, candidates)
            places.append(object_cells(candidates, distance, heat) & going[:, None])
    return places
