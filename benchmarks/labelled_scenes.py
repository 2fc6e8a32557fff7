"""The scenes benchmark as questions with known answers, and maps that go through no codec."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import load_model_input
from indexer.codec.tokens import TokenMap
from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.labelled_objects import read_annotation
from search.query import Query
from search.reference import Reference, make_reference
from search.scoring.candidates import CandidateMaps
from search.segmentation.segment import box_around

Box = tuple[float, float, float, float]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Question:
    """Where is this object in this photo?

    boxes: around the object, at least one. others: around its look-alikes.
    """

    reference: Reference
    photo: Path
    boxes: list[Box]
    others: list[Box]


def read_labels(root: Path) -> dict[str, Any]:
    """The labels of the scenes in a folder."""
    labels: dict[str, Any] = json.loads((root / "labels.json").read_text(encoding="utf-8"))
    return labels


def scenes_with(
    query: dict[str, str], root: Path, labels: dict[str, Any]
) -> Iterator[tuple[Path, Mask, list[Mask]]]:
    """The scenes that show the object of a query: photo, its mask, and the masks of look-alikes."""
    for scene in labels["gallery"]:
        if query["instance"] not in [item["instance"] for item in scene["objects"]]:
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


def questions(
    root: Path, extractor: FeatureExtractor
) -> Iterator[tuple[dict[str, str], list[Question]]]:
    """Each query, by its mask, and a question for each scene that shows its object."""
    labels = read_labels(root)
    for query in labels["queries"]:
        asked = Query(root / query["photo"], query["class"], root / query["mask"])
        reference = make_reference(asked, extractor)
        yield (
            query,
            [
                Question(reference, photo, [box_of(own)], [box_of(other) for other in others])
                for photo, own, others in scenes_with(query, root, labels)
            ],
        )


def later_frames(root: Path, extractor: FeatureExtractor) -> Iterator[tuple[Reference, Path, Mask]]:
    """Videos in the layout of DAVIS-2017: each object of a first frame, and each later frame that
    shows it, with the true mask.
    """
    for sequence in read_davis(root):
        masks = [read_annotation(path) for path in sequence.annotations]
        for number in sequence.objects:
            # A mask file holds one object, an annotation holds all. So the maps are taken by a box,
            # and the cells of the object are selected afterwards.
            first = masks[0] == number
            maps = make_reference(Query(sequence.frames[0], box=box_of(first)), extractor).maps
            reference = Reference(maps, maps.frame.coverage(first) > 0.5, None)
            for frame, mask in zip(sequence.frames[1:], masks[1:], strict=True):
                if (mask == number).any():
                    yield reference, frame, mask == number


def box_of(mask: Mask) -> Box:
    """The box around a mask that is not empty."""
    box = box_around(mask)
    assert box is not None
    return box


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(both / (sum(areas) - both))


def extract_all(photos: Iterable[Path], extractor: FeatureExtractor) -> dict[Path, FeatureMaps]:
    """The maps of photos, each extracted once."""
    size, grid = extractor.image_size, extractor.grid
    return {
        photo: extractor.extract([load_model_input(photo, size, grid)])[0]
        for photo in dict.fromkeys(photos)
    }


def mean_maps(maps: Iterable[FeatureMaps]) -> tuple[torch.Tensor, ...]:
    """The mean appearance and the mean semantic feature of a collection, (d,) each."""
    return torch.from_numpy(np.mean([m.pooled() for m in maps], axis=0)).float().chunk(2)


def as_candidates(maps: Sequence[FeatureMaps], means: Sequence[torch.Tensor]) -> CandidateMaps:
    """Maps as candidates on the CPU, centred on the means of their collection."""
    both = [
        TokenMap.plain(torch.from_numpy(np.stack(parts).astype(np.float32)).flatten(1, 2), mean)
        for parts, mean in zip(
            ([m.appearance for m in maps], [m.semantic for m in maps]), means, strict=True
        )
    ]
    valid = torch.from_numpy(np.stack([m.frame.valid().ravel() for m in maps]))
    return CandidateMaps(*both, valid)
