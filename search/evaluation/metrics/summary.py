"""The metrics of a method on a benchmark of searches, with their spread over queries."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, flags
from search.evaluation.metrics.absence import absence
from search.evaluation.metrics.cut_ranking import CUT_METRICS
from search.evaluation.metrics.graded_ranking import (
    Difficulty,
    positives_and_junk,
    ranking,
    revisited_average_precision,
    revisited_precision_at,
)
from search.evaluation.metrics.ranking import (
    average_precision,
    bootstrap_interval,
    found_within,
    recall_at,
)

# A method's scores, (n_gallery,) float32 for each query, higher is better.
Scores = Sequence[NDArray[np.float32]]


def query_precision(asked: BenchmarkQuery, scores: NDArray[np.float32]) -> float | None:
    """The average precision of a query, 0..1, by which methods are compared.

    It is scikit-learn's, or, on a graded benchmark, the revisited evaluator's at medium difficulty.
    Where nothing is relevant it is None, or 0 if only the files are missing. scores: (n_gallery,).
    """
    if len(asked.relevant) == 0:
        return 0.0 if asked.missing else None
    if asked.hard is not None:
        positives, junk = positives_and_junk(asked, "medium")
        return revisited_average_precision(ranking(scores, positives), positives, junk)
    return average_precision(*_ranked(asked, scores))


def summary(benchmark: Benchmark, scores: Scores, default: Scores | None = None) -> dict[str, Any]:
    """The metrics of a method, JSON-ready fractions: means over queries, with 95 % bootstrap
    intervals.

    They are mAP, Recall@1/5/10/50 (50 in small galleries too, so every report has the same keys),
    the share of the relevant photos among the best 5 % of the gallery, mAP among the photos of the
    query's class alone, how reliable confidence is (`absence`), and mAP over the confusable queries
    and over those of each level, and those that the benchmark names, also for each of its parts.

    On a graded benchmark they are, for each difficulty, mAP and mP@1/5/10 over the queries with
    something to find at that difficulty, and the number of these queries. The top-level mAP is that
    of medium difficulty.

    default: the scores of the default method. The mean difference in average precision from it,
    query by query, is added with its interval.
    """
    metrics = _graded_metrics if benchmark.graded else _retrieval_metrics
    values = metrics(benchmark, scores)
    return values if default is None else {**values, **_difference(benchmark, scores, default)}


def _ranked(
    asked: BenchmarkQuery, scores: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Which photos are relevant, and their scores: of all photos that are not ignored."""
    ranked = ~flags(asked.ignored, len(scores))
    return flags(asked.relevant, len(scores))[ranked], scores[ranked]


def _retrieval_metrics(benchmark: Benchmark, scores: Scores) -> dict[str, Any]:
    # Query by query, because the rankings of all may not fit in memory.
    found: dict[str, list[float]] = {}
    for asked, row in zip(benchmark.queries, scores, strict=True):
        ranked = _ranked(asked, row)
        possible = len(asked.relevant) > 0  # else the files of all relevant photos are missing
        for k in (1, 5, 10, 50):
            recall = recall_at(*ranked, k) if possible else 0.0
            found.setdefault(f"Recall@{k}", []).append(recall)
        share = found_within(*ranked, 0.05) if possible else 0.0
        found.setdefault("found_in_5_percent", []).append(share)
    recalls = {name: float(np.mean(values)) for name, values in found.items()}
    precisions = np.array(_precisions(benchmark, scores))
    confusable = precisions[[asked.confusable for asked in benchmark.queries]]
    return {
        **_mean("mAP", precisions),
        **recalls,
        "mAP_same_class": _same_class(benchmark, scores),
        "confidence": absence(benchmark, scores),
        "mAP_confusable": float(np.mean(confusable)) if len(confusable) else None,
        "levels": {
            level: _mean("mAP", precisions[[q.level == level for q in benchmark.queries]])
            for level in benchmark.levels
        },
        **_named_metrics(benchmark.metrics, benchmark.queries, scores),
        **({"parts": _parts(benchmark, scores)} if benchmark.parts else {}),
    }


def _named_metrics(
    names: Sequence[str], queries: Sequence[BenchmarkQuery | None], scores: Scores
) -> dict[str, Any]:
    """Metrics of `CUT_METRICS`, over the queries that are not None."""
    found: dict[str, Any] = {}
    for name in names:
        values = []
        for asked, row in zip(queries, scores, strict=True):
            if asked is None:
                continue
            relevant, ranked = _ranked(asked, row)
            n_positives = int(relevant.sum()) + asked.missing
            values.append(CUT_METRICS[name](relevant, ranked, n_positives))
        found |= _mean(name, values)
    return found


def _parts(benchmark: Benchmark, scores: Scores) -> dict[str, Any]:
    return {
        name: {
            **_named_metrics(benchmark.metrics, queries, scores),
            "n_queries": sum(asked is not None for asked in queries),
        }
        for name, queries in benchmark.parts.items()
    }


def _graded_metrics(benchmark: Benchmark, scores: Scores) -> dict[str, Any]:
    by_difficulty: dict[str, dict[str, Any]] = {}
    for difficulty in get_args(Difficulty):
        found: dict[str, list[float]] = {name: [] for name in ("mAP", "mP@1", "mP@5", "mP@10")}
        for asked, row in zip(benchmark.queries, scores, strict=True):
            positives, junk = positives_and_junk(asked, difficulty)
            if len(positives) == 0:
                continue
            ranked = ranking(row, positives)
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


def _precisions(benchmark: Benchmark, scores: Scores) -> list[float]:
    """`query_precision` of every query with something to find."""
    found = (query_precision(*pair) for pair in zip(benchmark.queries, scores, strict=True))
    return [precision for precision in found if precision is not None]


def _same_class(benchmark: Benchmark, scores: Scores) -> float | None:
    """mAP with the photos of other classes left out, where knowing the class does not help."""
    if benchmark.gallery_classes is None:
        return None
    precisions = []
    for asked, row in zip(benchmark.queries, scores, strict=True):
        shown = np.array([asked.query.class_name in names for names in benchmark.gallery_classes])
        ranked = shown & ~flags(asked.ignored, len(row))
        relevant = flags(asked.relevant, len(row))
        precisions.append(average_precision(relevant[ranked], row[ranked]))
    return float(np.mean(precisions))


def _difference(benchmark: Benchmark, scores: Scores, default: Scores) -> dict[str, Any]:
    more = np.subtract(_precisions(benchmark, scores), _precisions(benchmark, default))
    return _mean("more_than_default", more)


def _mean(name: str, values: list[float] | NDArray[np.float64]) -> dict[str, Any]:
    """The mean and its interval; both are None where there is no value."""
    if len(values) == 0:
        return {name: None, f"{name}_interval": None}
    return {name: float(np.mean(values)), f"{name}_interval": list(bootstrap_interval(values))}
