"""How well masks fit the object: mean IoU and boundary IoU, on photos known to show it.

    python benchmarks/segment.py --scenes data/scenes

Every photo with the object is asked for its mask, once by the reference's mask and once by the
class name. Rivals: PDM's fused map S_DF, appearance alone (S_A) and semantics alone (S_S), each
upsampled and cut at 0.7 between its minimum and maximum; and our evidence upsampled, without the
guided filter. A look-alike is taken where the mask's IoU with another object of the class is higher
than with the right one. Maps go through no codec; intervals are bootstrapped over masks.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from localise import read_labels, scenes_with
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from features.photo import load_model_input
from search.evaluation.metrics.masks import boundary_iou, mask_iou
from search.evaluation.metrics.ranking import bootstrap_interval
from search.evaluation.object_masks import MASK_METHODS, MaskInput
from search.query import Query
from search.reference import Reference, make_reference
from search.segmentation.segment import load_picture

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Asked:
    """One object in one photo. mask: its true pixels. others: those of its look-alikes there."""

    way: str
    reference: Reference
    photo: Path
    mask: Mask
    others: list[Mask]


def scenes(root: Path, extractor: FeatureExtractor) -> Iterator[Asked]:
    labels = read_labels(root)
    for query in labels["queries"]:
        for way, mask in (("mask", root / query["mask"]), ("class", None)):
            asked = Query(root / query["photo"], query["class"], mask)
            reference = make_reference(asked, extractor)
            for photo, own, others in scenes_with(query, root, labels):
                yield Asked(way, reference, photo, own, others)


RULES = {
    "evidence, guided filter (ours)": MASK_METHODS["segment"].rule,
    "evidence alone": MASK_METHODS["segment-unsharpened"].rule,
    "S_DF > 0.7": MASK_METHODS["pdm"].rule,
    "S_A > 0.7": MASK_METHODS["appearance"].rule,
    "S_S > 0.7": MASK_METHODS["semantic"].rule,
}


def percent(values: list[float]) -> str:
    low, high = bootstrap_interval(values)
    return f"{100 * np.mean(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="How well masks fit.")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=1)
    questions = list(scenes(given.scenes, extractor))
    size, grid = extractor.image_size, extractor.grid
    maps = {
        photo: extractor.extract([load_model_input(photo, size, grid)])[0]
        for photo in dict.fromkeys(asked.photo for asked in questions)
    }
    for way in ("mask", "class"):
        chosen = [asked for asked in questions if asked.way == way]
        rivals = [bool(asked.others) for asked in chosen]
        print(f"by {way}: {len(chosen)} masks, {sum(rivals)} of them beside a look-alike")
        for name, rule in RULES.items():
            fits, boundaries, taken = [], [], []
            for asked in chosen:
                own, picture = maps[asked.photo], load_picture(asked.photo)
                found = rule(MaskInput(asked.reference, own, picture, extractor.model.device))
                fits.append(mask_iou(found, asked.mask))
                boundaries.append(boundary_iou(found, asked.mask))
                if asked.others:
                    taken.append(float(any(mask_iou(found, o) > fits[-1] for o in asked.others)))
            print(
                f"  {name:32}mean IoU {percent(fits)}, boundary IoU {percent(boundaries)}"
                + (f", look-alike taken {percent(taken)} %" if taken else "")
            )


if __name__ == "__main__":
    main()
