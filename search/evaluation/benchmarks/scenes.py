"""The protocol of the scene benchmark that comes with the project: composed scenes with masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import WaldoError
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, LabelledScene
from search.query import Query


def read_scenes(root: Path) -> Benchmark:
    """`labels.json` with "queries" and "gallery", as `data/scenes/generate.py` writes it.

    Query photos are not in the gallery. Relevant are the gallery photos that show the query's
    instance. Raises WaldoError where the folder is not laid out so.
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
        shown = [{str(item["instance"]) for item in entry["objects"]} for entry in gallery]
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
            ignored = np.zeros(len(gallery), dtype=bool)
            queries.append(BenchmarkQuery(query, relevant, ignored, rivals, str(entry["level"])))
    except (KeyError, TypeError) as error:
        raise WaldoError(
            f"{root}/labels.json: not laid out as data/scenes/generate.py writes it ({error!r})"
        ) from None
    if not queries:
        raise WaldoError(f"{root}/labels.json: holds no query")
    return Benchmark("scenes", [scene.photo for scene in scenes], classes, queries, scenes)


def _read_labels(root: Path) -> dict[str, Any]:
    path = root / "labels.json"
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WaldoError(
            f"--root {root}: holds no labels.json; the scenes protocol wants data/scenes or a "
            "folder made by data/scenes/generate.py"
        ) from None
    except ValueError as error:
        raise WaldoError(f"{path}: not JSON ({error})") from None
    if not isinstance(labels, dict):
        raise WaldoError(f'{path}: must hold "queries" and "gallery"')
    return labels
