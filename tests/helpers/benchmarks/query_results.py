"""What evaluations keep of queries' scores, from whole scores and back."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.metrics.measured import Measured, QueryResult, measure, query_result


def measured(benchmark: Benchmark, scores: NDArray[np.float32]) -> list[Measured]:
    """scores: (n_queries, n_gallery)."""
    return [measure(benchmark, query, row) for query, row in enumerate(scores)]


def kept(benchmark: Benchmark, scores: NDArray[np.float32], depth: int = 1000) -> list[QueryResult]:
    """scores: (n_queries, n_gallery)."""
    return [query_result(benchmark, query, row, depth) for query, row in enumerate(scores)]


def whole_scores(results: Sequence[QueryResult]) -> NDArray[np.float32]:
    """(n_queries, n_gallery), of a gallery so small that all scores are kept."""
    return np.stack([result.by_place() for result in results])
