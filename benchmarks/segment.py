"""How well masks fit the object: mean IoU and boundary IoU, on photos that show it.

    python benchmarks/segment.py --scenes data/scenes

Prints the first table of docs/segmentation.md. Every scene with the object of a query is
segmented, once with the reference selected by its mask and once by its class name. The rivals are
PDM's fused map S_DF, appearance alone (S_A) and semantics alone (S_S), each upsampled and cut at
0.7 between its minimum and maximum; and the evidence upsampled without the guided filter. A
look-alike is taken where the IoU of the mask with another object of the class is higher than with
the right object. Maps go through no codec; intervals are bootstrapped over masks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import add_model_options, make_parser, percent
from labelled_scenes import Mask, extract_all, read_labels, scenes_with

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from search.evaluation.metrics.masks import boundary_iou, mask_iou
from search.evaluation.object_masks import MASK_METHODS, MaskInput
from search.query import Query
from search.reference import Reference, make_reference
from search.segmentation.segment import load_picture


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


RULES = {
    "evidence, guided filter (ours)": MASK_METHODS["segment"].rule,
    "evidence alone": MASK_METHODS["segment-unsharpened"].rule,
    "S_DF > 0.7": MASK_METHODS["pdm"].rule,
    "S_A > 0.7": MASK_METHODS["appearance"].rule,
    "S_S > 0.7": MASK_METHODS["semantic"].rule,
}


def print_rules(
    asked: list[Question], maps: dict[Path, FeatureMaps], extractor: FeatureExtractor
) -> None:
    """Print how well the masks of each rule fit. maps: of all photos."""
    for name, rule in RULES.items():
        fits, boundaries, taken = [], [], []
        for question in asked:
            own, picture = maps[question.photo], load_picture(question.photo)
            found = rule(MaskInput(question.reference, own, picture, extractor.device))
            fits.append(mask_iou(found, question.mask))
            boundaries.append(boundary_iou(found, question.mask))
            if question.others:
                best = max(mask_iou(found, other) for other in question.others)
                taken.append(float(best > fits[-1]))
        print(
            f"  {name:32}mean IoU {percent(fits)}, boundary IoU {percent(boundaries)}"
            + (f", look-alike taken {percent(taken)} %" if taken else "")
        )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=Path, required=True)
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=1)
    asked = list(questions(given.scenes, extractor))
    maps = extract_all((question.photo for question in asked), extractor)
    for way in ("mask", "class"):
        chosen = [question for question in asked if question.way == way]
        rivals = sum(bool(question.others) for question in chosen)
        print(f"by {way}: {len(chosen)} masks, {rivals} of them beside a look-alike")
        print_rules(chosen, maps, extractor)


if __name__ == "__main__":
    main()
