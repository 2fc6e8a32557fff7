"""Personalized segmentation, measured on PerSeg and PerMIS: IoU and boundary IoU of masks."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import load_model_input
from search.evaluation.benchmarks.permir import read_permis
from search.evaluation.benchmarks.perseg import SegmentationObject, read_mask, read_perseg
from search.evaluation.metrics.masks import boundaries, boundary_iou, cumulative_iou, mask_iou
from search.evaluation.metrics.ranking import bootstrap_interval
from search.evaluation.paper import published
from search.evaluation.report import versions
from search.evaluation.run_store import RunResults, results_folder
from search.query import Query
from search.reference import Reference, make_reference
from search.scores import SCORES
from search.segmentation.segment import (
    ObjectTokens,
    Refine,
    candidates_of,
    draw_mask,
    load_picture,
    object_evidence,
    sharpen,
)

if TYPE_CHECKING:
    import torch

Mask = NDArray[np.bool_]
# What is being done, how much of it is done, and how much there is.
OnStep = Callable[[str, int, int], None]

# Where PDM cuts a map between its minimum and its maximum.
_THRESHOLD = 0.7

PROTOCOLS: dict[str, Callable[[Path], list[SegmentationObject]]] = {
    "perseg": read_perseg,
    "permis": read_permis,
}


@dataclass(frozen=True)
class Seen:
    """One photo beside a reference. maps: the photo's. picture: itself, RGB, upright, small."""

    reference: Reference
    maps: FeatureMaps
    picture: Image.Image
    device: "torch.device"


@dataclass(frozen=True)
class MaskMethod:
    """A way to find an object's pixels.

    rule: gives the mask, (height, width) bool of the upright photo. by_class: the object is shown
    by its class name alone, else by its mask. needs_class: cannot do without a class name.
    """

    name: str
    rule: Callable[[Seen], Mask]
    by_class: bool = False
    needs_class: bool = False


def evidence_mask(refine: Refine) -> Callable[[Seen], Mask]:
    """What `waldo segment` does."""

    def rule(seen: Seen) -> Mask:
        return draw_mask(_evidence(seen), seen.maps.frame, seen.picture, refine)

    return rule


def unsharpened_mask(seen: Seen) -> Mask:
    """The same, upsampled only."""
    frame = seen.maps.frame
    return frame.to_photo(_evidence(seen), frame.width, frame.height) > 0


def map_mask(score: str) -> Callable[[Seen], Mask]:
    """A score's map, upsampled, above 0.7 between its minimum and its maximum (PDM)."""

    def rule(seen: Seen) -> Mask:
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
    MaskMethod("segment", evidence_mask(sharpen)),
    MaskMethod("segment-by-class", evidence_mask(sharpen), by_class=True, needs_class=True),
    MaskMethod("segment-unsharpened", unsharpened_mask),
    MaskMethod("pdm", map_mask("pdm")),
    MaskMethod("pdm-by-class", map_mask("pdm"), by_class=True, needs_class=True),
    MaskMethod("appearance", map_mask("appearance")),
    MaskMethod("semantic", map_mask("semantic"), needs_class=True),
)
METHODS = {method.name: method for method in _ALL}


@dataclass(frozen=True)
class TargetResult:
    """How well an object's mask in one photo fits: IoU and boundary IoU, 0..1."""

    photo: str
    iou: float
    boundary_iou: float


@dataclass(frozen=True)
class ObjectResult:
    """How well one object was found by one method.

    iou, boundary_iou: of all its photos' pixels together, PerSeg's; intersection, union: those
    pixels.
    """

    name: str
    targets: list[TargetResult]
    iou: float
    boundary_iou: float
    intersection: int
    union: int

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ObjectResult":
        """What `asdict` made of one."""
        targets = [TargetResult(**target) for target in values["targets"]]
        return cls(**{**values, "targets": targets})


def select_mask_methods(
    names: list[str], objects: list[SegmentationObject], sam: Refine | None
) -> list[MaskMethod]:
    """Methods by name; for no name, all that the benchmark has the class names for.

    sam: what adds the methods "sam" and "sam-by-class". Raises WaldoError for an unknown one, and
    for one that cannot run.
    """
    known = METHODS
    if sam is not None:
        rule = evidence_mask(sam)
        known = known | {
            "sam": MaskMethod("sam", rule),
            "sam-by-class": MaskMethod("sam-by-class", rule, by_class=True, needs_class=True),
        }
    named = all(item.class_name is not None for item in objects)
    for name in names:
        if name not in known:
            hint = "" if sam is not None else " (sam and sam-by-class with --sam MODEL)"
            raise WaldoError(f"--method {name}: no such method; one of {', '.join(known)}{hint}")
        if known[name].needs_class and not named:
            raise WaldoError(
                f"--method {name}: needs every object's class name, which this benchmark does not "
                "give"
            )
    if names:
        return [known[name] for name in names]
    return [method for method in known.values() if named or not method.needs_class]


def masks_folder(
    work: Path,
    protocol: str,
    objects: list[SegmentationObject],
    extractor: FeatureExtractor,
    others: list[Path],
) -> Path:
    """The folder for the results of an unfinished `evaluate_masks`. others: files that decide them
    beside the benchmark's. Raises WaldoError for one that is not there.
    """
    import torch

    pairs = [pair for item in objects for pair in (item.reference, *item.targets)]
    files = [path for pair in pairs for path in (pair.photo, pair.mask)]
    asked = [[item.name, item.class_name, len(item.targets)] for item in objects]
    settings = [extractor.fingerprint(), extractor.model.device.type, torch.__version__, asked]
    return results_folder(work, protocol, [*files, *others], settings)


def evaluate_masks(
    protocol: str,
    objects: list[SegmentationObject],
    extractor: FeatureExtractor,
    methods: list[MaskMethod],
    kept: RunResults,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Methods on a segmentation benchmark, as JSON-ready values, fractions 0..1.

    kept: gets every object's results; those that it has are not measured again.

    "methods" holds for each "mIoU" with its 95 % bootstrap interval over objects and "bIoU", as the
    protocol has them (PerSeg: an object's photos count together, pixel by pixel; PerMIS: the mean
    over photos), and "cumulative_IoU", all pixels of all photos together, which is what the code
    published with PDM calls mIoU. "objects" holds every object's own. "n_queries" are objects,
    "n_gallery" their photos. Raises WaldoError for what cannot be read.
    """
    results: dict[str, list[ObjectResult]] = {method.name: [] for method in methods}
    for done, item in enumerate(objects):
        if on_step is not None:
            on_step("segmenting, objects", done, len(objects))
        found = kept.of(item.name)
        if missing := [method for method in methods if method.name not in found]:
            measured = measure_object(item, extractor, missing)
            found |= {method.name: asdict(result) for method, result in measured}
            kept.keep(item.name, found)
        for name, of_method in results.items():
            of_method.append(ObjectResult.from_dict(found[name]))
    return {
        "protocol": protocol,
        "model": extractor.fingerprint(),
        "methods": {name: _summary(protocol, found) for name, found in results.items()},
        "n_queries": len(objects),
        "n_gallery": sum(len(item.targets) for item in objects),
        "objects": {name: [asdict(item) for item in found] for name, found in results.items()},
        "versions": versions(),
        "paper": published(protocol),
    }


def measure_object(
    item: SegmentationObject, extractor: FeatureExtractor, methods: list[MaskMethod]
) -> Iterator[tuple[MaskMethod, ObjectResult]]:
    """Each method's result on one object."""
    size, grid = extractor.image_size, extractor.grid
    by_mask = Query(item.reference.photo, item.class_name, item.reference.mask)
    by_class = Query(item.reference.photo, item.class_name)
    references = {
        way: make_reference(by_class if way else by_mask, extractor)
        for way in dict.fromkeys(method.by_class for method in methods)
    }
    photos = [target.photo for target in item.targets]
    all_maps = extractor.extract([load_model_input(photo, size, grid) for photo in photos])
    masks: dict[str, list[tuple[Mask, Mask]]] = {method.name: [] for method in methods}
    for target, maps in zip(item.targets, all_maps, strict=True):
        truth, picture = read_mask(target.mask), load_picture(target.photo)
        for method in methods:
            seen = Seen(references[method.by_class], maps, picture, extractor.model.device)
            masks[method.name].append((method.rule(seen), truth))
    for method in methods:
        pairs = masks[method.name]
        targets = [
            TargetResult(str(photo), mask_iou(*pair), boundary_iou(*pair))
            for photo, pair in zip(photos, pairs, strict=True)
        ]
        yield (
            method,
            ObjectResult(
                item.name,
                targets,
                iou=cumulative_iou(pairs),
                boundary_iou=cumulative_iou(boundaries(*pair) for pair in pairs),
                intersection=sum(int((found & truth).sum()) for found, truth in pairs),
                union=sum(int((found | truth).sum()) for found, truth in pairs),
            ),
        )


def _evidence(seen: Seen) -> NDArray[np.float32]:
    """(grid, grid) float32, positive for the object."""
    import torch

    tokens = ObjectTokens.of(seen.reference, seen.device)
    with torch.inference_mode():
        evidence = object_evidence(tokens, candidates_of(seen.maps, seen.reference, seen.device))
    return evidence.cpu().numpy().reshape(seen.maps.frame.grid, -1)


def _summary(protocol: str, results: list[ObjectResult]) -> dict[str, Any]:
    if protocol == "perseg":
        fits = [[result.iou] for result in results]
        edges = [[result.boundary_iou] for result in results]
    else:
        fits = [[target.iou for target in result.targets] for result in results]
        edges = [[target.boundary_iou for target in result.targets] for result in results]
    union = sum(result.union for result in results)
    return {
        "mIoU": float(np.mean(np.concatenate(fits))),
        "mIoU_interval": list(bootstrap_interval([float(np.mean(fit)) for fit in fits])),
        "bIoU": float(np.mean(np.concatenate(edges))),
        "cumulative_IoU": sum(result.intersection for result in results) / max(1, union),
    }


def table_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Each method's row: text by column, the same columns for all, in percent."""
    return {
        name: {
            "mIoU": _percent(values["mIoU"]),
            "95 % interval": " to ".join(map(_percent, values["mIoU_interval"])),
            "bIoU": _percent(values["bIoU"]),
            "cumulative IoU": _percent(values["cumulative_IoU"]),
        }
        for name, values in report["methods"].items()
    }


def _percent(part: float) -> str:
    return f"{100 * part:.1f}"
