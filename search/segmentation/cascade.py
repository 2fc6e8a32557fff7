"""Masks drawn by a promptable mask model, whose prompts come from the evidence.

This is the cascade of PerSAM (Zhang et al., ICLR 2024), which PDM uses too.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.frame import Frame
from search.segmentation.graph_cut import cut_object
from search.segmentation.segment import Draw, box_around

# Pixels whose evidence is less than this below the highest form the peak; the innermost of them is
# the prompt.
_PEAK = 0.05


@dataclass(frozen=True)
class Prompt:
    """The input of a mask model; coordinates are pixels of the picture, x right, y down.

    points: (n, 2) float32, (x, y). labels: (n,) int64, 1 for a point on the object, 0 for others.
    box: [x0, y0, x1, y1] around the object. logits: (side, side) float32, a mask from an earlier
    answer of the model.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    box: tuple[float, float, float, float] | None = None
    logits: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Proposals:
    """The masks that a model proposes for one prompt.

    logits: (m, side, side) float32, as the model gives them. drawn: (m, height, width) float32,
    the logits scaled to the picture, positive inside the mask.
    """

    logits: NDArray[np.float32]
    drawn: NDArray[np.float32]


class MaskModel(Protocol):
    """A promptable mask model such as SAM."""

    def encode(self, picture: Image.Image) -> Any:
        """Encode an RGB picture, once for all prompts."""
        ...

    def propose(self, encoded: Any, prompt: Prompt) -> Proposals:
        """The masks for one prompt in an encoded picture."""
        ...


def prompted_by(model: MaskModel) -> Draw:
    """A `Draw` that asks a mask model in two rounds.

    The first prompt has two points, where the evidence is highest and where it is lowest. The
    second prompt adds the best mask of the first round, and the box around it. The result is the
    mask of both rounds that has the highest `agreement`. The model is not asked where there is no
    evidence for the object, and `cut_object` draws the mask where no proposed mask agrees.
    """

    def draw(cells: NDArray[np.float32], frame: Frame, picture: Image.Image) -> NDArray[np.bool_]:
        evidence = frame.to_photo(cells, *picture.size)
        if evidence.max() <= 0:
            return np.zeros((frame.height, frame.width), dtype=bool)
        encoded = model.encode(picture)
        points = np.array([_innermost_peak(evidence), _innermost_peak(-evidence)], np.float32)
        asked = Prompt(points, np.array([1, 0]))
        first = model.propose(encoded, asked)
        best = _best(first, evidence)
        box = box_around(first.drawn[best] > 0)
        if box is None:
            return cut_object(cells, frame, picture)
        second = model.propose(encoded, Prompt(points, asked.labels, box, first.logits[best]))
        masks = np.concatenate([second.drawn, first.drawn])
        agreements = [agreement(mask > 0, evidence) for mask in masks]
        if max(agreements) <= 0:
            return cut_object(cells, frame, picture)
        chosen = Image.fromarray(masks[np.argmax(agreements)])
        full = chosen.resize((frame.width, frame.height), Image.Resampling.BILINEAR)
        return np.asarray(full) > 0

    return draw


def agreement(mask: NDArray[np.bool_], evidence: NDArray[np.float32]) -> float:
    """The sum of the evidence inside a mask over the sum of all positive evidence, at most 1.

    Negative evidence counts against the mask. So a mask of the object agrees better than a mask of
    a part of it, and better than a mask that includes its surroundings.
    """
    return float(evidence[mask].sum() / evidence[evidence > 0].sum())


def _best(proposals: Proposals, evidence: NDArray[np.float32]) -> int:
    """The index of the mask with the highest agreement."""
    return int(np.argmax([agreement(drawn > 0, evidence) for drawn in proposals.drawn]))


def _innermost_peak(values: NDArray[np.float32]) -> tuple[float, float]:
    """The pixel of the peak that is farthest from the edge of the peak: its centre, (x, y)."""
    from scipy import ndimage

    peak = values >= values.max() - _PEAK
    depth = ndimage.distance_transform_edt(np.pad(peak, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return float(column) + 0.5, float(row) + 0.5
