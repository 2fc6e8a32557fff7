"""The scene benchmark that comes with the project: composed scenes with masks."""

from pathlib import Path
from typing import Any

import numpy as np

from features.errors import WaldoError
from features.regions import Box
from search.evaluation.benchmarks.benchmark import (
    Benchmark,
    BenchmarkQuery,
    LabelledScene,
    read_json,
)
from search.evaluation.benchmarks.labelled_objects import box_of_mask, check_sizes
from search.query import Query
from search.segmentation.drawing import read_ids


def read_scenes(root: Path) -> Benchmark:
    """Read `labels.json` with "queries" and "gallery", as `data/scenes/generate.py` writes it.

    Query photos are not in the gallery. The gallery photos that show the query's instance are
    relevant. Raises WaldoError where the folder has another layout, and where a mask and its photo
    differ in size.
    """
    labels = _read_labels(root)
    try:
        gallery = labels["gallery"]
        scenes = [
            LabelledScene(
                root / entry["photo"],
                root / entry["mask"],
                [str(item["class"]) for item in entry["objects"]],
            )
            for entry in gallery
        ]
        shown = [[str(item["instance"]) for item in entry["objects"]] for entry in gallery]
        boxes = [_boxes(scene, named) for scene, named in zip(scenes, shown, strict=True)]
        classes = [set(scene.classes) for scene in scenes]
        queries = []
        for entry in labels["queries"]:
            name = str(entry["class"])
            relevant = np.array([str(entry["instance"]) in instances for instances in shown])
            if not relevant.any():
                raise WaldoError(f"{root}/labels.json: no gallery photo shows {entry['instance']}")
            rivals = any(
                name in found for found, hit in zip(classes, relevant, strict=True) if not hit
            )
            query = Query(root / entry["photo"], name, root / entry["mask"])
            places, ignored = np.flatnonzero(relevant), np.empty(0, dtype=np.int64)
            own = {place: boxes[place][str(entry["instance"])] for place in places.tolist()}
            queries.append(
                BenchmarkQuery(query, places, ignored, rivals, str(entry["level"]), boxes=own)
            )
    except (KeyError, TypeError) as error:
        raise WaldoError(
            f"{root}/labels.json: not laid out as data/scenes/generate.py writes it ({error!r})"
        ) from None
    if not queries:
        raise WaldoError(f"{root}/labels.json: holds no query")
    return Benchmark("scenes", [scene.photo for scene in scenes], classes, queries, scenes)


def _boxes(scene: LabelledScene, instances: list[str]) -> dict[str, tuple[Box, ...]]:
    """The boxes of each instance in a scene. instances: those of its objects, in their order."""
    check_sizes(scene.photo, scene.mask)
    ids = read_ids(scene.mask)
    boxes: dict[str, tuple[Box, ...]] = {}
    for number, instance in enumerate(instances, start=1):
        boxes[instance] = boxes.get(instance, ()) + box_of_mask(ids == number)
    return boxes


def _read_labels(root: Path) -> dict[str, Any]:
    path = root / "labels.json"
    if not path.exists():
        raise WaldoError(
            f"{root}: holds no labels.json; the scenes protocol needs data/scenes or a folder made "
            "by data/scenes/generate.py"
        )
    labels = read_json(path)
    if not isinstance(labels, dict):
        raise WaldoError(f'{path}: must hold "queries" and "gallery"')
    return labels
