"""A promptable mask model asked for the object that evidence points at: PerSAM's cascade.

Zhang et al., ICLR 2024; PDM's second way of segmentation.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from search.segmentation.segment import Refine, box_around, sharpen

# Evidence so near its peak counts as the peak; of its pixels the innermost is the prompt.
_PEAK = 0.05


@dataclass(frozen=True)
class Prompt:
    """What a mask model is asked by; coordinates are pixels of the picture, x right, y down.

    points: (n, 2) float32. labels: (n,) int64, 1 on the object, 0 off it. box: [x0, y0, x1, y1].
    logits: (side, side) float32, a mask as the model gave it before.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    box: tuple[float, float, float, float] | None = None
    logits: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Proposals:
    """Masks for one prompt.

    logits: (m, side, side) float32, as the model gives them. drawn: (m, height, width) float32 over
    the picture, positive in the mask.
    """

    logits: NDArray[np.float32]
    drawn: NDArray[np.float32]


class MaskModel(Protocol):
    """SAM, or what can stand for it."""

    def encode(self, picture: Image.Image) -> Any:
        """What the model sees in an RGB picture, for `propose`."""
        ...

    def propose(self, encoded: Any, prompt: Prompt) -> Proposals: ...


def prompted_by(model: MaskModel) -> Refine:
    """A `Refine` that asks a mask model: by points first, then by its best answer's box and mask.

    The points are where evidence is highest and lowest. Of all masks that come in the two rounds
    the one that `agreement` is highest for is taken, not that of some index. Where there is no
    evidence for the object nothing is asked, and where no mask agrees at all the guided filter
    decides.
    """

    def refine(
        picture: Image.Image, evidence: NDArray[np.float32], cell: float
    ) -> NDArray[np.float32]:
        if evidence.max() <= 0:
            return evidence
        encoded = model.encode(picture)
        points = np.array([_innermost_peak(evidence), _innermost_peak(-evidence)], np.float32)
        asked = Prompt(points, np.array([1, 0]))
        first = model.propose(encoded, asked)
        best = _best(first, evidence)
        box = box_around(first.drawn[best] > 0)
        if box is None:
            return sharpen(picture, evidence, cell)
        second = model.propose(encoded, Prompt(points, asked.labels, box, first.logits[best]))
        masks = np.concatenate([second.drawn, first.drawn])
        agreements = [agreement(mask > 0, evidence) for mask in masks]
        if max(agreements) <= 0:
            return sharpen(picture, evidence, cell)
        return np.asarray(masks[np.argmax(agreements)])

    return refine


def agreement(mask: NDArray[np.bool_], evidence: NDArray[np.float32]) -> float:
    """The evidence that a mask takes, over all there is for the object: 1 at most.

    Pixels with evidence against the object count against the mask, so neither a part of the object
    nor the object with its surroundings agrees as well as the object.
    """
    return float(evidence[mask].sum() / evidence[evidence > 0].sum())


def _best(proposals: Proposals, evidence: NDArray[np.float32]) -> int:
    return int(np.argmax([agreement(drawn > 0, evidence) for drawn in proposals.drawn]))


def _innermost_peak(values: NDArray[np.float32]) -> tuple[float, float]:
    """The centre of the pixel, (x, y), farthest from the edge of where values are highest."""
    peak = values >= values.max() - _PEAK
    depth = ndimage.distance_transform_edt(np.pad(peak, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return float(column) + 0.5, float(row) + 0.5
