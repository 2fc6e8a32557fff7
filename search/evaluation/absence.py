"""Whether confidence tells objects that are in the gallery from those that are not."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.confidence import confidences
from search.evaluation.benchmark import Benchmark

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
    sure: list[NDArray[np.float64]] = []
    relevant: list[NDArray[np.bool_]] = []
    for query, row in zip(benchmark.queries, scores, strict=True):
        ranked = ~query.ignored
        others = ranked & ~query.relevant
        whole, without = confidences(row[ranked]), confidences(row[others])
        if whole is None or without is None:
            return None
        present.append(whole.max())
        absent.append(without.max())
        sure.append(whole)
        relevant.append(query.relevant[ranked])
        right.append(row[query.relevant & ranked].max() > row[others].max())
    with_object, bare, first = np.array(present), np.array(absent), np.array(right)
    higher = with_object[:, None] > bare
    same = with_object[:, None] == bare
    report: dict[str, Any] = {"auc": float(np.mean(higher + 0.5 * same))}
    all_sure, all_relevant = np.concatenate(sure), np.concatenate(relevant)
    for least in _THRESHOLDS:
        chosen = all_relevant[all_sure >= least]
        report[f"{least:g}"] = {
            "right": float(np.mean((with_object >= least) & first)),
            "wrong": float(np.mean((with_object >= least) & ~first)),
            "false_alarms": float(np.mean(bare >= least)),
            "precision": float(np.mean(chosen)) if len(chosen) else None,
        }
    return report
