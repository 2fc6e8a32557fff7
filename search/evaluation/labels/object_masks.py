"""Masks that methods find, measured against true ones: IoU and boundary IoU on PerSeg and PerMIS,
and F1 on PODS.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import WaldoError
from features.maps import FeatureMaps
from features.models import MapExtractor
from features.photo import load_model_input
from indexer.reader import IndexReader
from search.evaluation.benchmarks.labelled_objects import (
    SegmentationBenchmark,
    SegmentationObject,
    read_mask,
)
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.by_object import Results, measure_items, objects_folder, objects_json
from search.evaluation.galleries import Indexing, ids_of, index_gallery
from search.evaluation.labels.mask_methods import Mask, MaskInput, MaskMethod
from search.evaluation.methods.methods import MODEL
from search.evaluation.metrics.detections import Detections, detection_f1
from search.evaluation.metrics.masks import (
    boundaries,
    boundary_iou,
    cumulative_iou,
    largest_part,
    mask_iou,
)
from search.evaluation.metrics.ranking import bootstrap_interval
from search.evaluation.run_store import RunResults
from search.evaluation.steps import OnStep, ignore_step
from search.query import Query
from search.reference import decoded_maps, make_reference
from search.scoring.scores import consistent
from search.segmentation.segment import candidates_of, load_picture

# Gives the maps of photos, in their order.
MapsOf = Callable[[Sequence[Path]], Iterable[FeatureMaps]]

# A photo's score, the area of the mask that was found, that of the true one, and their IoU.
_Sighting = tuple[float, float, float, float]


@dataclass(frozen=True)
class TargetResult:
    """How well the mask of an object fits in one photo: IoU and boundary IoU, 0..1."""

    photo: str
    iou: float
    boundary_iou: float


@dataclass(frozen=True)
class MaskResult:
    """How well a method found one object.

    iou, boundary_iou: those of the pixels of all its photos together, as PerSeg takes them.
    intersection, union: the numbers of these pixels. boundary_intersection, boundary_union: those
    of the boundaries that boundary IoU compares. f1, f1_50: `detection_f1`, the mean over its
    thresholds and at the first, where the object is to be found among photos of others.
    """

    name: str
    targets: list[TargetResult]
    iou: float
    boundary_iou: float
    intersection: int
    union: int
    boundary_intersection: int
    boundary_union: int
    f1: float | None = None
    f1_50: float | None = None


def masks_folder(
    work: Path,
    protocol: str,
    objects: list[SegmentationObject],
    extractor: MapExtractor,
    others: list[Path],
) -> Path:
    """The folder for the results of an unfinished `evaluate_masks`.

    others: files beside the benchmark's that decide the results. Raises WaldoError for a missing
    file.
    """
    pairs = [pair for item in objects for pair in (item.reference, *item.targets)]
    files = [path for pair in pairs for path in (pair.photo, pair.mask)]
    files += {photo: None for item in objects for photo in item.others}
    asked = [[item.name, item.class_name, len(item.targets)] for item in objects]
    return objects_folder(work, protocol, [*files, *others], extractor, asked)


def evaluate_masks(
    protocol: str,
    benchmark: SegmentationBenchmark,
    extractor: MapExtractor,
    methods: list[MaskMethod],
    stored: RunResults,
    on_step: OnStep | None = None,
    work: Path | None = None,
) -> dict[str, Any]:
    """Run methods on a segmentation benchmark; the report is JSON-ready, see `objects_json`.

    A method's summary holds "mIoU" with its 95 % bootstrap interval over objects and "bIoU", as the
    protocol defines them (PerSeg counts the pixels of an object's photos together; PerMIS takes the
    mean over photos). It also holds both in every convention that papers use: "mIoU_per_instance",
    the mean over photos; "mIoU_per_group", the pixels of an object's photos together, then the mean
    over objects, which FoundYou calls mIoU; and "cumulative_IoU", over the pixels of all photos
    together, which the code published with PDM calls mIoU; likewise "bIoU_per_instance",
    "bIoU_per_group" and "cumulative_bIoU".

    Where objects are to be found among photos of others, it has "F1", the mean over objects of
    `detection_f1` and over its thresholds, and "F1_50", that at the first of them.

    stored: gets the results of each object; those that it has already are not measured again.
    work: the folder for an index of these photos, each of which is looked at for every object; it
    is needed where there are such photos. Raises WaldoError for what cannot be read.
    """
    known = {method.name: method for method in methods}
    objects = benchmark.objects

    with _opened_maps(protocol, objects, extractor, work, on_step or ignore_step) as maps_of:

        def measure(item: SegmentationObject, names: list[str]) -> Iterator[tuple[str, Results]]:
            chosen = [known[name] for name in names]
            for method, result in measure_object(item, extractor, chosen, maps_of):
                yield method.name, [asdict(result)]

        items = {item.name: item for item in objects}
        results = measure_items(items, list(known), measure, stored, on_step)
    n_photos = sum(len(item.targets) for item in objects)
    summarise = _summary_over_objects if protocol == "perseg" else _summary_over_photos
    return objects_json(
        *(protocol, extractor, results, summarise, len(objects), n_photos),
        convention=benchmark.convention,
    )


@contextmanager
def _opened_maps(
    protocol: str,
    objects: list[SegmentationObject],
    extractor: MapExtractor,
    work: Path | None,
    on_step: OnStep,
) -> Iterator[MapsOf]:
    """What gives the maps of photos: the extractor, or an index where many objects share photos."""
    size, grid = extractor.image_size, extractor.grid
    shared = [[*(target.photo for target in item.targets), *item.others] for item in objects]
    if not any(item.others for item in objects):
        yield lambda photos: extractor.extract([load_model_input(p, size, grid) for p in photos])
        return
    assert work is not None  # as `evaluate_masks` says
    photos = list(dict.fromkeys(photo for of_object in shared for photo in of_object))
    how = Indexing(
        *(extractor, work, "none"),
        on_progress=lambda told: on_step("indexing", told.done, told.total or len(photos)),
    )
    on_disk = FilesOnDisk(photos)
    index = index_gallery(protocol, on_disk, MODEL, extractor, how)
    with IndexReader.open(index) as reader:
        ids = dict(zip(photos, ids_of(reader, on_disk).tolist(), strict=True))

        def stored(photos: Sequence[Path]) -> Iterator[FeatureMaps]:
            for photo in photos:
                maps = None if ids[photo] < 0 else decoded_maps(reader, ids[photo])
                if maps is None:
                    raise WaldoError(f"{photo}: cannot be read; a benchmark needs all its photos")
                yield maps

        yield stored


def measure_object(
    item: SegmentationObject, extractor: MapExtractor, methods: list[MaskMethod], maps_of: MapsOf
) -> Iterator[tuple[MaskMethod, MaskResult]]:
    """The result of each method on one object."""
    by_mask = Query(item.reference.photo, item.class_name, item.reference.mask)
    by_class = Query(item.reference.photo, item.class_name)
    references = {
        way: make_reference(by_class if way else by_mask, extractor)
        for way in dict.fromkeys(method.by_class for method in methods)
    }
    photos = [target.photo for target in item.targets]
    masks: dict[str, list[tuple[Mask, Mask]]] = {method.name: [] for method in methods}
    sightings: dict[str, list[_Sighting]] = {method.name: [] for method in methods}
    for number, (photo, maps) in enumerate(
        zip((*photos, *item.others), maps_of([*photos, *item.others]), strict=True)
    ):
        picture = load_picture(photo)
        truth = read_mask(item.targets[number].mask) if number < len(photos) else None
        for method in methods:
            seen = MaskInput(references[method.by_class], maps, picture, extractor.device)
            found = method.rule(seen)
            if truth is not None:
                masks[method.name].append((found, truth))
            if item.others:
                sightings[method.name].append(_sighting(seen, found, truth))
    for method in methods:
        result = _mask_result(item.name, photos, masks[method.name])
        if item.others:
            columns = zip(*sightings[method.name], strict=True)
            values = detection_f1(Detections(*(np.array(column) for column in columns)))
            result = replace(result, f1=float(values.mean()), f1_50=float(values[0]))
        yield method, result


def _sighting(seen: MaskInput, found: Mask, truth: Mask | None) -> _Sighting:
    """One photo of `Detections`: the score of the photo is that of `waldo segment`.

    As in PODS' evaluator, what counts of a mask is its largest part, with its holes filled.
    """
    import torch

    scoring = seen.reference.for_scoring(seen.device)
    with torch.inference_mode():
        score = consistent(scoring, candidates_of(seen.maps, seen.reference, seen.device))
    part = largest_part(found)
    if truth is None:
        return float(score), float(part.sum()), 0.0, 0.0
    true = largest_part(truth)
    return float(score), float(part.sum()), float(true.sum()), mask_iou(part, true)


def _mask_result(name: str, photos: list[Path], pairs: list[tuple[Mask, Mask]]) -> MaskResult:
    """pairs: for each photo, the mask that was found and the true one."""
    edges = [boundaries(*pair) for pair in pairs]
    return MaskResult(
        name,
        targets=[
            TargetResult(str(photo), mask_iou(*pair), boundary_iou(*pair))
            for photo, pair in zip(photos, pairs, strict=True)
        ],
        iou=cumulative_iou(pairs),
        boundary_iou=cumulative_iou(edges),
        intersection=_common(pairs),
        union=_either(pairs),
        boundary_intersection=_common(edges),
        boundary_union=_either(edges),
    )


def _common(pairs: list[tuple[Mask, Mask]]) -> int:
    return sum(int((found & truth).sum()) for found, truth in pairs)


def _either(pairs: list[tuple[Mask, Mask]]) -> int:
    return sum(int((found | truth).sum()) for found, truth in pairs)


def _summary_over_objects(results: Results) -> dict[str, Any]:
    """As PerSeg has it: the pixels of an object's photos count together."""
    return _summary(results, [[result] for result in results])


def _summary_over_photos(results: Results) -> dict[str, Any]:
    """As PerMIS has it: every photo counts alike."""
    return _summary(results, [result["targets"] for result in results])


def _summary(results: Results, counted: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """counted: for each object, what has the "iou" and "boundary_iou" that count."""
    fits = [[each["iou"] for each in of_object] for of_object in counted]
    edges = [each["boundary_iou"] for of_object in counted for each in of_object]
    photos = [target for result in results for target in result["targets"]]
    return {
        "mIoU": float(np.mean(np.concatenate(fits))),
        "mIoU_interval": list(bootstrap_interval([float(np.mean(fit)) for fit in fits])),
        "bIoU": float(np.mean(edges)),
        "mIoU_per_instance": _mean(photos, "iou"),
        "mIoU_per_group": _mean(results, "iou"),
        "cumulative_IoU": _share(results, "intersection", "union"),
        "bIoU_per_instance": _mean(photos, "boundary_iou"),
        "bIoU_per_group": _mean(results, "boundary_iou"),
        "cumulative_bIoU": _share(results, "boundary_intersection", "boundary_union"),
        **(
            {"F1": _mean(results, "f1"), "F1_50": _mean(results, "f1_50")}
            if results[0].get("f1") is not None
            else {}
        ),
    }


def _mean(of: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([each[key] for each in of]))


def _share(results: Results, common: str, either: str) -> float:
    """What all photos have in common over what either mask has, in pixels."""
    total = sum(result[either] for result in results)
    return float(sum(result[common] for result in results) / max(1, total))
