"""Whether all places of an object are found, and only those.

    python benchmarks/places.py --scenes data/scenes

Prints the table of places of docs/scores.md, in percent:

    found        true places that a box fits (IoU 0.5 or more; then 0.3 or more)
    right        boxes that fit (0.3) a true place that no box before fits
    one box      photos with a single box
    look-alikes  boxes that fit a look-alike (0.3)

Photos that show the object twice are made of two scenes side by side: the whole scenes, or the half
of each around the object, so that the object is as large as in its scene. Photos that show it once
are the scenes themselves, most of which have a look-alike, and one scene beside an unrelated one,
whole or halved. Every photo is searched as if it were in the gallery.

The rivals are the best place alone, and every connected region of four or more warm cells: those
above the middle between the photo's median and its peak. Maps go through no codec.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from harness import add_model_options, make_parser
from labelled_scenes import (
    Box,
    Question,
    as_candidates,
    extract_all,
    iou,
    mean_maps,
    questions,
    read_labels,
)
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from search.ranking.localise import object_places
from search.scoring.candidates import CandidateMaps, ScoringReference
from search.scoring.confidence import minimum_remaining_score
from search.scoring.scores import SCORES

KINDS = ("twice, halves", "twice, whole", "once, halves", "once, whole", "once, scenes")
CONSISTENT = SCORES["consistent"]


@dataclass(frozen=True)
class Picture:
    """A picture and its boxes: those of the object, and those of look-alikes."""

    image: Image.Image
    boxes: list[Box]
    others: list[Box]

    @classmethod
    def of(cls, asked: Question) -> "Picture":
        return cls(Image.open(asked.photo).convert("RGB"), asked.boxes, asked.others)

    def half(self) -> "Picture":
        """The half of its width around the object, or around the middle; at least the object."""
        width, height = self.image.size
        x0, _, x1, _ = self.boxes[0] if self.boxes else (0.0, 0.0, width, height)
        wide = min(width, max(width // 2, round(x1 - x0) if self.boxes else 0))
        left = min(max(0, round(x0 + x1 - wide) // 2), width - wide)
        cut = self.image.crop((left, 0, left + wide, height))
        boxes, others = (
            [(max(b[0] - left, 0), b[1], min(b[2] - left, wide), b[3]) for b in kind]
            for kind in (self.boxes, self.others)
        )
        return Picture(cut, boxes, [box for box in others if box[0] < box[2]])

    def beside(self, other: "Picture") -> "Picture":
        """This picture and another side by side, the other scaled to the height of this one."""
        width, height = self.image.size
        scale = height / other.image.height
        second = other.image.resize((round(other.image.width * scale), height))
        both = Image.new("RGB", (width + second.width, height))
        both.paste(self.image, (0, 0))
        both.paste(second, (width, 0))
        boxes, others = (
            [(width + scale * b[0], scale * b[1], width + scale * b[2], scale * b[3]) for b in kind]
            for kind in (other.boxes, other.others)
        )
        return Picture(both, self.boxes + boxes, self.others + others)


def montages(root: Path, extractor: FeatureExtractor, folder: Path) -> dict[str, list[Question]]:
    """Questions by kind; their pictures are written into a folder.

    Every query has one picture of each kind except the last, which is the scenes themselves. The
    unrelated scene beside an object is drawn at random, by the number of the query.
    """
    gallery = read_labels(root)["gallery"]
    kinds: dict[str, list[Question]] = {kind: [] for kind in KINDS}
    for number, (query, found) in enumerate(questions(root, extractor)):
        unrelated = [
            root / scene["photo"]
            for scene in gallery
            if query["class"] not in [item["class"] for item in scene["objects"]]
        ]
        chosen = unrelated[np.random.default_rng(number).integers(len(unrelated))]
        reference = found[0].reference
        one, two, none = map(Picture.of, (*found[:2], Question(reference, chosen, [], [])))
        pictures = (
            one.half().beside(two.half()),
            one.beside(two),
            one.half().beside(none.half()),
            one.beside(none),
        )
        for kind, picture in zip(KINDS, pictures, strict=False):
            path = folder / f"{kind}-{number}.png"
            picture.image.save(path)
            kinds[kind].append(Question(reference, path, picture.boxes, picture.others))
        kinds[KINDS[-1]] += found
    return kinds


def voted_places(
    reference: ScoringReference, candidates: CandidateMaps, scores: NDArray[np.float32]
) -> list[NDArray[np.bool_]]:
    """The cells of the object at each place in one photo.

    scores: of all photos that are searched.
    """
    score = partial(CONSISTENT.function, reference)
    least = minimum_remaining_score(scores, score(candidates).numpy())
    heat = CONSISTENT.heat(reference, candidates)
    places = object_places(reference, candidates, heat, score, torch.from_numpy(least))
    return [cells[0].numpy() for cells in places]


def warm_regions(reference: ScoringReference, candidates: CandidateMaps) -> list[NDArray[np.bool_]]:
    """The regions of warm cells in one photo, the one with the peak first."""
    [heat] = CONSISTENT.heat(reference, candidates).numpy()
    inside = np.where(candidates.valid[0].numpy(), heat, -np.inf)
    least = (inside.max() + np.median(heat[np.isfinite(inside)])) / 2
    side = round(len(heat) ** 0.5)
    regions, count = ndimage.label((inside >= least).reshape(side, side), np.ones((3, 3)))
    flat = regions.ravel()
    each = [flat == number for number in range(1, count + 1)]
    each.sort(key=lambda cells: -inside[cells].max())
    return [cells for place, cells in enumerate(each) if place == 0 or cells.sum() >= 4]


def matched(found: Sequence[Box], true: Sequence[Box], least: float) -> list[bool]:
    """Which of the found boxes, best first, fit a true box that no box before fits."""
    free, right = list(true), []
    for box in found:
        fits = [iou(box, other) for other in free]
        right.append(max(fits, default=0.0) >= least)
        if right[-1]:
            free.pop(int(np.argmax(fits)))
    return right


def boxes_of(places: Sequence[NDArray[np.bool_]], maps: FeatureMaps) -> list[Box]:
    """The box around each place in one photo, source pixels."""
    return [maps.frame.box_of(cells.reshape(maps.frame.grid, -1)) for cells in places]


def print_shares(kind: str, name: str, asked: list[Question], answers: list[list[Box]]) -> None:
    """Print the line of a rule for one kind of photo. answers: the boxes for each question."""
    true, count = sum(len(each.boxes) for each in asked), sum(map(len, answers))
    pairs = [*zip(answers, asked, strict=True)]
    half, third = (
        sum(sum(matched(boxes, each.boxes, least)) for boxes, each in pairs) for least in (0.5, 0.3)
    )
    fooled = sum(sum(matched(boxes, each.others, 0.3)) for boxes, each in pairs)
    single = np.mean([len(boxes) == 1 for boxes in answers])
    shares = half / true, third / true, third / count, single, fooled / count
    print(f"{kind:16}{name:16}" + "".join(f"{100 * share:12.0f}" for share in shares))


def print_kind(
    kind: str,
    asked: list[Question],
    maps: dict[Path, FeatureMaps],
    means: Sequence[torch.Tensor],
    scores: dict[int, NDArray[np.float32]],
) -> None:
    """Print the lines of one kind of photo.

    maps: of all photos. means: of the gallery. scores: of the gallery, by the id of a reference.
    """
    answers: dict[str, list[list[Box]]] = {"ours": [], "best place": [], "warm regions": []}
    for question in asked:
        own = maps[question.photo]
        reference = question.reference.for_scoring(torch.device("cpu"))
        candidates = as_candidates([own], means)
        places = voted_places(reference, candidates, scores[id(question.reference)])
        boxes = boxes_of(places, own)
        answers["ours"].append(boxes)
        answers["best place"].append(boxes[:1])
        answers["warm regions"].append(boxes_of(warm_regions(reference, candidates), own))
    for name, found in answers.items():
        print_shares(kind, name, asked, found)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=Path, required=True)
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=1)
    with TemporaryDirectory() as folder:
        kinds = montages(given.scenes, extractor, Path(folder))
        paths = [given.scenes / scene["photo"] for scene in read_labels(given.scenes)["gallery"]]
        gallery = extract_all(paths, extractor)
        drawn = extract_all((each.photo for kind in KINDS[:-1] for each in kinds[kind]), extractor)
    columns = ("found", "at 0.3", "right", "one box", "look-alikes")
    print(f"{'':32}" + "".join(f"{column:>12}" for column in columns))
    means = mean_maps(gallery.values())
    searched = as_candidates([*gallery.values()], means)
    with torch.inference_mode():
        scores = {
            id(each.reference): CONSISTENT.function(
                each.reference.for_scoring(torch.device("cpu")), searched
            ).numpy()
            for each in kinds[KINDS[0]]  # which has one question for each query
        }
        for kind, asked in kinds.items():
            print_kind(kind, asked, gallery | drawn, means, scores)


if __name__ == "__main__":
    main()
