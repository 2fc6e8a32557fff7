"""The metrics of a method on a benchmark of searches, with their spread over queries."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.metrics.absence import absence
from search.evaluation.metrics.graded_ranking import Difficulty
from search.evaluation.metrics.measured import LOCALISED, RECALLS, Measured
from search.evaluation.metrics.ranking import bootstrap_interval


def summary(
    benchmark: Benchmark, found: Sequence[Measured], default: Sequence[Measured] | None = None
) -> dict[str, Any]:
    """The metrics of a method, JSON-ready fractions: means over queries, with 95 % bootstrap
    intervals.

    They are mAP, Recall@1/5/10/50 (50 in small galleries too, so every report has the same keys),
    the share of the relevant photos among the best 5 % of the gallery, mAP among the photos of the
    query's class alone, how reliable confidence is (`absence`), and mAP over the confusable queries
    and over those of each level, and those that the benchmark names, also for each of its parts.
    Where the benchmark has boxes, it is `localised_precision` too.

    On a graded benchmark they are, for each difficulty, mAP and mP@1/5/10 over the queries with
    something to find at that difficulty, and the number of these queries. The top-level mAP is that
    of medium difficulty.

    found: of each query. default: those of the default method. The mean difference in average
    precision from it, query by query, is added with its interval.
    """
    metrics = _graded_metrics if benchmark.graded else _retrieval_metrics
    values = metrics(benchmark, found)
    if default is None:
        return values
    more = np.subtract(_precisions(found), _precisions(default))
    return {**values, **_mean("more_than_default", more)}


def _retrieval_metrics(benchmark: Benchmark, found: Sequence[Measured]) -> dict[str, Any]:
    precisions = np.array(_precisions(found))
    confusable = precisions[[asked.confusable for asked in benchmark.queries]]
    whole = [query.metrics for query in found]
    with_answers = [
        query.absence
        for asked, query in zip(benchmark.queries, found, strict=True)
        if len(asked.relevant)
    ]
    same_class = [query.same_class for query in found if query.same_class is not None]
    return {
        **_mean("mAP", precisions),
        **{
            name: float(np.mean([query[name] for query in whole]))
            for name in (*(f"Recall@{k}" for k in RECALLS), "found_in_5_percent")
        },
        "mAP_same_class": float(np.mean(same_class)) if same_class else None,
        "confidence": absence(with_answers),
        "mAP_confusable": float(np.mean(confusable)) if len(confusable) else None,
        "levels": {
            level: _mean("mAP", precisions[[q.level == level for q in benchmark.queries]])
            for level in benchmark.levels
        },
        **_means(benchmark.metrics, whole),
        **(_localised(whole) if any(asked.boxes for asked in benchmark.queries) else {}),
        **({"parts": _parts(benchmark, found)} if benchmark.parts else {}),
    }


def _localised(values: Sequence[dict[str, float]]) -> dict[str, Any]:
    """None for a method that does not say where the object is."""
    found: dict[str, Any] = {}
    for name in LOCALISED:
        found |= _mean(name, [query[name] for query in values if name in query])
    return found


def _parts(benchmark: Benchmark, found: Sequence[Measured]) -> dict[str, Any]:
    return {
        name: {**_means(benchmark.metrics, values), "n_queries": len(values)}
        for name in benchmark.parts
        for values in [_of_part(name, found)]
    }


def _graded_metrics(benchmark: Benchmark, found: Sequence[Measured]) -> dict[str, Any]:
    by_difficulty = {
        difficulty: {
            **_means(("mAP", "mP@1", "mP@5", "mP@10"), values),
            "n_queries": len(values),
        }
        for difficulty in get_args(Difficulty)
        for values in [_of_part(difficulty, found)]
    }
    return {
        **{key: by_difficulty["medium"][key] for key in ("mAP", "mAP_interval")},
        **by_difficulty,
    }


def _of_part(name: str, found: Sequence[Measured]) -> list[dict[str, float]]:
    """The metrics of the queries that have something to find in a part."""
    return [query.parts[name] for query in found if name in query.parts]


def _precisions(found: Sequence[Measured]) -> list[float]:
    """The average precision of every query with something to find."""
    precisions = (query.average_precision for query in found)
    return [precision for precision in precisions if precision is not None]


def _means(names: Sequence[str], values: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The mean of each metric over queries. values: those of each query by name."""
    found: dict[str, Any] = {}
    for name in names:
        found |= _mean(name, [query[name] for query in values])
    return found


def _mean(name: str, values: list[float] | NDArray[np.float64]) -> dict[str, Any]:
    """The mean and its interval; both are None where there is no value."""
    if len(values) == 0:
        return {name: None, f"{name}_interval": None}
    return {name: float(np.mean(values)), f"{name}_interval": list(bootstrap_interval(values))}
