"""Labels of objects carried through a video, from feature map to feature map.

The vote of the literature on video label propagation (STC, Jabri et al., NeurIPS 2020; DINO, Caron
et al., ICCV 2021; DIFT, Tang et al., NeurIPS 2023): every cell of a frame takes the labels of the
cells most like it in the first frame and in a few frames before.
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
from features.extractor import FeatureExtractor
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

# Frames a model evaluation.
_BATCH = 2

# Edges are looked for in the frame at this many pixels along its longer side, by a guided filter.
_GUIDE = 427
_RADIUS = 8
_EPS = 1e-3

_LINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class PropagationSettings:
    """How a cell's labels are voted for.

    The defaults are DINO's but for `neighbours` (DINO: 5) and `strange` (DINO: nothing votes from
    beyond reach), chosen on composed videos.

    previous: frames before this one that vote, beside the first.
    neighbours: cells that vote, those most like the cell, over all these frames together.
    reach: how far off a voter may lie, in rows and in columns, as a part of the map's longer side.
    strange: how much less like the cell a cell of the first frame counts that lies beyond reach, in
        cosine. So an object that was away comes back where it likes, and yet a look-alike
        elsewhere does not take its name while it is there.
    temperature: votes weigh exp(cosine / temperature).
    """

    previous: int = 7
    neighbours: int = 3
    reach: float = 0.25
    strange: float = 0.1
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

    ids: those of the first frame, 0 where there is no object. A frame without a picture, or of
    another size than the first, comes back without its picture, with its problem and the ids of the
    frame before. sharpen: let edges follow the picture's. Raises ModelError where the model gives
    no finite features.
    """
    objects = [int(number) for number in np.unique(ids) if number]
    [maps] = _extract([first], extractor)
    labels = cell_labels(ids, objects, maps.frame)
    device = extractor.model.device if isinstance(extractor, FeatureExtractor) else "cpu"
    propagator = LabelPropagator(maps, labels, settings or PropagationSettings(), device)
    remaining = iter(frames)
    while batch := [_checked(frame, first) for frame in islice(remaining, _BATCH)]:
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
        if not np.isfinite(found.pooled()).all():
            raise ModelError(f"{photo.path}: the model gave no finite features for it")
    return maps


def _ids_of(
    labels: NDArray[np.float32], frame: Frame, objects: list[int], guide: Image.Image | None
) -> Ids:
    """The ids that cells' labels, (rows, cols, 1 + k), come to in source pixels."""
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
    # The filter keeps sums, so what is left of 1 is the background's.
    best = np.concatenate([1 - full.sum(axis=0, keepdims=True), full]).argmax(axis=0)
    return np.array([0, *objects], dtype=np.uint8)[best]


class LabelPropagator:
    """Carries soft labels from frame to frame; what it keeps does not grow with the video.

    maps: of the first frame; all others must be of its size. labels: (rows, cols, k) float32 over
    its valid cells, each cell's labels adding up to 1.
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
        # What all cells have in common tells none from another. It is the first frame's mean for
        # all of them, so that any two frames' cosines are about the same point.
        self._mean = cells.mean(dim=0)
        rows, cols = torch.arange(labels.shape[0]), torch.arange(labels.shape[1])
        places = torch.cartesian_prod(rows, cols).to(device)
        apart = (places[:, None] - places[None]).abs().amax(dim=2)
        far = apart > settings.reach * max(labels.shape[:2])
        strange, self._beyond = (
            torch.zeros(far.shape, device=device).masked_fill_(far, penalty)
            for penalty in (settings.strange, torch.inf)
        )
        voters = torch.from_numpy(labels.reshape(len(cells), -1)).to(device)
        self._first = Voters(unit(cells - self._mean), voters, strange)
        self._previous: deque[Voters] = deque(maxlen=settings.previous)

    def step(self, maps: FeatureMaps) -> NDArray[np.float32]:
        """Labels of the next frame, (rows, cols, k) float32; each cell's add up to 1."""
        cells = unit(self._cells(maps) - self._mean)
        context, settings = [self._first, *self._previous], self._settings
        labels = vote(cells, context, settings.neighbours, settings.temperature)
        self._previous.append(Voters(cells, labels, self._beyond))
        return np.asarray(labels.reshape(self._shape).cpu())

    def _cells(self, maps: FeatureMaps) -> "torch.Tensor":
        import torch

        return torch.from_numpy(maps.valid_cells(maps.appearance)).to(self._device)


@dataclass(frozen=True)
class Voters:
    """The cells of a frame that votes.

    cells: (m, d) float32, unit vectors. labels: (m, k) float32. penalty: (n, m) float32, what each
    of them loses in cosine with each of the n cells that are voted on; infinite takes the vote.
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
    """Labels of a frame's cells by those cells of other frames that are most like them, (n, k).

    cells: (n, d) float32, unit vectors. A cell's labels are the mean of those of its `neighbours`
    best, of all frames together, weighed by a softmax over their cosines, less the penalty, divided
    by the temperature.
    """
    import torch

    cosines, labels = [], []
    for voters in context:
        # Frame by frame: all at once would take a matrix of cells by the cells of all frames.
        likeness = (cells @ voters.cells.T).sub_(voters.penalty)
        best = likeness.topk(min(neighbours, len(voters.cells)), dim=1)
        cosines.append(best.values)
        labels.append(voters.labels[best.indices])
    gathered = torch.cat(cosines, dim=1)
    chosen = gathered.topk(min(neighbours, gathered.shape[1]), dim=1)
    weights = torch.softmax(chosen.values / temperature, dim=1)
    voted = torch.cat(labels, dim=1).take_along_dim(chosen.indices[:, :, None], dim=1)
    return (weights[:, :, None] * voted).sum(dim=1)


def cell_labels(ids: Ids, objects: list[int], frame: Frame) -> NDArray[np.float32]:
    """How much of each valid cell is background, and each object: (rows, cols, 1 + k) float32.

    ids: (height, width) object ids in source pixels; those not in `objects` count as background.
    Parts of the cell's area, but an object so small that it fills no cell counts as if it did fill
    the one that it covers most. Each cell's labels add up to 1.
    """
    parts = [frame.coverage(ids == number)[: frame.rows, : frame.cols] for number in objects]
    filled = [part / max(float(part.max()), 1e-6) for part in parts]
    covered = np.stack(filled, axis=2)
    rest = np.clip(1.0 - covered.sum(axis=2, keepdims=True), 0.0, 1.0)
    labels = np.concatenate([rest, covered], axis=2)
    return np.asarray(labels / labels.sum(axis=2, keepdims=True), dtype=np.float32)
