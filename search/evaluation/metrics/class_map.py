"""How well the class map S_S separates classes, measured where masks are known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.frame import Frame
from features.maps import FeatureMaps
from features.models import MapExtractor
from features.photo import load_model_input
from search.evaluation.benchmarks.benchmark import Benchmark, LabelledScene

# A cell belongs to an object that covers at least this share of it, and is free of an object that
# covers less than the second share.
_COVERED, _TOUCHED = 0.5, 0.05

_BATCH = 64  # scenes


@dataclass(frozen=True)
class ClassMapQuality:
    """How well S_S separates the classes of a benchmark.

    auc_everything: the probability that a cell of a class's objects has a higher S_S of its name
    than any other cell of the scene; mean over scenes and the classes in them.
    auc_other_objects: the same against cells of other objects only.
    among_names_everything, among_names_other_objects: the same for the log-softmax of S_S over all
    nouns, times sqrt(d), as `search.scoring.scores.class_heat` has it.
    from_background_everything, from_background_other_objects: the same for
    F_S . (C - C_background), which selects an object by its class in a query's photo; None for a
    model without a background word.
    top1, top5: how often the right name is the best, or among the best five, for the mean F_S of
    an object, among the names of all classes in the gallery.
    n_names, n_objects: the number of names and objects.
    """

    auc_everything: float
    auc_other_objects: float
    among_names_everything: float
    among_names_other_objects: float
    from_background_everything: float | None
    from_background_other_objects: float | None
    top1: float
    top5: float
    n_names: int
    n_objects: int


def measure_class_map(benchmark: Benchmark, extractor: MapExtractor) -> ClassMapQuality:
    """Measure the class map on the gallery's scenes. The extractor's model knows class names.

    Raises RegionError for a class name that the model does not know.
    """
    from scipy.special import logsumexp

    names = sorted({name for scene in benchmark.scenes for name in scene.classes})
    known = [extractor.class_vector(name) for name in names]
    vectors = np.stack([vector for vector in known if vector is not None])
    background = extractor.background_vector()
    rivals = extractor.rival_vectors
    root = np.sqrt(rivals.shape[1])
    # S_S itself, its log-softmax over names, and its difference from the background's.
    ways = 2 if background is None else 3
    everything: list[list[float]] = [[] for _ in range(ways)]
    others: list[list[float]] = [[] for _ in range(ways)]
    ranks: list[int] = []
    for start in range(0, len(benchmark.scenes), _BATCH):
        scenes = benchmark.scenes[start : start + _BATCH]
        photos = [
            load_model_input(scene.photo, extractor.image_size, extractor.grid) for scene in scenes
        ]
        for scene, maps in zip(scenes, extractor.extract(photos), strict=True):
            covers = _covers(scene, maps.frame)
            semantic = maps.semantic.astype(np.float32)
            among = root * logsumexp(semantic @ rivals.T / root, axis=-1)
            for name in sorted(set(scene.classes)):
                own = np.array([found == name for found in scene.classes])
                positive = covers[own].max(axis=0) >= _COVERED
                if not positive.any():
                    continue
                untouched = maps.frame.valid() & (covers[own].max(axis=0) < _TOUCHED)
                other_objects = untouched & (covers[~own].max(axis=0, initial=0.0) >= _COVERED)
                scores = semantic @ vectors[names.index(name)]
                maps_of_name = [scores, scores - among]
                if background is not None:
                    maps_of_name.append(scores - semantic @ background)
                for number, values in enumerate(maps_of_name):
                    everything[number].append(_auc(values[positive], values[untouched]))
                    if other_objects.any():
                        others[number].append(_auc(values[positive], values[other_objects]))
            ranks += _ranks(scene, covers, maps, vectors, names)
    return ClassMapQuality(
        auc_everything=float(np.mean(everything[0])),
        auc_other_objects=float(np.mean(others[0])),
        among_names_everything=float(np.mean(everything[1])),
        among_names_other_objects=float(np.mean(others[1])),
        from_background_everything=float(np.mean(everything[2])) if ways > 2 else None,
        from_background_other_objects=float(np.mean(others[2])) if ways > 2 else None,
        top1=float(np.mean(np.array(ranks) < 1)),
        top5=float(np.mean(np.array(ranks) < 5)),
        n_names=len(names),
        n_objects=len(ranks),
    )


def _covers(scene: LabelledScene, frame: Frame) -> NDArray[np.float32]:
    """The share of each cell that each object covers, (objects, grid, grid)."""
    with Image.open(scene.mask) as image:
        mask = np.asarray(image)
    numbers = range(1, len(scene.classes) + 1)
    return np.stack([frame.coverage(mask == number) for number in numbers])


def _ranks(
    scene: LabelledScene,
    covers: NDArray[np.float32],
    maps: FeatureMaps,
    vectors: NDArray[np.float32],
    names: list[str],
) -> list[int]:
    """For each object that covers a cell, the number of names that fit it better than its own."""
    ranks = []
    for name, cover in zip(scene.classes, covers, strict=True):
        cells = cover >= _COVERED
        if cells.any():
            fits = vectors @ maps.semantic[cells].astype(np.float32).mean(axis=0)
            ranks.append(int((fits > fits[names.index(name)]).sum()))
    return ranks


def _auc(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    """Area under the ROC curve: the probability that a positive is higher; ties count half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return float((below + upto).mean() / 2 / len(negative))
