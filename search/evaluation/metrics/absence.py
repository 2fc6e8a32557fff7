"""How well confidence tells an object that is in the gallery from one that is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.evaluation.benchmarks.benchmark import BenchmarkQuery, flags
from search.scoring.confidence import rising_confidences

_THRESHOLDS = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class QueryAbsence:
    """One query's confidences with the whole gallery, and without its relevant photos.

    present, absent: the best of each, 0..1. right: whether the first photo is relevant. n_sure,
    n_right: for each minimum confidence, how many photos of the whole gallery have it, and how many
    of these are relevant.
    """

    present: float
    absent: float
    right: bool
    n_sure: list[int]
    n_right: list[int]


def query_absence(asked: BenchmarkQuery, scores: NDArray[np.float32]) -> QueryAbsence | None:
    """scores: (n_gallery,). None where nothing is relevant, and where the gallery is too small for
    confidences.
    """
    if len(asked.relevant) == 0:
        return None
    ranked, relevant = ~flags(asked.ignored, len(scores)), flags(asked.relevant, len(scores))
    own = scores[relevant]
    # Scores are much quicker to sort than the places of photos.
    rising, others = np.sort(scores[ranked]), np.sort(scores[ranked & ~relevant])
    whole, without = rising_confidences(rising), rising_confidences(others)
    if whole is None or without is None:
        return None
    n_sure = (whole >= np.array(_THRESHOLDS)[:, None]).sum(axis=1).tolist()
    least = [rising[-count] if count else np.inf for count in n_sure]
    return QueryAbsence(
        float(whole[-1]),
        float(without[-1]),
        bool(own.max() > others[-1]),
        n_sure,
        [int((own >= score).sum()) for score in least],
    )


def absence(found: Sequence[QueryAbsence | None]) -> dict[str, Any] | None:
    """How reliable confidence is over queries that have relevant photos; None where the gallery is
    too small for one of them.

    For each minimum confidence the result holds the share of queries whose first photo is relevant
    ("right") or not ("wrong"), the share that still find a photo when no relevant one is there
    ("false_alarms"), and, of all photos with that confidence, the share that is relevant
    ("precision", None where no photo has it). "auc" is the probability that the best confidence of
    a query with its object is higher than that of one without.
    """
    known = [query for query in found if query is not None]
    if len(known) < len(found):
        return None
    present = np.array([query.present for query in known])
    absent = np.sort([query.absent for query in known])
    first = np.array([query.right for query in known])
    # Twice the pairs in which the one with its object is higher; equal ones count half.
    higher = sum(np.searchsorted(absent, present, side) for side in ("left", "right"))
    report: dict[str, Any] = {"auc": float(np.sum(higher) / (2 * len(known) ** 2))}
    n_sure = np.sum([query.n_sure for query in known], axis=0)
    n_right = np.sum([query.n_right for query in known], axis=0)
    for least, count, hits in zip(_THRESHOLDS, n_sure, n_right, strict=True):
        report[f"{least:g}"] = {
            "right": float(np.mean((present >= least) & first)),
            "wrong": float(np.mean((present >= least) & ~first)),
            "false_alarms": float(np.mean(absent >= least)),
            "precision": float(hits / count) if count else None,
        }
    return report
