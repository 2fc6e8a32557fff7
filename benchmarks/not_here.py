"""How well the score of `waldo segment` tells whether a photo shows the object at all.

    python benchmarks/not_here.py --scenes data/scenes
    python benchmarks/not_here.py --folders DIR     # one sub-folder per object
    python benchmarks/not_here.py --scenes data/scenes/validation --folders DIR --fit

For each query, the photos that show its object, and as many that do not, drawn at random. Scenes
are asked by the object's mask and by its class name, folders by the central box of the photo and,
where `classes.json` gives one, by the class name. Prints the AUC, and for each range of confidences
how many of its photos show the object. `--fit` prints the constants of `confidence_of` that fit
these photos best, each way counting alike. Intervals are bootstrapped over photos.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from harness import add_model_options, make_parser, percent
from labelled_scenes import extract_all
from numpy.typing import NDArray

from features.errors import RegionError
from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.benchmarks.scenes import read_scenes
from search.query import Query
from search.reference import make_reference
from search.scoring.scores import consistent
from search.segmentation.segment import candidates_of, confidence_of

_EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


@dataclass(frozen=True)
class Scored:
    """The scores of photos, and which of them show the object; (n,) each."""

    scores: NDArray[np.float64]
    shown: NDArray[np.bool_]


def ways(benchmark: Benchmark) -> Iterator[tuple[str, list[Query]]]:
    """The queries of a benchmark, by their region and by their class name alone."""
    asked = [each.query for each in benchmark.queries]
    yield "by mask" if asked[0].mask else "by box", [replace(q, class_name=None) for q in asked]
    if all(query.class_name for query in asked):
        yield "by class name", [replace(query, mask=None, box=None) for query in asked]


def score_photos(
    benchmark: Benchmark,
    queries: list[Query],
    maps: dict[Path, FeatureMaps],
    extractor: FeatureExtractor,
) -> Scored:
    """The photos that show the object of each query, and as many others. maps: of the gallery."""
    import torch

    draw = np.random.default_rng(0)
    scores: list[float] = []
    shown: list[bool] = []
    for query, labels in zip(queries, benchmark.queries, strict=True):
        try:
            reference = make_reference(query, extractor)
        except RegionError:
            continue  # the name selects nothing
        hits = np.setdiff1d(labels.relevant, labels.ignored)
        known = np.union1d(labels.relevant, labels.ignored)
        others = np.setdiff1d(np.arange(len(benchmark.gallery)), known)
        others = draw.choice(others, min(len(hits), len(others)), replace=False)
        prepared = reference.for_scoring(extractor.device)
        for number in (*hits, *others):
            candidates = candidates_of(maps[benchmark.gallery[number]], reference, extractor.device)
            with torch.inference_mode():
                scores.append(float(consistent(prepared, candidates)[0]))
            shown.append(bool(number in labels.relevant))
    return Scored(np.array(scores), np.array(shown))


def print_reliability(name: str, scored: Scored) -> None:
    """Print how well the scores separate, and how many photos of each confidence are right."""
    from sklearn.metrics import roc_auc_score

    told = np.array([confidence_of(score) for score in scored.scores])
    print(f"{name}: {len(told)} photos, AUC {roc_auc_score(scored.shown, scored.scores):.3f}")
    here, away = told[scored.shown] >= 0.5, told[~scored.shown] >= 0.5
    print(f"  marked at 0.5: {percent(here)} % of those that show it, {percent(away)} % of others")
    for low, high in pairwise(_EDGES):
        inside = (told >= low) & ((told < high) | (high == 1.0))
        if inside.any():
            print(
                f"  told {low:.1f} to {high:.1f}: {inside.sum():5} photos, mean confidence "
                f"{100 * told[inside].mean():5.1f}, show it {percent(scored.shown[inside])} %"
            )


def print_fit(parts: list[Scored]) -> None:
    """Print the best constants, by logistic regression over all parts."""
    from sklearn.linear_model import LogisticRegression

    scores = np.concatenate([part.scores for part in parts])[:, None]
    shown = np.concatenate([part.shown for part in parts])
    weights = np.concatenate([np.full(len(part.scores), 1 / len(part.scores)) for part in parts])
    fitted = LogisticRegression(C=np.inf).fit(scores, shown, weights * len(scores))
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    print(
        f"fit: 1 / (1 + exp(-({slope:.1f} score {offset:+.2f}))), one half at {-offset / slope:.3f}"
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--folders", type=Path)
    parser.add_argument("--fit", action="store_true", help="print the constants that fit best")
    add_model_options(parser)
    given = parser.parse_args()
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=1)
    benchmarks = []
    if given.scenes is not None:
        benchmarks.append(read_scenes(given.scenes))
    if given.folders is not None:
        benchmarks.append(read_folders(given.folders))
    parts = []
    for benchmark in benchmarks:
        maps = extract_all(benchmark.gallery, extractor)
        for way, queries in ways(benchmark):
            parts.append(score_photos(benchmark, queries, maps, extractor))
            print_reliability(f"{benchmark.protocol}, {way}", parts[-1])
    if given.fit:
        print_fit(parts)


if __name__ == "__main__":
    main()
