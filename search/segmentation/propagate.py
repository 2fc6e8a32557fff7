"""Label propagation: the labels of a video's first frame, carried from frame to frame.

Every cell of a frame takes the labels of the cells that it resembles most, in the first frame and
in a few previous frames. This is the usual vote of the literature (STC, Jabri et al., NeurIPS 2020;
DINO, Caron et al., ICCV 2021; DIFT, Tang et al., NeurIPS 2023).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import ModelError
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import Photo, to_model_input
from indexer.codec.tokens import unit
from indexer.protocols import Extractor
from search.segmentation.frames import VideoFrame
from search.segmentation.guided_filter import guided_filter

if TYPE_CHECKING:
    import torch

Ids = NDArray[np.uint8]

# Frames per batch.
BATCH = 2

# The guided filter works on frames of this many pixels along the longer side.
_GUIDE = 427
_RADIUS = 8
_EPS = 1e-3

_LINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class PropagationSettings:
    """How the labels of a cell are voted for.

    The defaults are those of DINO, except `neighbours` (DINO: 5) and `far_penalty` (DINO: cells out
    of reach never vote), which were chosen on composed videos.

    previous: the number of previous frames that vote, in addition to the first frame.
    neighbours: the number of cells that vote, the most similar ones of all these frames.
    reach: how far a voter may lie from the cell, in rows and in columns, as a share of the map's
        longer side.
    far_penalty: subtracted from the cosines of the first frame's cells that are out of reach. With
        it an object that left the picture is found wherever it comes back, while a look-alike
        elsewhere does not take over its label as long as the object is visible.
    temperature: a vote weighs exp(cosine / temperature).
    """

    previous: int = 7
    neighbours: int = 3
    reach: float = 0.25
    far_penalty: float = 0.1
    temperature: float = 0.1


def carry_labels(
    first: Photo,
    ids: Ids,
    frames: Iterable[VideoFrame],
    extractor: Extractor,
    settings: PropagationSettings | None = None,
    sharpen: bool = True,
) -> Iterator[tuple[VideoFrame, Ids]]:
    """The frames after the first, one by one, with their object ids, (height, width) uint8.

    A frame that cannot be read, or has another size than the first, comes without its picture, with
    its problem and the ids of the frame before.

    ids: the object ids of the first frame, 0 where there is no object.
    sharpen: whether the edges of objects follow the edges of the picture.
    Raises ModelError where the model gives no finite features.
    """
    objects = [int(number) for number in np.unique(ids) if number]
    [maps] = _extract([first], extractor)
    labels = cell_labels(ids, objects, maps.frame)
    propagator = LabelPropagator(maps, labels, settings or PropagationSettings(), extractor.device)
    remaining = iter(frames)
    while batch := [_checked(frame, first) for frame in islice(remaining, BATCH)]:
        photos = [frame.photo for frame in batch if frame.photo is not None]
        found = iter(_extract(photos, extractor))
        for frame in batch:
            if frame.photo is not None:
                maps = next(found)
                labels = propagator.step(maps)
                guide = frame.photo.image if sharpen else None
                ids = _ids_of(labels, maps.frame, objects, guide)
            yield frame, ids


def _checked(frame: VideoFrame, first: Photo) -> VideoFrame:
    """The frame, without its picture where that has another size than the first."""
    photo = frame.photo
    if photo is None or (photo.width, photo.height) == (first.width, first.height):
        return frame
    size, wanted = f"{photo.width} x {photo.height}", f"{first.width} x {first.height}"
    problem = f"{photo.path}: is {size} pixels, the first frame {wanted}"
    return replace(frame, photo=None, problem=problem)


def _extract(photos: list[Photo], extractor: Extractor) -> list[FeatureMaps]:
    size, grid = extractor.image_size, extractor.grid
    maps = extractor.extract([to_model_input(photo, size, grid) for photo in photos])
    for photo, found in zip(photos, maps, strict=True):
        if not found.is_finite:
            raise ModelError(f"{photo.path}: the model gave no finite features for it")
    return maps


def _ids_of(
    labels: NDArray[np.float32], frame: Frame, objects: list[int], guide: Image.Image | None
) -> Ids:
    """The object ids of source pixels, (height, width), by the labels of cells.

    labels: (rows, cols, 1 + k), the background first. guide: the frame, whose edges the objects
    follow; None to interpolate only.
    """
    cells = np.zeros((len(objects), frame.grid, frame.grid), dtype=np.float32)
    cells[:, : frame.rows, : frame.cols] = np.moveaxis(labels[:, :, 1:], 2, 0)
    scale = min(1.0, _GUIDE / max(frame.width, frame.height))
    width, height = max(1, round(scale * frame.width)), max(1, round(scale * frame.height))
    parts = np.stack([frame.to_photo(part, width, height) for part in cells], axis=2)
    if guide is not None:
        colours = guide.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0)
        pixels = np.asarray(colours, dtype=np.float32) / np.float32(255.0)
        parts = guided_filter(pixels, parts, _RADIUS, _EPS)
    size = frame.width, frame.height
    planes = [np.ascontiguousarray(part) for part in np.moveaxis(parts, 2, 0)]
    full = np.stack([np.asarray(Image.fromarray(plane).resize(size, _LINEAR)) for plane in planes])
    # The filter keeps sums, so the background has what is missing to 1.
    best = np.concatenate([1 - full.sum(axis=0, keepdims=True), full]).argmax(axis=0)
    return np.array([0, *objects], dtype=np.uint8)[best]


class LabelPropagator:
    """Carries soft labels from frame to frame, in memory that does not grow with the video.

    maps: those of the first frame; all frames must have its size. labels: (rows, cols, k) float32,
    for its valid cells; the labels of each cell add up to 1.
    """

    def __init__(
        self,
        maps: FeatureMaps,
        labels: NDArray[np.float32],
        settings: PropagationSettings,
        device: "torch.device | str" = "cpu",
    ) -> None:
        import torch

        self._settings = settings
        self._device = device
        self._shape = labels.shape
        cells = self._cells(maps)
        # Cosines are centred, because what all cells have in common distinguishes none of them. All
        # frames are centred on the mean of the first, so that their cosines can be compared.
        self._mean = cells.mean(dim=0)
        rows, cols = torch.arange(labels.shape[0]), torch.arange(labels.shape[1])
        positions = torch.cartesian_prod(rows, cols).to(device)
        apart = (positions[:, None] - positions[None]).abs().amax(dim=2)
        far = apart > settings.reach * max(labels.shape[:2])
        first_penalty, self._penalty = (
            torch.zeros(far.shape, device=device).masked_fill_(far, penalty)
            for penalty in (settings.far_penalty, torch.inf)
        )
        flat = torch.from_numpy(labels.reshape(len(cells), -1)).to(device)
        self._first = Voters(unit(cells - self._mean), flat, first_penalty)
        self._previous: deque[Voters] = deque(maxlen=settings.previous)

    def step(self, maps: FeatureMaps) -> NDArray[np.float32]:
        """The labels of the next frame, (rows, cols, k) float32; each cell's add up to 1."""
        cells = unit(self._cells(maps) - self._mean)
        context, settings = [self._first, *self._previous], self._settings
        labels = vote(cells, context, settings.neighbours, settings.temperature)
        self._previous.append(Voters(cells, labels, self._penalty))
        return np.asarray(labels.reshape(self._shape).cpu())

    def _cells(self, maps: FeatureMaps) -> "torch.Tensor":
        import torch

        return torch.from_numpy(maps.valid_cells(maps.appearance)).to(self._device)


@dataclass(frozen=True)
class Voters:
    """The cells of a frame that votes.

    cells: (m, d) float32, unit vectors. labels: (m, k) float32. penalty: (n, m) float32, subtracted
    from the cosine of each voter with each of the n cells that it votes for; a voter with an
    infinite penalty has no vote.
    """

    cells: "torch.Tensor"
    labels: "torch.Tensor"
    penalty: "torch.Tensor"


def vote(
    cells: "torch.Tensor",
    context: Sequence[Voters],
    neighbours: int,
    temperature: float,
) -> "torch.Tensor":
    """The labels of a frame's cells, voted for by the most similar cells of other frames, (n, k).

    The labels of a cell are a weighted mean over its `neighbours` best voters of all frames. The
    weights are a softmax of (cosine - penalty) / temperature. cells: (n, d) float32, unit vectors.
    """
    import torch

    cosines, labels = [], []
    for voters in context:
        # Frame by frame, because one matrix for all frames would be large.
        similarity = (cells @ voters.cells.T).sub_(voters.penalty)
        best = similarity.topk(min(neighbours, len(voters.cells)), dim=1)
        cosines.append(best.values)
        labels.append(voters.labels[best.indices])
    gathered = torch.cat(cosines, dim=1)
    chosen = gathered.topk(min(neighbours, gathered.shape[1]), dim=1)
    weights = torch.softmax(chosen.values / temperature, dim=1)
    voted = torch.cat(labels, dim=1).take_along_dim(chosen.indices[:, :, None], dim=1)
    return (weights[:, :, None] * voted).sum(dim=1)


def cell_labels(ids: Ids, objects: list[int], frame: Frame) -> NDArray[np.float32]:
    """The shares of background and objects in each valid cell, (rows, cols, 1 + k) float32.

    They are shares of the cell's area, with one exception: an object that is too small to fill a
    cell counts as if it filled the cell that it covers most. The shares of a cell add up to 1.

    ids: (height, width) object ids of source pixels; ids that are not in `objects` are background.
    """
    parts = [frame.coverage(ids == number)[: frame.rows, : frame.cols] for number in objects]
    filled = [part / max(float(part.max()), 1e-6) for part in parts]
    covered = np.stack(filled, axis=2)
    rest = np.clip(1.0 - covered.sum(axis=2, keepdims=True), 0.0, 1.0)
    labels = np.concatenate([rest, covered], axis=2)
    return np.asarray(labels / labels.sum(axis=2, keepdims=True), dtype=np.float32)
