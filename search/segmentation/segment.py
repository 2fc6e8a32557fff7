"""Which pixels of a photo are the reference's object: personalized segmentation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import ModelError, PhotoError, WaldoError
from features.extractor import FeatureExtractor
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import ModelInput, Photo, load_photo, to_model_input
from indexer.codec.tokens import TokenMap, unit
from search.candidates import CandidateMaps, ScoringReference
from search.localise import distance_to_object, object_cells, without_place
from search.overlay import shrunk
from search.reference import Reference
from search.scores import consistent, token_heat
from search.segmentation.guided_filter import guided_filter

if TYPE_CHECKING:
    import torch

# Chosen on the validation scenes (docs/scores.md). How many of the object's cells, and of those
# that are not the object, a cell is compared with.
_ALIKE = 3
_UNLIKE = 5
# How far (cells) from where the object is voted to be it may reach, what a cell then loses for
# every cell it lies farther away, and where its surroundings begin.
_REACH = 1.0
_FALL = 0.2
_SURROUNDINGS = 2.0
# Evidence is cut here, lest few cells decide for a whole window of the guided filter.
_MOST = 0.5

# The guided filter's windows reach so many cells, and its ridge.
_WINDOW = 2.0
_EPS = 1e-4

# Pixels of the longer side of the picture that edges are taken from.
LONGEST = 1024

# Moves evidence, (height, width) float32 over a picture, positive for the object, to the picture's
# edges: a picture, its evidence, and the side of a cell in its pixels.
Refine = Callable[[Image.Image, NDArray[np.float32], float], NDArray[np.float32]]


@dataclass(frozen=True)
class Segmentation:
    """Where the object is in one photo.

    score: how like it is to the object, as the default score has it. evidence: (grid, grid)
    float32, -0.5..0.5 in valid cells, positive for the object. mask: (height, width) bool, pixels
    of the upright photo. box: [x0, y0, x1, y1] around it; None where no pixel is the object's.
    """

    score: float
    evidence: NDArray[np.float32]
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class ObjectTokens:
    """What the reference photo tells of the object.

    scoring: the object. background: (m, d) float32, appearance of the rest of its photo, m >= 0.
    """

    scoring: ScoringReference
    background: "torch.Tensor"

    @classmethod
    def of(cls, reference: Reference, device: "torch.device") -> "ObjectTokens":
        import torch

        maps = reference.maps
        rest = maps.appearance[maps.frame.valid() & ~reference.cells].astype(np.float32)
        return cls(reference.for_scoring(device), torch.from_numpy(rest).to(device))


def object_evidence(
    tokens: ObjectTokens, candidates: CandidateMaps, places: int = 1
) -> "torch.Tensor":
    """How much more each cell is like the object than like what is not, (batch, cells) float32.

    Centred cosines: the mean of the best 3 with the reference's object and with the object's cells
    as `object_cells` finds them in this photo, less that of the best 5 with the rest of the
    reference photo and with this photo's cells away from where the object is voted to be. Cells
    beyond that place lose more the farther they are, so that a look-alike is left out. So 0 is the
    threshold. -0.5..0.5.

    places: where in each photo the object is taken to be, found one after the other (see
    `object_places`); all of them are the object then.
    """
    import torch

    scoring = tokens.scoring
    heat = token_heat(scoring, candidates)
    beyond = place = distance_to_object(scoring, candidates)
    found = object_cells(candidates, place, heat)
    left = candidates
    for _ in range(1, places):
        left, _ = without_place(left, place)
        place = distance_to_object(scoring, left)
        found = found | object_cells(left, place, heat)
        beyond = torch.minimum(beyond, place)
    away = candidates.valid & (beyond > _SURROUNDINGS)
    evidence = torch.empty_like(beyond)
    with_object = candidates.appearance.cosines(scoring.tokens)
    with_background = candidates.appearance.cosines(tokens.background)
    # one photo at a time: cells by cells are many numbers
    for row, cells in enumerate(unit(candidates.appearance.levels.float())):
        object_like = torch.cat([with_object[row], cells @ cells[found[row]].T], dim=1)
        others = torch.cat([with_background[row], cells @ cells[away[row]].T], dim=1)
        evidence[row] = _mean_of_best(object_like, _ALIKE) - _mean_of_best(others, _UNLIKE)
    return (evidence - _FALL * (beyond - _REACH).clamp(min=0)).clamp(-_MOST, _MOST)


def sharpen(
    picture: Image.Image, evidence: NDArray[np.float32], cell: float
) -> NDArray[np.float32]:
    """A `Refine` without a model: the guided filter by the picture's colours."""
    guide = np.asarray(picture, dtype=np.float32) / np.float32(255.0)
    return guided_filter(guide, evidence, max(1, round(_WINDOW * cell)), _EPS)


def draw_mask(
    evidence: NDArray[np.float32], frame: Frame, picture: Image.Image, refine: Refine = sharpen
) -> NDArray[np.bool_]:
    """Evidence by cell as a mask of the photo, (height, width) bool.

    evidence: (grid, grid) float32. picture: the photo, RGB, at any size.
    """
    drawn = frame.to_photo(evidence, *picture.size)
    refined = refine(picture, drawn, frame.cell[0] * picture.width / frame.width)
    size = frame.width, frame.height
    full = Image.fromarray(refined).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(full) > 0


def segment(
    tokens: ObjectTokens,
    candidates: CandidateMaps,
    frames: Sequence[Frame],
    pictures: Sequence[Image.Image],
    refine: Refine = sharpen,
    places: int = 1,
) -> list[Segmentation]:
    """The object in photos whose maps are at hand.

    frames, pictures: one a candidate; a picture is the upright RGB photo at any size. places: where
    in each photo it is.
    """
    import torch

    with torch.inference_mode():
        evidence = object_evidence(tokens, candidates, places).cpu().numpy()
        scores = consistent(tokens.scoring, candidates).tolist()
    found = []
    for flat, score, frame, picture in zip(evidence, scores, frames, pictures, strict=True):
        cells = flat.reshape(frame.grid, frame.grid)
        mask = draw_mask(cells, frame, picture, refine)
        found.append(Segmentation(score, cells, mask, box_around(mask)))
    return found


def segment_photos(
    reference: Reference,
    photos: Sequence[Path],
    extractor: FeatureExtractor,
    refine: Refine = sharpen,
) -> Iterator[tuple[Path, Segmentation | WaldoError]]:
    """The object in each of some photo files, in their order; what is wrong with one comes instead.

    There is no collection whose mean cosines could be about, so that of the reference photo and
    the photo itself is taken: what is found in a photo does not depend on the others.
    """
    device = extractor.model.device
    tokens = ObjectTokens.of(reference, device)
    size, grid = extractor.image_size, extractor.grid
    for start in range(0, len(photos), extractor.batch_size):
        batch = photos[start : start + extractor.batch_size]
        opened = [_prepare(path, size, grid) for path in batch]
        inputs = [photo[0] for photo in opened if not isinstance(photo, WaldoError)]
        extracted = iter(extractor.extract(inputs))
        for path, photo in zip(batch, opened, strict=True):
            if isinstance(photo, WaldoError):
                yield path, photo
                continue
            maps = next(extracted)
            if not np.isfinite(maps.pooled()).all():
                yield path, ModelError(f"{path}: the model gave no finite features for it")
                continue
            candidates = candidates_of(maps, reference, device)
            yield path, segment(tokens, candidates, [maps.frame], [photo[1]], refine)[0]


def candidates_of(maps: FeatureMaps, reference: Reference, device: "torch.device") -> CandidateMaps:
    """A photo's maps, about the mean of its own and the reference's pooled features."""
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
    """A photo as `segment` takes its edges: RGB, upright, small. Raises WaldoError."""
    return shrunk(_open(path, LONGEST), LONGEST)


def box_around(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """[x0, y0, x1, y1] around the True pixels of a (height, width) mask, None without any."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _prepare(path: Path, size: int, grid: int) -> tuple[ModelInput, Image.Image] | WaldoError:
    """A photo as the model sees it, and as `load_picture` gives it; or what is wrong with it."""
    try:
        photo = _open(path, max(2 * size, LONGEST))
    except WaldoError as error:
        return error
    return to_model_input(photo, size, grid), shrunk(photo, LONGEST)


def _open(path: Path, at_least: int) -> Photo:
    try:
        return load_photo(path, at_least)
    except OSError as error:
        raise PhotoError(f"{path}: cannot be read ({error.strerror or error})") from None


def _mean_of_best(cosines: "torch.Tensor", count: int) -> "torch.Tensor":
    """Of each row of (n, m), the mean of its highest, (n,); 0 where there is nothing."""
    if cosines.shape[1] == 0:
        return cosines.sum(dim=1)
    return cosines.topk(min(count, cosines.shape[1]), dim=1).values.mean(dim=1)
