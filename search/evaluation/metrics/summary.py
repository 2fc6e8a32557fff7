"""What a method's scores come to: the metrics of a benchmark, with their spread over queries."""

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.revisited import (
    Difficulty,
    positives_and_junk,
    ranking,
    revisited_average_precision,
    revisited_precision_at,
)
from search.evaluation.metrics.absence import absence
from search.evaluation.metrics.ranking import (
    average_precision,
    bootstrap_interval,
    found_within,
    recall_at,
)
from search.evaluation.retrieval import MethodResult


def query_precision(asked: BenchmarkQuery, scores: NDArray[np.float32]) -> float | None:
    """A query's average precision, 0..1, by which methods are compared; scores: (n_gallery,).

    scikit-learn's; of a graded benchmark the revisited evaluator's on medium difficulty. None where
    nothing is relevant.
    """
    if not asked.relevant.any():
        return None
    if asked.hard is not None:
        positives, junk = positives_and_junk(asked, "medium")
        return revisited_average_precision(ranking(scores, positives), positives, junk)
    ranked = ~asked.ignored
    return average_precision(asked.relevant[ranked], scores[ranked])


def summary(
    benchmark: Benchmark, result: MethodResult, default: MethodResult | None = None
) -> dict[str, Any]:
    """The metrics, as JSON-ready fractions; means over queries, with 95 % bootstrap intervals.

    mAP, Recall@1/5/10/50 (50 in small galleries too, so that every report has the same keys), the
    part of the relevant photos that is among the best 5 % of the gallery, mAP among the photos of
    the query's class alone, what confidence is worth (`absence`), and mAP over the confusable
    queries and those of each level.

    Of a graded benchmark instead: for each difficulty mAP and mP@1/5/10 over the queries that have
    something to find by it, and how many these are; mAP alone is the medium one.

    default: the product's own method; what this one has more than it is added, query by query, with
    the interval of that difference.
    """
    metrics = _graded_metrics if benchmark.graded else _retrieval_metrics
    values = metrics(benchmark, result)
    return values if default is None else {**values, **_difference(benchmark, result, default)}


def _retrieval_metrics(benchmark: Benchmark, result: MethodResult) -> dict[str, Any]:
    recalls: dict[str, float] = {}
    ranked = [
        (query.relevant[~query.ignored], scores[~query.ignored])
        for query, scores in zip(benchmark.queries, result.scores, strict=True)
    ]
    for k in (1, 5, 10, 50):
        recalls[f"Recall@{k}"] = float(np.mean([recall_at(*query, k) for query in ranked]))
    recalls["found_in_5_percent"] = float(np.mean([found_within(*query, 0.05) for query in ranked]))
    precisions = np.array(_precisions(benchmark, result))
    confusable = precisions[[asked.confusable for asked in benchmark.queries]]
    return {
        **_mean("mAP", precisions),
        **recalls,
        "mAP_same_class": _same_class(benchmark, result),
        "confidence": absence(benchmark, result.scores),
        "mAP_confusable": float(np.mean(confusable)) if len(confusable) else None,
        "levels": {
            level: _mean("mAP", precisions[[q.level == level for q in benchmark.queries]])
            for level in benchmark.levels
        },
    }


def _graded_metrics(benchmark: Benchmark, result: MethodResult) -> dict[str, Any]:
    by_difficulty: dict[str, dict[str, Any]] = {}
    for difficulty in get_args(Difficulty):
        found: dict[str, list[float]] = {name: [] for name in ("mAP", "mP@1", "mP@5", "mP@10")}
        for asked, scores in zip(benchmark.queries, result.scores, strict=True):
            positives, junk = positives_and_junk(asked, difficulty)
            if len(positives) == 0:
                continue
            ranked = ranking(scores, positives)
            found["mAP"].append(revisited_average_precision(ranked, positives, junk))
            for k in (1, 5, 10):
                precision = revisited_precision_at(ranked, positives, junk, k)
                found[f"mP@{k}"].append(precision)
        by_difficulty[difficulty] = {
            key: value
            for name, values in found.items()
            for key, value in _mean(name, values).items()
        }
        by_difficulty[difficulty]["n_queries"] = len(found["mAP"])
    return {
        **{key: by_difficulty["medium"][key] for key in ("mAP", "mAP_interval")},
        **by_difficulty,
    }


def _precisions(benchmark: Benchmark, result: MethodResult) -> list[float]:
    """`query_precision` of every query that has something to find."""
    found = (query_precision(*row) for row in zip(benchmark.queries, result.scores, strict=True))
    return [precision for precision in found if precision is not None]


def _same_class(benchmark: Benchmark, result: MethodResult) -> float | None:
    """mAP where knowing the class helps nobody: other photos are left out of the ranking."""
    if benchmark.gallery_classes is None:
        return None
    precisions = []
    for asked, scores in zip(benchmark.queries, result.scores, strict=True):
        shown = np.array([asked.query.class_name in names for names in benchmark.gallery_classes])
        ranked = shown & ~asked.ignored
        precisions.append(average_precision(asked.relevant[ranked], scores[ranked]))
    return float(np.mean(precisions))


def _difference(
    benchmark: Benchmark, result: MethodResult, default: MethodResult
) -> dict[str, Any]:
    more = np.subtract(_precisions(benchmark, result), _precisions(benchmark, default))
    return _mean("more_than_default", more)


def _mean(name: str, values: list[float] | NDArray[np.float64]) -> dict[str, Any]:
    """The mean and its interval, which are None over nothing."""
    if len(values) == 0:
        return {name: None, f"{name}_interval": None}
    return {name: float(np.mean(values)), f"{name}_interval": list(bootstrap_interval(values))}
