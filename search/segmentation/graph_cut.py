"""The mask of an object in a picture: a minimum cut by coarse evidence, colours and edges.

This is GrabCut (Rother, Kolmogorov and Blake, 2004) with soft evidence instead of a drawn box:
every pixel has a gain for belonging to the object, and every two neighbours of similar colours cost
something if a border runs between them. The cheapest mask is found exactly, as a minimum cut
(Boykov and Jolly, 2001). Nothing is random.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from features.frame import Frame
from search.segmentation.guided_filter import guided_filter

Mask = NDArray[np.bool_]
Values = NDArray[np.float32]

# All constants were chosen on the validation scenes and on photographic cut-outs.
# The part of the picture that is looked at: so many cells beyond the cells of the object, scaled to
# so many pixels along its longer side. The object never reaches beyond it.
_MARGIN = 5.0
_LONGEST = 128
# The guided filter: how many cells a window reaches in each direction, and the ridge weight.
_WINDOW = 2.0
_EPS = 1e-4
# Evidence of this much or more counts fully. Its weight, beside colours.
_FULL_EVIDENCE = 0.5
_EVIDENCE_WEIGHT = 3.0
# Colours are counted in so many bins of lightness, green to red, and blue to yellow (CIELAB, +-60);
# the counts are smoothed by a Gaussian with this standard deviation, in bins.
_BINS = 16
_SMOOTHING = 0.5
# The logarithm of how much likelier a colour is in the object than around it lies within +-3.
_COLOUR_LIMIT = 3.0
_RAREST = 1e-4
# The cost of a border between neighbours of equal colour; the part that every border costs.
_CONTRAST = 3.0
_LENGTH = 0.2
# The gain of pixels that cannot be the object, and the unit of the capacities, which are integers.
_NEVER = -50.0
_UNIT = 1000

_BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Cut:
    """The mask of an object as it was cut: in a part of the photo, made smaller.

    mask: (h, w) bool. part: [x0, y0, x1, y1], what it shows of the photo, in pixels.
    """

    mask: Mask
    part: tuple[int, int, int, int]

    def to_photo(self, width: int, height: int) -> Mask:
        """The mask in the pixels of the photo, (height, width) bool."""
        x0, y0, x1, y1 = self.part
        scaled = Image.fromarray(self.mask.astype(np.float32)).resize((x1 - x0, y1 - y0), _BILINEAR)
        mask = np.zeros((height, width), dtype=bool)
        mask[y0:y1, x0:x1] = np.asarray(scaled) > 0.5
        return mask


def cut_object(evidence: Values, frame: Frame, picture: Image.Image) -> Mask:
    """The mask of the object in a photo, (height, width) bool; see `cut_part`.

    It is empty only where no evidence is positive.
    """
    cut = cut_part(evidence, frame, picture)
    if cut is None:
        return np.zeros((frame.height, frame.width), dtype=bool)
    return cut.to_photo(frame.width, frame.height)


def cut_part(evidence: Values, frame: Frame, picture: Image.Image) -> Cut | None:
    """The mask of the object in its surroundings; None where no evidence is positive.

    The object's and the background's colours are learnt from the pixels that the evidence is sure
    of. Where colours and edges tell nothing, as in a picture of one colour, the mask is where the
    evidence is positive.

    evidence: (grid, grid) float32, positive for the object, by cell. picture: the photo, RGB, of
    any size.
    """
    positive = (evidence > 0) & frame.valid()
    if not positive.any():
        return None
    box = _surroundings(frame, frame.box_of(positive))
    pixels, scale = _zoomed(picture, frame, box)
    height, width = pixels.shape[:2]
    drawn = frame.to_photo(evidence, width, height, box)
    guide = pixels.astype(np.float32) / np.float32(255.0)
    followed = guided_filter(guide, drawn, max(1, round(_WINDOW * frame.cell[0] * scale)), _EPS)
    sure = np.clip(followed / _FULL_EVIDENCE, -1.0, 1.0)
    gain = _EVIDENCE_WEIGHT * sure + colour_evidence(pixels, sure)
    x0, y0, x1, y1 = box
    gain[:, : int(x0 > 0)] = gain[: int(y0 > 0)] = _NEVER
    gain[:, width - int(x1 < frame.width) :] = gain[height - int(y1 < frame.height) :] = _NEVER
    found = minimum_cut(gain, pixels.astype(np.float32))
    return Cut(found if found.any() else drawn > 0, box)


def colour_evidence(pixels: NDArray[np.uint8], sure: Values) -> Values:
    """How much likelier each pixel's colour is in the object than around it, (h, w), -3..3.

    pixels: (h, w, 3) RGB. sure: (h, w), 1 for pixels of the object, -1 for the others, and what is
    between for the uncertain ones, which count less.
    """
    levels = np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), _to_lab()))
    lightness = levels[:, :, 0].astype(np.float32) / 255
    # Pillow gives the two other channels as bytes with a sign.
    opponents = (levels[:, :, 1:].view(np.int8).astype(np.float32) + 60) / 120
    shares = np.concatenate([lightness[:, :, None], opponents], axis=2)
    bins = np.clip((shares * _BINS).astype(np.int64), 0, _BINS - 1)
    codes = np.ravel_multi_index(tuple(np.moveaxis(bins, 2, 0)), (_BINS,) * 3)
    inside, outside = (_histogram(codes, np.maximum(side, 0)) for side in (sure, -sure))
    ratio = np.log((inside + _RAREST) / (outside + _RAREST))
    return np.asarray(np.clip(ratio, -_COLOUR_LIMIT, _COLOUR_LIMIT)[codes], dtype=np.float32)


def minimum_cut(gain: Values, colours: Values) -> Mask:
    """The mask with the highest sum of gains less the costs of its border, (h, w) bool.

    A border between two of a pixel's eight neighbours costs 3 exp(-d / mean(2 d)) + 0.2, where d is
    the squared distance of their colours; diagonal borders cost 0.7 of this. Of several best masks
    it is the smallest.

    gain: (h, w), what a pixel adds to the sum. colours: (h, w, channels).
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    first, second, cost = _borders(colours)
    flat = np.round(_UNIT * gain.ravel()).astype(np.int32)
    pixels, source, sink = flat.size, flat.size, flat.size + 1
    inside, outside = (np.flatnonzero(side).astype(np.int32) for side in (flat > 0, flat < 0))
    start = [first, second, np.full(len(inside), source, np.int32), outside]
    end = [second, first, inside, np.full(len(outside), sink, np.int32)]
    capacity = np.concatenate([cost, cost, flat[inside], -flat[outside]])
    size = (pixels + 2, pixels + 2)
    graph = csr_array((capacity, (np.concatenate(start), np.concatenate(end))), shape=size)
    left = graph - maximum_flow(graph, source, sink).flow
    # What the source still reaches belongs to the object. Entries of 0 are no edges.
    left.eliminate_zeros()
    reached = np.zeros(pixels + 2, dtype=bool)
    reached[breadth_first_order(left, source, return_predecessors=False)] = True
    return reached[:pixels].reshape(gain.shape)


def _borders(
    colours: Values,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """All pairs of neighbours: the numbers of both pixels, and the cost of a border, in units."""
    height, width = colours.shape[:2]
    numbers = np.arange(height * width, dtype=np.int32).reshape(height, width)
    every, head, tail = slice(None), slice(0, -1), slice(1, None)
    diagonal = 1 / np.sqrt(2)
    sides = [
        ((every, head), (every, tail), 1.0),
        ((head, every), (tail, every), 1.0),
        ((head, head), (tail, tail), diagonal),
        ((head, tail), (tail, head), diagonal),
    ]
    first = np.concatenate([numbers[a].ravel() for a, _, _ in sides])
    second = np.concatenate([numbers[b].ravel() for _, b, _ in sides])
    share = np.concatenate([np.full(numbers[a].size, weight) for a, _, weight in sides])
    apart = np.concatenate(
        [((colours[a] - colours[b]) ** 2).sum(axis=2).ravel() for a, b, _ in sides]
    )
    mean = float(apart.mean()) if apart.size else 0.0
    cost = _CONTRAST * np.exp(-apart / max(2 * mean, 1e-6)) + _LENGTH
    return first, second, np.round(_UNIT * share * cost).astype(np.int32)


def _histogram(codes: NDArray[np.int64], weights: Values) -> NDArray[np.float64]:
    """The share of each colour, smoothed over similar ones, (bins^3,); weights: (h, w), >= 0."""
    from scipy import ndimage

    counts = np.bincount(codes.ravel(), weights.ravel(), _BINS**3).reshape((_BINS,) * 3)
    smooth = ndimage.gaussian_filter(counts, _SMOOTHING, mode="constant", truncate=3.0)
    return np.asarray(smooth / max(smooth.sum(), 1e-12)).ravel()


def _surroundings(frame: Frame, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """A box of the photo, enlarged by the margin on each side, within the photo."""
    x, y = (_MARGIN * side for side in frame.cell)
    return (
        max(0, int(box[0] - x)),
        max(0, int(box[1] - y)),
        min(frame.width, int(np.ceil(box[2] + x))),
        min(frame.height, int(np.ceil(box[3] + y))),
    )


def _zoomed(
    picture: Image.Image, frame: Frame, box: tuple[int, int, int, int]
) -> tuple[NDArray[np.uint8], float]:
    """A part of the photo, (h, w, 3), at most 128 pixels long, and its pixels per source pixel.

    It is not enlarged beyond the pixels of the picture.
    """
    wide, high = picture.width / frame.width, picture.height / frame.height
    longer = max(box[2] - box[0], box[3] - box[1])
    scale = min(_LONGEST / longer, max(wide, high))
    size = max(1, round(scale * (box[2] - box[0]))), max(1, round(scale * (box[3] - box[1])))
    part = (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high)
    return np.asarray(picture.resize(size, Image.Resampling.BOX, part)), scale


@cache
def _to_lab() -> Any:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(*profiles, "RGB", "LAB")
