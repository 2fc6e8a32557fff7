"""Ways to find the pixels of an object: those of `waldo segment`, of PDM, and single maps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import WaldoError
from features.maps import FeatureMaps
from search.evaluation.benchmarks.labelled_objects import SegmentationObject
from search.evaluation.by_object import choose_methods
from search.reference import Reference
from search.scoring.scores import SCORES
from search.segmentation.graph_cut import cut_object
from search.segmentation.segment import (
    Draw,
    ObjectTokens,
    Resemblance,
    candidates_of,
    object_evidence,
    resemblances,
)

if TYPE_CHECKING:
    import torch

Mask = NDArray[np.bool_]

# PDM's threshold between the minimum and the maximum of a map.
_THRESHOLD = 0.7


@dataclass(frozen=True)
class MaskInput:
    """What a method sees: a reference and one photo. maps: the photo's. picture: the photo, RGB,
    upright, as `load_picture` gives it.
    """

    reference: Reference
    maps: FeatureMaps
    picture: Image.Image
    device: "torch.device"


@dataclass(frozen=True)
class MaskMethod:
    """A way to find the pixels of an object.

    rule: gives the mask, (height, width) bool, in the upright photo's pixels. by_class: the
    reference selects the object by its class name alone, not by its mask. needs_class: whether the
    method needs a class name.
    """

    name: str
    rule: Callable[[MaskInput], Mask]
    by_class: bool = False
    needs_class: bool = False


def object_mask(draw: Draw) -> Callable[[MaskInput], Mask]:
    """The rule of `waldo segment`."""

    def rule(seen: MaskInput) -> Mask:
        import torch

        with torch.inference_mode():
            frame = seen.maps.frame
            return draw(object_evidence(_resemblance(seen), frame), frame, seen.picture)

    return rule


def unsharpened_mask(seen: MaskInput) -> Mask:
    """The first evidence of `waldo segment`, upsampled without refinement."""
    frame = seen.maps.frame
    return frame.to_photo(first_evidence(seen), frame.width, frame.height) > 0


def map_mask(score: str) -> Callable[[MaskInput], Mask]:
    """The map of a score, upsampled, above 0.7 between its minimum and its maximum (PDM)."""

    def rule(seen: MaskInput) -> Mask:
        import torch

        frame = seen.maps.frame
        candidates = candidates_of(seen.maps, seen.reference, seen.device)
        with torch.inference_mode():
            heat = SCORES[score].heat(seen.reference.for_scoring(seen.device), candidates)
        cells = heat.cpu().numpy().reshape(frame.grid, frame.grid)
        valid = cells[frame.valid()]
        least = valid.min() + _THRESHOLD * (valid.max() - valid.min())
        return frame.to_photo(cells, frame.width, frame.height) > least

    return rule


_ALL = (
    MaskMethod("segment", object_mask(cut_object)),
    MaskMethod("segment-by-class", object_mask(cut_object), by_class=True, needs_class=True),
    MaskMethod("segment-unsharpened", unsharpened_mask),
    MaskMethod("pdm", map_mask("pdm")),
    MaskMethod("pdm-by-class", map_mask("pdm"), by_class=True, needs_class=True),
    MaskMethod("appearance", map_mask("appearance")),
    MaskMethod("semantic", map_mask("semantic"), needs_class=True),
)
MASK_METHODS = {method.name: method for method in _ALL}


def select_mask_methods(
    names: list[str], objects: list[SegmentationObject], sam: Draw | None
) -> list[MaskMethod]:
    """Methods by name; where no name is given, all that the benchmark has the class names for.

    sam: the rule that adds the methods "sam" and "sam-by-class"; None for neither. Raises
    WaldoError for an unknown method, and for one that cannot run.
    """
    known = dict(MASK_METHODS)
    if sam is not None:
        rule = object_mask(sam)
        known["sam"] = MaskMethod("sam", rule)
        known["sam-by-class"] = MaskMethod("sam-by-class", rule, by_class=True, needs_class=True)
    elif lacking := {"sam", "sam-by-class"}.intersection(names):
        raise WaldoError(f"method {min(lacking)}: needs a SAM; name its model or folder as sam")
    all_named = all(item.class_name is not None for item in objects)
    chosen = choose_methods(names, known).values()
    if not names:
        return [method for method in chosen if all_named or not method.needs_class]
    for method in chosen:
        if method.needs_class and not all_named:
            raise WaldoError(
                f"method {method.name}: needs the class name of every object, which this benchmark "
                "does not give"
            )
    return list(chosen)


def first_evidence(seen: MaskInput) -> NDArray[np.float32]:
    """(grid, grid) float32, positive for the object, as the reference alone tells it."""
    import torch

    with torch.inference_mode():
        evidence = _resemblance(seen).evidence()
    return evidence.cpu().numpy().reshape(seen.maps.frame.grid, -1)


def _resemblance(seen: MaskInput) -> Resemblance:
    tokens = ObjectTokens.of(seen.reference, seen.device)
    return next(resemblances(tokens, candidates_of(seen.maps, seen.reference, seen.device)))
