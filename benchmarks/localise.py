"""How well the box of a match fits the object: mean IoU, on photos known to show it.

    python benchmarks/localise.py --scenes data/scenes
    python benchmarks/localise.py --davis DIR       # DAVIS-2017's layout

And how well what is under a point is made out: mean IoU of its cells with those of the true mask,
the point being the mask's innermost; beside cells connected with it that are as like it as 0.5.

Every photo with the object is asked where it is, queries by mask (for DAVIS the first frame's; then
all later frames are asked). Rivals: cells connected with the peak of the heat down to half way to
the photo's median; PDM's way, a fixed threshold of 0.7 on S_DF (S_A without a class name) between
its minimum and maximum, the cells connected with its peak; and the whole photo. Maps go through no
codec.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from features.extractor import FeatureExtractor
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import load_model_input
from features.regions import mask_cells, point_cells, unit_vectors
from indexer.codec.tokens import TokenMap
from search.candidates import CandidateMaps, ScoringReference
from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.labelled_objects import read_annotation
from search.evaluation.metrics.ranking import bootstrap_interval
from search.localise import distance_to_object, object_cells
from search.query import Query
from search.reference import Reference, make_reference
from search.scores import SCORES

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Asked:
    """One object in one photo, at least once. others: boxes of look-alikes in it."""

    reference: Reference
    photo: Path
    boxes: list[Box]
    others: list[Box]


@dataclass(frozen=True)
class Seen:
    """One photo beside a reference. heat: (grid, grid) float32."""

    reference: ScoringReference
    candidates: CandidateMaps
    heat: NDArray[np.float32]
    frame: Frame


def box_around(mask: NDArray[np.bool_]) -> Box:
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def read_labels(root: Path) -> dict[str, Any]:
    labels: dict[str, Any] = json.loads((root / "labels.json").read_text(encoding="utf-8"))
    return labels


def scenes_with(
    query: dict[str, str], root: Path, labels: dict[str, Any]
) -> Iterator[tuple[Path, NDArray[np.bool_], list[NDArray[np.bool_]]]]:
    """The scenes that show a query's object: photo, its mask there, and those of look-alikes."""
    for scene in labels["gallery"]:
        shown = [item["instance"] for item in scene["objects"]]
        if query["instance"] not in shown:
            continue
        with Image.open(root / scene["mask"]) as file:
            ids = np.asarray(file)
        masks = {
            item["instance"]: ids == number
            for number, item in enumerate(scene["objects"], start=1)
            if item["class"] == query["class"] and (ids == number).any()
        }
        own = masks.pop(query["instance"])
        yield root / scene["photo"], own, [*masks.values()]


def scenes(root: Path, extractor: FeatureExtractor) -> Iterator[tuple[dict[str, str], list[Asked]]]:
    """Each query and the scenes that show its object."""
    labels = read_labels(root)
    for query in labels["queries"]:
        asked = Query(root / query["photo"], query["class"], root / query["mask"])
        reference = make_reference(asked, extractor)
        found = [
            Asked(reference, photo, [box_around(own)], [box_around(other) for other in others])
            for photo, own, others in scenes_with(query, root, labels)
        ]
        yield query, found


def davis(root: Path, extractor: FeatureExtractor) -> Iterator[Asked]:
    for sequence in read_davis(root):
        masks = [read_annotation(path) for path in sequence.annotations]
        for number in sequence.objects:
            # the product takes a mask's file; the frame's own holds all objects
            box = box_around(masks[0] == number)
            reference = make_reference(Query(sequence.frames[0], box=box), extractor)
            covered = reference.maps.frame.coverage(masks[0] == number) > 0.5
            by_mask = Reference(reference.maps, covered, None)
            for frame, mask in zip(sequence.frames[1:], masks[1:], strict=True):
                if (mask == number).any():
                    yield Asked(by_mask, frame, [box_around(mask == number)], [])


def ours(seen: Seen) -> NDArray[np.bool_]:
    heat = torch.from_numpy(seen.heat.reshape(1, -1))
    beyond = distance_to_object(seen.reference, seen.candidates)
    return object_cells(seen.candidates, beyond, heat).numpy().reshape(seen.heat.shape)


def with_the_peak(values: NDArray[np.float32], least: float) -> NDArray[np.bool_]:
    """Cells of at least a value that are connected with the highest, diagonals included."""
    regions, _ = ndimage.label(values >= least, structure=np.ones((3, 3)))
    return np.asarray(regions == regions[np.unravel_index(values.argmax(), values.shape)])


def around_the_peak(seen: Seen) -> NDArray[np.bool_]:
    valid = seen.frame.valid()
    inside = np.where(valid, seen.heat, -np.inf)
    return with_the_peak(inside, (inside.max() + np.median(seen.heat[valid])) / 2)


def fixed_threshold(seen: Seen) -> NDArray[np.bool_]:
    valid = seen.frame.valid()
    fused = SCORES["pdm"].heat(seen.reference, seen.candidates).numpy().reshape(valid.shape)
    inside = np.where(valid, fused, -np.inf)
    low, high = fused[valid].min(), inside.max()
    return with_the_peak(inside, low + 0.7 * (high - low))


def whole_photo(seen: Seen) -> NDArray[np.bool_]:
    return seen.frame.valid()


RULES: dict[str, Callable[[Seen], NDArray[np.bool_]]] = {
    "voted region, warm cells (ours)": ours,
    "around the peak": around_the_peak,
    "S_DF > 0.7": fixed_threshold,
    "whole photo": whole_photo,
}


def innermost(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The point of a mask that is farthest from its edge, (x, y)."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return float(column) + 0.5, float(row) + 0.5


def alike_cells(maps: FeatureMaps, point: tuple[float, float]) -> NDArray[np.bool_]:
    """Cells connected with that under a point whose cosine with it is at least 0.5."""
    valid = maps.frame.valid()
    appearance = maps.appearance.astype(np.float32)
    unit = unit_vectors(appearance - appearance[valid].mean(axis=0))
    seed = maps.frame.cell_at(*point)
    regions, _ = ndimage.label(valid & (unit @ unit[seed] >= 0.5))
    return np.asarray(regions == regions[seed])


def under_points(masked: list[tuple[Path, NDArray[np.bool_]]], extractor: FeatureExtractor) -> None:
    """Prints how well points select the objects of masked photos."""
    fits: dict[str, list[float]] = {"compared with surroundings (ours)": [], "alike": []}
    for path, mask in masked:
        photo = load_model_input(path, extractor.image_size, extractor.grid)
        [maps] = extractor.extract([photo])
        true, point = mask_cells(maps.frame, mask), innermost(mask)
        for name, rule in zip(fits, (point_cells, alike_cells), strict=True):
            found = rule(maps, point)
            fits[name].append(float((found & true).sum() / (found | true).sum()))
    for name, values in fits.items():
        low, high = bootstrap_interval(values)
        print(
            f"under a point: {name:36}mean IoU of cells {100 * np.mean(values):.1f} "
            f"({100 * low:.1f} to {100 * high:.1f})"
        )


def all_maps(photos: Iterable[Path], extractor: FeatureExtractor) -> dict[Path, FeatureMaps]:
    size, grid = extractor.image_size, extractor.grid
    return {p: extractor.extract([load_model_input(p, size, grid)])[0] for p in photos}


def mean_maps(maps: Iterable[FeatureMaps]) -> tuple[torch.Tensor, ...]:
    """The collection's mean appearance and semantic feature."""
    return torch.from_numpy(np.mean([m.pooled() for m in maps], axis=0)).float().chunk(2)


def as_candidates(maps: Sequence[FeatureMaps], means: Sequence[torch.Tensor]) -> CandidateMaps:
    both = [
        TokenMap.plain(torch.from_numpy(np.stack(parts).astype(np.float32)).flatten(1, 2), mean)
        for parts, mean in zip(
            ([m.appearance for m in maps], [m.semantic for m in maps]), means, strict=True
        )
    ]
    valid = torch.from_numpy(np.stack([m.frame.valid().ravel() for m in maps]))
    return CandidateMaps(*both, valid)


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(both / (sum(areas) - both))


def main() -> None:
    parser = argparse.ArgumentParser(description="How well boxes fit.")
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--davis", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=1)
    questions: list[Asked] = []
    masked: list[tuple[Path, NDArray[np.bool_]]] = []
    if given.scenes is not None:
        for query, asked_for in scenes(given.scenes, extractor):
            questions += asked_for
            with Image.open(given.scenes / query["mask"]) as file:
                masked.append((given.scenes / query["photo"], np.asarray(file) > 0))
    if given.davis is not None:
        questions += davis(given.davis, extractor)
        for sequence in read_davis(given.davis):
            for path, annotation in [*zip(sequence.frames, sequence.annotations, strict=True)][::4]:
                masked.append((path, read_annotation(annotation) == sequence.objects[0]))
    under_points(masked, extractor)
    grid = extractor.grid
    maps = all_maps(dict.fromkeys(asked.photo for asked in questions), extractor)
    means = mean_maps(maps.values())
    fits: dict[str, list[float]] = {name: [] for name in RULES}
    fooled = dict.fromkeys(RULES, 0)
    with torch.inference_mode():
        for asked in questions:
            own = maps[asked.photo]
            candidates = as_candidates([own], means)
            reference = asked.reference.for_scoring(torch.device("cpu"))
            heat = SCORES["consistent"].heat(reference, candidates).numpy().reshape(grid, grid)
            for name, rule in RULES.items():
                box = own.frame.box_of(rule(Seen(reference, candidates, heat, own.frame)))
                fits[name].append(iou(box, asked.boxes[0]))
                fooled[name] += any(iou(box, other) > fits[name][-1] for other in asked.others)
    rivals = sum(bool(asked.others) for asked in questions)
    print(f"{len(questions)} objects to find, {rivals} of them beside a look-alike")
    for name, values in fits.items():
        low, high = bootstrap_interval(values)
        above = np.mean(np.array(values) > 0.5)
        line = (
            f"{name:34}mean IoU {100 * np.mean(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"
        )
        line += f", over one half {100 * above:.0f} %"
        print(line + (f", look-alike taken {100 * fooled[name] / rivals:.0f} %" if rivals else ""))


if __name__ == "__main__":
    main()
