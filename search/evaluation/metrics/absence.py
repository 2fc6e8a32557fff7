"""How well confidence tells an object that is in the gallery from one that is not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.evaluation.benchmarks.benchmark import Benchmark, flags
from search.scoring.confidence import confidences

_THRESHOLDS = (0.5, 0.9, 0.99)


def absence(benchmark: Benchmark, scores: Sequence[NDArray[np.float32]]) -> dict[str, Any] | None:
    """Measure confidence on every query with relevant photos twice: with the whole gallery, and
    without its relevant photos.

    scores: (n_gallery,) for each query. For each minimum confidence the result holds the share of
    queries whose first photo is relevant ("right") or not ("wrong"), the share that still find a
    photo when no relevant one is there ("false_alarms"), and, of all photos with that confidence,
    the share that is relevant ("precision", None where no photo has it). "auc" is the probability
    that the best confidence of a query with its object is higher than that of one without. The
    result is None where the gallery is too small for confidences.
    """
    present, absent, right = [], [], []
    # For each threshold, the number of photos with that confidence, and how many are relevant.
    n_sure, n_right = np.zeros((2, len(_THRESHOLDS)), dtype=np.int64)
    for query, row in zip(benchmark.queries, scores, strict=True):
        if len(query.relevant) == 0:
            continue
        ranked, relevant = ~flags(query.ignored, len(row)), flags(query.relevant, len(row))
        others = ranked & ~relevant
        whole, without = confidences(row[ranked]), confidences(row[others])
        if whole is None or without is None:
            return None
        present.append(whole.max())
        absent.append(without.max())
        sure = whole >= np.array(_THRESHOLDS)[:, None]
        n_sure += sure.sum(axis=1)
        n_right += (sure & relevant[ranked]).sum(axis=1)
        right.append(row[relevant & ranked].max() > row[others].max())
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
