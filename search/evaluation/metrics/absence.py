"""Whether confidence tells objects that are in the gallery from those that are not."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.confidence import confidences
from search.evaluation.benchmarks.benchmark import Benchmark

_THRESHOLDS = (0.5, 0.9, 0.99)


def absence(benchmark: Benchmark, scores: NDArray[np.float32]) -> dict[str, Any] | None:
    """Every query asked twice: as it is, and with its relevant photos taken out of the gallery.

    scores: (n_queries, n_gallery). Returns for each least confidence the share of queries that find
    a relevant photo first ("right"), that find another one first ("wrong"), and that still find
    something where there is nothing ("false_alarms"), and of all photos that sure the share that is
    relevant ("precision", None for none); and "auc", the chance that the best
    confidence of a query is higher with its object than that of one without. None where a gallery
    is too small to tell.
    """
    present, absent, right = [], [], []
    # Of all photos that are as sure as each threshold: how many there are, how many are relevant.
    n_sure, n_right = np.zeros((2, len(_THRESHOLDS)), dtype=np.int64)
    for query, row in zip(benchmark.queries, scores, strict=True):
        ranked = ~query.ignored
        others = ranked & ~query.relevant
        whole, without = confidences(row[ranked]), confidences(row[others])
        if whole is None or without is None:
            return None
        present.append(whole.max())
        absent.append(without.max())
        sure = whole >= np.array(_THRESHOLDS)[:, None]
        n_sure += sure.sum(axis=1)
        n_right += (sure & query.relevant[ranked]).sum(axis=1)
        right.append(row[query.relevant & ranked].max() > row[others].max())
    with_object, bare, first = np.array(present), np.array(absent), np.array(right)
    higher = with_object[:, None] > bare
    same = with_object[:, None] == bare
    report: dict[str, Any] = {"auc": float(np.mean(higher + 0.5 * same))}
    for least, count, hits in zip(_THRESHOLDS, n_sure, n_right, strict=True):
        report[f"{least:g}"] = {
            "right": float(np.mean((with_object >= least) & first)),
            "wrong": float(np.mean((with_object >= least) & ~first)),
            "false_alarms": float(np.mean(bare >= least)),
            "precision": float(hits / count) if count else None,
        }
    return report
