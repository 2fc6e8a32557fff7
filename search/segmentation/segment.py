"""Which pixels of a photo show the object of a reference photo: personalized segmentation."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import ModelError, WaldoError
from features.frame import Frame
from features.maps import FeatureMaps
from features.models import MapExtractor
from features.photo import ModelInput, load_photo, to_model_input
from indexer.codec.tokens import TokenMap, unit
from search.ranking.localise import distance_to_object, object_cells, without_place
from search.reference import Reference
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.scores import consistent, token_heat
from search.segmentation.graph_cut import cut_object
from search.segmentation.overlay import shrunk

if TYPE_CHECKING:
    import torch

# All constants were chosen on the validation scenes (docs/segmentation.md).
# A cell's cosines with the object and with the background are means over this many best ones.
_OBJECT_NEIGHBOURS = 3
_BACKGROUND_NEIGHBOURS = 5
# Distances from the object, in cells. The object may reach this far beyond its voted place.
_REACH = 1.0
# Beyond the reach, a cell loses this much evidence for each cell of distance.
_DISTANCE_PENALTY = 0.2
# The background of the photo begins here.
_BACKGROUND_DISTANCE = 2.0
# Evidence is clipped, so that a few cells do not decide for a whole window of the guided filter.
_EVIDENCE_LIMIT = 0.5
# A cell shows the object if its cosine with the object is this high, and so much higher for each
# cell of distance from the object's voted place.
_OBJECT_COSINE = 0.56
_COSINE_BY_DISTANCE = 0.04

# The log-odds that a photo shows the object grow with its score in a straight line.
_CONFIDENCE_SLOPE = 24.4
_CONFIDENCE_OFFSET = -12.0

# Longer side of the picture that edges are taken from, pixels: at least, and at most where a mask
# model may look at it.
_LEAST = 512
_LONGEST = 1024

# Draws the mask of a photo, (height, width) bool, from the evidence of its cells. Arguments: the
# evidence, (grid, grid) float32, positive for the object; the photo's frame; the photo, RGB, of any
# size.
Draw = Callable[[NDArray[np.float32], Frame, Image.Image], NDArray[np.bool_]]


@dataclass(frozen=True)
class Segmentation:
    """Where the object is in one photo.

    score: the similarity of the photo and the object, by the default score.
    evidence: (grid, grid) float32, -0.5..0.5 in valid cells, positive for the object.
    mask: (height, width) bool, pixels of the upright photo.
    box: [x0, y0, x1, y1] around the mask; None where the mask is empty.
    picture: the photo that the edges were taken from, RGB, upright, of any size.
    """

    score: float
    evidence: NDArray[np.float32]
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int] | None
    picture: Image.Image


@dataclass(frozen=True)
class ObjectTokens:
    """The tokens of a reference photo, on the scoring device.

    scoring: the object. background: (m, d) float32, the appearance of all cells that do not show
    the object, m >= 0.
    """

    scoring: ScoringReference
    background: "torch.Tensor"

    @classmethod
    def of(cls, reference: Reference, device: "torch.device") -> "ObjectTokens":
        import torch

        maps = reference.maps
        rest = maps.appearance[maps.frame.valid() & ~reference.cells].astype(np.float32)
        return cls(reference.for_scoring(device), torch.from_numpy(rest).to(device))


@dataclass(frozen=True)
class Resemblance:
    """How the cells of one photo resemble an object, on the scoring device.

    with_object: (cells, n), centred cosines with the object's cells in the reference photo.
    with_background: (cells, m), those with the other cells of the reference photo.
    among: (cells, cells), those with the photo's own cells; -1 for a cell with itself, which says
    nothing. valid: (cells,) bool. found: (cells,) bool, the object's cells by `object_cells`.
    distance: (cells,) float32, in cells from the object's voted place, at most 0 within it.
    """

    with_object: "torch.Tensor"
    with_background: "torch.Tensor"
    among: "torch.Tensor"
    valid: "torch.Tensor"
    found: "torch.Tensor"
    distance: "torch.Tensor"

    def evidence(self) -> "torch.Tensor":
        """How much more each cell resembles the object than the background, (cells,) float32.

        Evidence is a difference of two means of centred cosines. The first is the mean of the
        cell's best 3 cosines with the object: with its cells in the reference photo, and with its
        cells in this photo. The second is the mean of the cell's best 5 cosines with the
        background: with the other cells of the reference photo, and with the cells of this photo
        that are far from the object. Cells lose evidence with their distance from the object, so
        that a look-alike elsewhere is not taken. Evidence lies in -0.5..0.5, and the object's cells
        are those above 0.
        """
        import torch

        background = self.valid & (self.distance > _BACKGROUND_DISTANCE)
        to_object = torch.cat([self.with_object, self.among[:, self.found]], dim=1)
        to_rest = torch.cat([self.with_background, self.among[:, background]], dim=1)
        evidence = _mean_of_best(to_object, _OBJECT_NEIGHBOURS)
        evidence = evidence - _mean_of_best(to_rest, _BACKGROUND_NEIGHBOURS)
        penalty = _DISTANCE_PENALTY * (self.distance - _REACH).clamp(min=0)
        return (evidence - penalty).clamp(-_EVIDENCE_LIMIT, _EVIDENCE_LIMIT)

    def object_region(self) -> NDArray[np.bool_]:
        """The cells that show the object, at its voted place and beyond it, (grid, grid) bool.

        An object seen anew reaches farther than votes tell. So these are all cells that resemble it
        in the reference photo: the mean of their best 3 cosines is at least 0.56, and 0.04 higher
        for each cell of distance from the voted place, where it is as much lower. They are
        connected with the cells found at that place; where none of these is among them, the object
        has the cells found alone.
        """
        from scipy import ndimage

        side = math.isqrt(len(self.valid))
        needed = _OBJECT_COSINE + _COSINE_BY_DISTANCE * self.distance
        alike = self.valid & (_mean_of_best(self.with_object, _OBJECT_NEIGHBOURS) >= needed)
        found = self.found.cpu().numpy().reshape(side, side)
        regions, _ = ndimage.label(alike.cpu().numpy().reshape(side, side))
        connected = np.unique(regions[found & (regions > 0)])
        return np.isin(regions, connected) if len(connected) else found

    def with_cells(self, cells: NDArray[np.bool_]) -> "Resemblance":
        """The same where the photo shows the object in other cells, (grid, grid) bool, at least
        one; it may also reach beyond these.
        """
        import torch
        from scipy import ndimage

        away = ndimage.distance_transform_cdt(~cells, metric="chessboard").ravel()
        device = self.distance.device
        distance = torch.from_numpy(away.astype(np.float32)).to(device).minimum(self.distance)
        found = torch.from_numpy(cells.ravel()).to(device)
        return replace(self, found=found, distance=distance)


def resemblances(
    tokens: ObjectTokens, candidates: CandidateMaps, places: int = 1
) -> Iterator[Resemblance]:
    """How each candidate resembles an object, one after the other.

    places: the number of places in each photo at which the object is searched for, one after the
    other (see `object_places`).
    """
    import torch

    scoring = tokens.scoring
    heat = token_heat(scoring, candidates)
    # distance: to the nearest place; to_place: to the place found last
    distance = to_place = distance_to_object(scoring, candidates)
    found = object_cells(candidates, to_place, heat)
    remaining = candidates
    for _ in range(1, places):
        remaining, _ = without_place(remaining, to_place)
        to_place = distance_to_object(scoring, remaining)
        found = found | object_cells(remaining, to_place, heat)
        distance = torch.minimum(distance, to_place)
    with_object = candidates.appearance.cosines(scoring.tokens)
    with_background = candidates.appearance.cosines(tokens.background)
    # One photo at a time, because a matrix of cells by cells is large.
    for row, cells in enumerate(unit(candidates.appearance.levels.float())):
        among = (cells @ cells.T).fill_diagonal_(-1.0)
        yield Resemblance(
            *(with_object[row], with_background[row], among),
            *(candidates.valid[row], found[row], distance[row]),
        )


def object_evidence(seen: Resemblance, frame: Frame) -> NDArray[np.float32]:
    """The evidence of a photo's cells that masks are drawn from, (grid, grid) float32.

    It compares cells with all that `object_region` takes for the object.
    """
    evidence = seen.with_cells(seen.object_region()).evidence().cpu().numpy()
    return np.asarray(evidence.reshape(frame.grid, frame.grid))


def segment(
    tokens: ObjectTokens,
    candidates: CandidateMaps,
    frames: Sequence[Frame],
    pictures: Sequence[Image.Image],
    draw: Draw = cut_object,
    places: int = 1,
    least: float = -math.inf,
) -> list[Segmentation]:
    """Segment the object in photos whose maps were already extracted.

    frames, pictures: one per candidate; a picture is the upright RGB photo, of any size.
    places: the number of places at which each photo shows the object.
    least: a photo that scores less is taken not to show the object; its mask is empty.
    """
    import torch

    segmented = []
    with torch.inference_mode():
        scores = consistent(tokens.scoring, candidates).tolist()
        photos = resemblances(tokens, candidates, places)
        for seen, score, frame, picture in zip(photos, scores, frames, pictures, strict=True):
            if score < least:
                evidence = seen.evidence().cpu().numpy().reshape(frame.grid, frame.grid)
                mask = np.zeros((frame.height, frame.width), dtype=bool)
            else:
                evidence = object_evidence(seen, frame)
                mask = draw(evidence, frame, picture)
            segmented.append(Segmentation(score, evidence, mask, box_around(mask), picture))
    return segmented


def segment_photos(
    reference: Reference,
    photos: Sequence[Path],
    extractor: MapExtractor,
    draw: Draw = cut_object,
    least: float = -math.inf,
) -> Iterator[tuple[Path, Segmentation | WaldoError]]:
    """Segment the object in photo files, in their order.

    least: a photo that scores less is taken not to show the object; its mask is empty.
    A photo that cannot be segmented comes with the error that says why. There is no collection to
    centre cosines on; they are centred on the mean of the reference photo and the photo itself, so
    the mask of a photo does not depend on the other photos. The reference photo itself is not
    extracted again.
    """
    tokens = ObjectTokens.of(reference, extractor.device)
    known = reference.maps
    size, grid = extractor.image_size, extractor.grid
    for start in range(0, len(photos), extractor.batch_size):
        batch = photos[start : start + extractor.batch_size]
        opened = [_prepare(path, size, grid) for path in batch]
        inputs = [photo[0] for photo in opened if not isinstance(photo, WaldoError)]
        new = [photo for photo in inputs if photo.content_hash != known.content_hash]
        extracted = iter(extractor.extract(new))
        for path, photo in zip(batch, opened, strict=True):
            if isinstance(photo, WaldoError):
                yield path, photo
                continue
            seen, picture = photo
            maps = known if seen.content_hash == known.content_hash else next(extracted)
            if not maps.is_finite:
                yield path, ModelError(f"{path}: the model gave no finite features for it")
                continue
            candidates = candidates_of(maps, reference, extractor.device)
            found = segment(tokens, candidates, [maps.frame], [picture], draw, least=least)
            yield path, found[0]


def candidates_of(maps: FeatureMaps, reference: Reference, device: "torch.device") -> CandidateMaps:
    """The maps of a photo, centred on the mean of its own and the reference's pooled features."""
    import torch

    mean = torch.from_numpy((maps.pooled() + reference.maps.pooled()) / 2).to(device)
    cells, dim = maps.frame.grid**2, maps.appearance.shape[2]
    parts = [
        TokenMap.plain(torch.from_numpy(values.reshape(1, cells, dim)).to(device).float(), middle)
        for values, middle in zip((maps.appearance, maps.semantic), mean.split(dim), strict=True)
    ]
    valid = torch.from_numpy(maps.frame.valid().reshape(1, cells)).to(device)
    return CandidateMaps(parts[0], parts[1], valid)


def load_picture(path: Path) -> Image.Image:
    """A photo as `segment` takes its edges from it: RGB, upright, made smaller where that is fast.

    Raises WaldoError where the photo cannot be read.
    """
    return load_photo(path, _LEAST).image


def has_confidence(extractor: MapExtractor) -> bool:
    """Whether `confidence_of` was measured for the model of an extractor."""
    return extractor.fingerprint()["model"] == "tiny"


def confidence_of(score: float) -> float:
    """How likely it is that a photo shows the object, 0..1, by its score; for the bundled model.

    Of the photos in question, half are taken to show it. benchmarks/not_here.py measures it.
    """
    return 1 / (1 + math.exp(-(_CONFIDENCE_SLOPE * score + _CONFIDENCE_OFFSET)))


def score_of(confidence: float) -> float:
    """The least score with a confidence, 0..1: the inverse of `confidence_of`."""
    if confidence == 0:
        return -math.inf
    confidence = min(confidence, 0.995)  # which is shown as 1.00
    return (math.log(confidence / (1 - confidence)) - _CONFIDENCE_OFFSET) / _CONFIDENCE_SLOPE


def box_around(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """[x0, y0, x1, y1] around the True pixels of a (height, width) mask; None if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _prepare(path: Path, size: int, grid: int) -> tuple[ModelInput, Image.Image] | WaldoError:
    """A photo as the model sees it, and for its edges; or the error of reading it."""
    try:
        photo = load_photo(path, max(2 * size, _LONGEST))
    except WaldoError as error:
        return error
    return to_model_input(photo, size, grid), shrunk(photo, _LONGEST)


def _mean_of_best(cosines: "torch.Tensor", count: int) -> "torch.Tensor":
    """The mean of the highest `count` cosines in each row of (n, m), (n,); 0 where m is 0."""
    if cosines.shape[1] == 0:
        return cosines.sum(dim=1)
    return cosines.topk(min(count, cosines.shape[1]), dim=1).values.mean(dim=1)
