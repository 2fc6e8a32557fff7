"""What several photos of the object find, and how much a photo of what it is not helps.

    python benchmarks/several.py --root DIR

Prints the two tables of several photos in docs/scores.md. DIR has the layout of `waldo evaluate
folders`, whose matrix of scores is used: every photo is a query by its central box, against all
other photos. Every 2 and every 3 photos of an object ask for its other photos, together and each
alone. Then every photo asks again, with its best wrong match as a photo of what the object is not.
mAP is the mean over objects, so that each object counts once, with its 95 % bootstrap interval over
objects.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from harness import add_model_options, make_parser, percent
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from search.evaluation.benchmarks import read_benchmark
from search.evaluation.methods.methods import METHODS
from search.evaluation.metrics.ranking import average_precision
from search.evaluation.retrieval import run_methods
from search.scoring.rerank import combine

Scores = NDArray[np.float32]


def precision(relevant: NDArray[np.bool_], scores: Scores, left_out: list[int]) -> float:
    """The average precision over all photos except some."""
    kept = np.setdiff1d(np.arange(len(scores)), left_out)
    return average_precision(relevant[kept], scores[kept])


def together(matrix: Scores, objects: list[str], count: int) -> dict[str, dict[str, list[float]]]:
    """The precisions of all questions by `count` photos, by way and by object.

    matrix: (n, n), the scores of all photos for each query. objects: the object of each photo.
    """
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


def with_a_wrong_match(matrix: Scores, objects: list[str]) -> dict[str, dict[str, list[float]]]:
    """The precisions of questions by one photo and its best wrong match, by way and by object."""
    rows = np.array(objects)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for query, name in enumerate(objects):
        same = rows == name
        if same.sum() < 2:
            continue
        unlike = int(np.where(same, -np.inf, matrix[query]).argmax())
        wanted, unwanted = matrix[[query]], matrix[[unlike]]
        for way, scores in {
            "the photo alone": wanted[0],
            "and what it is not (--not)": combine(wanted, unwanted),
            "half of that score subtracted": wanted[0] - 0.5 * unwanted[0],
        }.items():
            found[way][name].append(precision(same, scores, [query, unlike]))
    return found


def print_means(title: str, found: dict[str, dict[str, list[float]]]) -> None:
    print(title)
    for way, by_object in found.items():
        print(f"  {way:34}{percent([float(np.mean(each)) for each in by_object.values()])}")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--root", type=Path, required=True)
    add_model_options(parser)
    given = parser.parse_args()
    benchmark = read_benchmark("folders", given.root)
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    with tempfile.TemporaryDirectory() as work:
        ran = run_methods(
            benchmark, [METHODS["consistent"]], extractor, Path(work), depth=len(benchmark.gallery)
        )
        scores = np.stack([result.by_place() for result in ran.results[0].queries])
    asked = [benchmark.gallery.index(query.query.photo) for query in benchmark.queries]
    matrix = np.full((len(benchmark.gallery),) * 2, np.nan, dtype=np.float32)
    matrix[asked] = scores
    objects = [photo.parent.name for photo in benchmark.gallery]
    for count in (2, 3):
        print_means(f"{count} photos of the object", together(matrix, objects, count))
    print_means("what it is not", with_a_wrong_match(matrix, objects))


if __name__ == "__main__":
    main()
