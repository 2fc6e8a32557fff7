"""How well masks fit the object: mean IoU and boundary IoU, on photos that show it.

    python benchmarks/segment.py --scenes data/scenes
    python benchmarks/segment.py --davis DIR        # the layout of DAVIS-2017

Prints the first table of docs/segmentation.md. Every scene with the object of a query is
segmented, once with the reference selected by its mask and once by its class name. In DAVIS the
reference is an object in the first frame, by its mask, and the photos are the later frames; without
class names, S_DF is S_A there, and S_S is left out. The rivals are
PDM's fused map S_DF, appearance alone (S_A) and semantics alone (S_S), each upsampled and cut at
0.7 between its minimum and maximum; and the first evidence, upsampled alone and with its border
moved by a guided filter. A look-alike is taken where the IoU of the mask with another object of the
class is higher than with the right object. Box IoU is that of the boxes around the masks. Gains are
those over the guided filter, mask by mask. Maps go through no codec; intervals are bootstrapped
over masks.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import add_model_options, make_parser, percent
from labelled_scenes import (
    Mask,
    box_of,
    extract_all,
    iou,
    later_frames,
    read_labels,
    scenes_with,
)
from PIL import Image

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from search.evaluation.labels.mask_methods import MASK_METHODS, MaskInput, first_evidence
from search.evaluation.metrics.masks import boundary_iou, mask_iou
from search.query import Query
from search.reference import Reference, make_reference
from search.segmentation.guided_filter import guided_filter
from search.segmentation.segment import box_around, load_picture


@dataclass(frozen=True)
class Question:
    """Which pixels of this photo are this object?

    way: how the reference is selected, "mask" or "class". mask: the true pixels. others: the masks
    of look-alikes.
    """

    way: str
    reference: Reference
    photo: Path
    mask: Mask
    others: list[Mask]


def questions(root: Path, extractor: FeatureExtractor) -> Iterator[Question]:
    """Each query in both ways, for each scene that shows its object."""
    labels = read_labels(root)
    for query in labels["queries"]:
        for way, mask in (("mask", root / query["mask"]), ("class", None)):
            asked = Query(root / query["photo"], query["class"], mask)
            reference = make_reference(asked, extractor)
            for photo, own, others in scenes_with(query, root, labels):
                yield Question(way, reference, photo, own, others)


def davis_questions(root: Path, extractor: FeatureExtractor) -> Iterator[Question]:
    """The objects of each first frame, in the later frames that show them."""
    for reference, frame, mask in later_frames(root, extractor):
        yield Question("mask", reference, frame, mask, [])


def guided_mask(seen: MaskInput) -> Mask:
    """The first evidence, with its border moved by a guided filter over windows of two cells."""
    frame, picture = seen.maps.frame, seen.picture
    drawn = frame.to_photo(first_evidence(seen), *picture.size)
    radius = max(1, round(2 * frame.cell[0] * picture.width / frame.width))
    guide = np.asarray(picture, dtype=np.float32) / np.float32(255.0)
    moved = Image.fromarray(guided_filter(guide, drawn, radius, 1e-4))
    size = frame.width, frame.height
    return np.asarray(moved.resize(size, Image.Resampling.BILINEAR)) > 0


RULES = {
    "evidence, guided filter": guided_mask,
    "evidence, minimum cut (ours)": MASK_METHODS["segment"].rule,
    "evidence alone": MASK_METHODS["segment-unsharpened"].rule,
    "S_DF > 0.7": MASK_METHODS["pdm"].rule,
    "S_A > 0.7": MASK_METHODS["appearance"].rule,
    "S_S > 0.7": MASK_METHODS["semantic"].rule,
}


@dataclass(frozen=True)
class Fits:
    """How well the masks of one rule fit, one number per question, 0..1.

    taken: 1 where a look-alike is taken, for the questions that have one. seconds: per mask.
    """

    iou: list[float]
    boundary: list[float]
    box: list[float]
    taken: list[float]
    seconds: float


def measure(
    rule: Callable[[MaskInput], Mask],
    asked: list[Question],
    maps: dict[Path, FeatureMaps],
    extractor: FeatureExtractor,
) -> Fits:
    """How well the masks of a rule fit. maps: of all photos."""
    fits, boundaries, boxes, taken, seconds = [], [], [], [], 0.0
    for question in asked:
        own, picture = maps[question.photo], load_picture(question.photo)
        began = time.perf_counter()
        found = rule(MaskInput(question.reference, own, picture, extractor.device))
        seconds += time.perf_counter() - began
        fits.append(mask_iou(found, question.mask))
        boundaries.append(boundary_iou(found, question.mask))
        box = box_around(found)
        boxes.append(0.0 if box is None else iou(box, box_of(question.mask)))
        if question.others:
            best = max(mask_iou(found, other) for other in question.others)
            taken.append(float(best > fits[-1]))
    return Fits(fits, boundaries, boxes, taken, seconds / len(asked))


def print_rules(
    asked: list[Question], maps: dict[Path, FeatureMaps], extractor: FeatureExtractor
) -> None:
    """Print how well the masks of each rule fit, and how much better than the first's."""
    first = None
    rules = dict(RULES)
    if asked[0].reference.class_vector is None:
        del rules["S_S > 0.7"]
    for name, rule in rules.items():
        fits = measure(rule, asked, maps, extractor)
        first = first or fits
        print(
            f"  {name:32}mean IoU {percent(fits.iou)}, boundary IoU {percent(fits.boundary)}, "
            f"box IoU {percent(fits.box)}, {1000 * fits.seconds:.0f} ms a mask"
            + (f", look-alike taken {percent(fits.taken)} %" if fits.taken else "")
        )
        pairs = ((fits.iou, first.iou), (fits.boundary, first.boundary), (fits.box, first.box))
        gains = (percent([a - b for a, b in zip(*pair, strict=True)]) for pair in pairs)
        print(f"  {'':32}gains: " + ", ".join(gains), flush=True)


def main() -> None:
    parser = make_parser(__doc__)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--scenes", type=Path)
    data.add_argument("--davis", type=Path)
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=1)
    if given.scenes is not None:
        asked = list(questions(given.scenes, extractor))
    else:
        asked = list(davis_questions(given.davis, extractor))
    maps = extract_all((question.photo for question in asked), extractor)
    for way in dict.fromkeys(question.way for question in asked):
        chosen = [question for question in asked if question.way == way]
        rivals = sum(bool(question.others) for question in chosen)
        print(f"by {way}: {len(chosen)} masks, {rivals} of them beside a look-alike")
        print_rules(chosen, maps, extractor)


if __name__ == "__main__":
    main()
