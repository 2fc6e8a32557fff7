"""The folders protocol, for any labelled collection: one sub-folder per instance."""

from pathlib import Path

import numpy as np

from features.errors import WaldoError
from features.photo import is_picture, photo_size
from features.regions import Box
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, read_json
from search.query import Query

# The region of every query, for all methods: the central box of the photo, where photos of one
# object usually have it. Fractions of both sides.
_CENTRE = (0.2, 0.8)


def read_folders(root: Path) -> Benchmark:
    """Read sub-folders with photos of one instance each; `classes.json` may map each folder's name
    to a class name.

    Every photo is a query against all others; the other photos of its folder are relevant. Raises
    WaldoError where the folder is missing or has another layout.
    """
    names = _read_classes(root)
    gallery: list[Path] = []
    instances: list[str] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for photo in sorted(
            path for path in folder.iterdir() if path.is_file() and is_picture(path)
        ):
            gallery.append(photo)
            instances.append(folder.name)
    places: dict[str, list[int]] = {}
    for i, name in enumerate(instances):
        places.setdefault(name, []).append(i)
    if not any(len(shown) > 1 for shown in places.values()):
        raise WaldoError(
            f"{root}: no sub-folder holds two photos; the folders protocol needs one sub-folder "
            "per instance, with its photos in it"
        )
    classes = [names.get(name) for name in instances]
    queries = []
    for i, photo in enumerate(gallery):
        if len(places[instances[i]]) < 2:
            continue
        itself = np.array([i])
        others = np.setdiff1d(places[instances[i]], itself)
        rivals = {n for n, c in zip(instances, classes, strict=True) if c == classes[i]}
        confusable = classes[i] is not None and len(rivals) > 1
        query = Query(photo, classes[i], box=_central_box(photo))
        queries.append(BenchmarkQuery(query, others, itself, confusable))
    known = [{name} for name in classes if name is not None]
    named = known if len(known) == len(gallery) else None
    return Benchmark("folders", gallery, named, queries, [])


def _central_box(photo: Path) -> Box:
    """The central box of a photo, (x0, y0, x1, y1) in upright pixels."""
    low, high = _CENTRE
    width, height = photo_size(photo)
    return (low * width, low * height, high * width, high * height)


def _read_classes(root: Path) -> dict[str, str]:
    if not root.is_dir():
        raise WaldoError(f"{root}: no such folder")
    path = root / "classes.json"
    if not path.exists():
        return {}
    classes = read_json(path)
    if not isinstance(classes, dict):
        raise WaldoError(f"{path}: must map each sub-folder's name to a class name")
    return {str(folder): str(name) for folder, name in classes.items()}
