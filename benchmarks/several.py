"""What several photos of the object find, and what a photo of what it is not helps.

    python benchmarks/several.py --root DIR

DIR is laid out as for `waldo evaluate folders`, whose score matrix (every photo a query by its
central box, against all others) the questions are put to: every 2 and every 3 photos of an object
ask for its remaining ones, and so does each of them alone, over the same photos; and every photo
asks again, told that its best wrong match is not it. mAP is of objects' means, so that each counts
once, with its 95 % bootstrap interval over objects.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.methods.methods import METHODS
from search.evaluation.metrics.ranking import average_precision, bootstrap_interval
from search.evaluation.retrieval import run_methods
from search.rerank import combine

Scores = NDArray[np.float32]


def precision(relevant: NDArray[np.bool_], scores: Scores, left_out: list[int]) -> float:
    kept = np.setdiff1d(np.arange(len(scores)), left_out)
    return average_precision(relevant[kept], scores[kept])


def together(matrix: Scores, objects: list[str], count: int) -> dict[str, dict[str, list[float]]]:
    """Way -> object -> precisions of all questions by `count` photos. matrix: (n, n)."""
    rows = np.array(objects)
    ways: dict[str, Callable[[Scores], list[Scores]]] = {
        "each alone": lambda some: [*some],
        "the best of them (--also)": lambda some: [combine(some, some[:0])],
        "their mean": lambda some: [some.mean(axis=0)],
    }
    found: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in ways}
    for name in dict.fromkeys(objects):
        same = rows == name
        for asked in combinations(np.flatnonzero(same).tolist(), count):
            if same.sum() > count:
                for way, scores_of in ways.items():
                    scores = scores_of(matrix[list(asked)])
                    each = [precision(same, values, list(asked)) for values in scores]
                    found[way][name].append(float(np.mean(each)))
    return found


def told_what_it_is_not(matrix: Scores, objects: list[str]) -> dict[str, dict[str, list[float]]]:
    """The same for questions by one photo and its best wrong match."""
    rows = np.array(objects)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for query, name in enumerate(objects):
        same = rows == name
        if same.sum() < 2:
            continue
        unlike = int(np.where(same, -np.inf, matrix[query]).argmax())
        wanted, unwanted = matrix[[query]], matrix[[unlike]]
        for way, scores in {
            "not told": wanted[0],
            "told (--not)": combine(wanted, unwanted),
            "half of that likeness subtracted": wanted[0] - 0.5 * unwanted[0],
        }.items():
            found[way][name].append(precision(same, scores, [query, unlike]))
    return found


def tell(title: str, found: dict[str, dict[str, list[float]]]) -> None:
    print(title)
    for way, by_object in found.items():
        means = [float(np.mean(each)) for each in by_object.values()]
        low, high = bootstrap_interval(means)
        mean = float(np.mean(means))
        print(f"  {way:34}{100 * mean:6.1f} ({100 * low:.1f} to {100 * high:.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description="What more photos in a question are worth.")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    benchmark = read_benchmark("folders", given.root)
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    with tempfile.TemporaryDirectory() as work:
        ran = run_methods(benchmark, [METHODS["consistent"]], extractor, Path(work))
        scores = np.array(ran.results[0].scores)
    asked = [benchmark.gallery.index(query.query.photo) for query in benchmark.queries]
    matrix = np.full((len(benchmark.gallery),) * 2, np.nan, dtype=np.float32)
    matrix[asked] = scores
    objects = [photo.parent.name for photo in benchmark.gallery]
    for count in (2, 3):
        tell(f"{count} photos of the object", together(matrix, objects, count))
    tell("what it is not", told_what_it_is_not(matrix, objects))


if __name__ == "__main__":
    main()
