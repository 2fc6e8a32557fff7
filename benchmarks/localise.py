"""How well the box of a match fits the object: mean IoU, on photos that show it.

    python benchmarks/localise.py --scenes data/scenes
    python benchmarks/localise.py --davis DIR       # the layout of DAVIS-2017

Prints the table "voted region, warm cells" of docs/scores.md. For each query by mask, every photo
with its object is searched for it; in DAVIS the query is an object in the first frame, and the
photos are the later frames. The rivals:

- the cells that are connected with the peak of the heat, down to the middle between the peak and
  the photo's median;
- the segmentation of PDM: the cells that are connected with the peak of S_DF (S_A without a class
  name), above 0.7 between its minimum and maximum;
- the whole photo.

Also prints how well a point selects an object: the mean IoU of the selected cells with those of the
true mask, whose innermost point is given. The rival selects the connected cells whose cosine with
the cell of the point is at least 0.5. Maps go through no codec.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import add_model_options, make_parser, percent
from labelled_scenes import (
    Question,
    as_candidates,
    box_of,
    extract_all,
    iou,
    later_frames,
    mean_maps,
    questions,
)
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from features.extractor import FeatureExtractor
from features.frame import Frame
from features.maps import FeatureMaps
from features.regions import mask_cells, point_cells, unit_vectors
from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.labelled_objects import read_annotation
from search.ranking.localise import distance_to_object, object_cells
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.scores import SCORES


@dataclass(frozen=True)
class Seen:
    """One photo and a reference. heat: (grid, grid) float32, by the score `consistent`."""

    reference: ScoringReference
    candidates: CandidateMaps
    heat: NDArray[np.float32]
    frame: Frame


def davis_questions(root: Path, extractor: FeatureExtractor) -> Iterator[Question]:
    """The objects of each first frame, searched for in the later frames that show them."""
    for reference, frame, mask in later_frames(root, extractor):
        yield Question(reference, frame, [box_of(mask)], [])


def voted_region(seen: Seen) -> NDArray[np.bool_]:
    """The cells that Waldo takes for the object."""
    heat = torch.from_numpy(seen.heat.reshape(1, -1))
    distance = distance_to_object(seen.reference, seen.candidates)
    return object_cells(seen.candidates, distance, heat).numpy().reshape(seen.heat.shape)


def peak_region(values: NDArray[np.float32], least: float) -> NDArray[np.bool_]:
    """The cells of at least a value that are connected with the highest, diagonals included."""
    regions, _ = ndimage.label(values >= least, structure=np.ones((3, 3)))
    return np.asarray(regions == regions[np.unravel_index(values.argmax(), values.shape)])


def around_the_peak(seen: Seen) -> NDArray[np.bool_]:
    valid = seen.frame.valid()
    inside = np.where(valid, seen.heat, -np.inf)
    return peak_region(inside, (inside.max() + np.median(seen.heat[valid])) / 2)


def fixed_threshold(seen: Seen) -> NDArray[np.bool_]:
    valid = seen.frame.valid()
    fused = SCORES["pdm"].heat(seen.reference, seen.candidates).numpy().reshape(valid.shape)
    inside = np.where(valid, fused, -np.inf)
    low, high = fused[valid].min(), inside.max()
    return peak_region(inside, low + 0.7 * (high - low))


def whole_photo(seen: Seen) -> NDArray[np.bool_]:
    return seen.frame.valid()


RULES: dict[str, Callable[[Seen], NDArray[np.bool_]]] = {
    "voted region, warm cells (ours)": voted_region,
    "around the peak": around_the_peak,
    "S_DF > 0.7": fixed_threshold,
    "whole photo": whole_photo,
}


def innermost(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The pixel of a mask that is farthest from its edge: its centre, (x, y)."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return float(column) + 0.5, float(row) + 0.5


def connected_cells(maps: FeatureMaps, point: tuple[float, float]) -> NDArray[np.bool_]:
    """The connected cells around a point whose cosine with its cell is at least 0.5."""
    valid = maps.frame.valid()
    appearance = maps.appearance.astype(np.float32)
    unit = unit_vectors(appearance - appearance[valid].mean(axis=0))
    seed = maps.frame.cell_at(*point)
    regions, _ = ndimage.label(valid & (unit @ unit[seed] >= 0.5))
    return np.asarray(regions == regions[seed])


def print_points(masked: list[tuple[Path, NDArray[np.bool_]]], extractor: FeatureExtractor) -> None:
    """Print how well points select the objects of masked photos."""
    fits: dict[str, list[float]] = {"compared with surroundings (ours)": [], "alike": []}
    for path, mask in masked:
        [maps] = extract_all([path], extractor).values()
        true, point = mask_cells(maps.frame, mask), innermost(mask)
        for name, rule in zip(fits, (point_cells, connected_cells), strict=True):
            found = rule(maps, point)
            fits[name].append(float((found & true).sum() / (found | true).sum()))
    for name, values in fits.items():
        print(f"under a point: {name:36}mean IoU of cells {percent(values)}")


def print_boxes(asked: list[Question], extractor: FeatureExtractor) -> None:
    """Print how well the box of each rule fits."""
    grid = extractor.grid
    maps = extract_all((question.photo for question in asked), extractor)
    means = mean_maps(maps.values())
    fits: dict[str, list[float]] = {name: [] for name in RULES}
    fooled = dict.fromkeys(RULES, 0)
    with torch.inference_mode():
        for question in asked:
            own = maps[question.photo]
            candidates = as_candidates([own], means)
            reference = question.reference.for_scoring(torch.device("cpu"))
            heat = SCORES["consistent"].heat(reference, candidates).numpy().reshape(grid, grid)
            for name, rule in RULES.items():
                box = own.frame.box_of(rule(Seen(reference, candidates, heat, own.frame)))
                fits[name].append(iou(box, question.boxes[0]))
                fooled[name] += any(iou(box, other) > fits[name][-1] for other in question.others)
    rivals = sum(bool(question.others) for question in asked)
    print(f"{len(asked)} objects to find, {rivals} of them beside a look-alike")
    for name, values in fits.items():
        above = np.mean(np.array(values) > 0.5)
        line = f"{name:34}mean IoU {percent(values)}, over one half {100 * above:.0f} %"
        print(line + (f", look-alike taken {100 * fooled[name] / rivals:.0f} %" if rivals else ""))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--davis", type=Path)
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=1)
    asked: list[Question] = []
    masked: list[tuple[Path, NDArray[np.bool_]]] = []
    if given.scenes is not None:
        for query, found in questions(given.scenes, extractor):
            asked += found
            with Image.open(given.scenes / query["mask"]) as file:
                masked.append((given.scenes / query["photo"], np.asarray(file) > 0))
    if given.davis is not None:
        asked += davis_questions(given.davis, extractor)
        for sequence in read_davis(given.davis):
            for path, annotation in [*zip(sequence.frames, sequence.annotations, strict=True)][::4]:
                masked.append((path, read_annotation(annotation) == sequence.objects[0]))
    print_points(masked, extractor)
    print_boxes(asked, extractor)


if __name__ == "__main__":
    main()
