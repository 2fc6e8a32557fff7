"""What is measured of one query's scores, after which most of the scores are not needed."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery, flags
from search.evaluation.metrics.absence import QueryAbsence, query_absence
from search.evaluation.metrics.cut_ranking import CUT_METRICS
from search.evaluation.metrics.graded_ranking import (
    Difficulty,
    positive_ranks,
    positives_and_junk,
    revisited_average_precision,
    revisited_precision_at,
)
from search.evaluation.metrics.localised import Overlaps, localised_precision
from search.evaluation.metrics.ranking import (
    average_precision,
    best_places,
    found_within,
    ranks_of,
    recall_at,
)

# The ranks at which every report has recall, in small galleries too.
RECALLS = (1, 5, 10, 50)

# The average precision by the right place: by the box of cells, and by the box fitted to the mask.
LOCALISED = ("mAP_localised", "mAP_localised_fitted")

Flags = NDArray[np.bool_]
Row = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """What is measured of a query's scores by one method; metrics are fractions.

    average_precision: as `query_precision`. relevant_ranks: those of the relevant photos, from 1,
    ascending; ignored photos do not count, and equal scores count against the method. metrics: by
    name. parts: metrics by name, for each part of the benchmark, or each difficulty of a graded
    one, in which the query has something to find. same_class: the average precision among the
    photos of the query's class; None where these or their relevant ones are not known. absence:
    None where nothing is relevant, where the gallery is too small for confidences, and for a graded
    benchmark.
    """

    average_precision: float | None
    relevant_ranks: list[int]
    metrics: dict[str, float] = field(default_factory=dict)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    same_class: float | None = None
    absence: QueryAbsence | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Measured":
        """Raises TypeError for what `as_json` never gave."""
        found = Measured(**content)
        return (
            found
            if found.absence is None
            else replace(found, absence=QueryAbsence(**content["absence"]))
        )


@dataclass(frozen=True)
class QueryResult:
    """What is kept of a query's scores by one method.

    best: (k,) int32 places in the gallery, those of the highest scores first; of equal scores the
    earlier place comes first. scores: (k,) float32, their scores.
    """

    best: NDArray[np.int32]
    scores: Row
    measured: Measured

    def by_place(self) -> Row:
        """The score of every photo, (n_gallery,) float32, where all of them are kept."""
        scores = np.empty(len(self.best), dtype=np.float32)
        scores[self.best] = self.scores
        return scores


def query_result(
    benchmark: Benchmark,
    query: int,
    scores: Row,
    depth: int,
    overlaps: Overlaps | None = None,
) -> QueryResult:
    """What is kept of the scores of a benchmark's query.

    query: its place in the benchmark. scores: (n_gallery,) float32. depth: how many of the best
    photos are kept, or all where the gallery has fewer. overlaps: as in `measure`.
    """
    best = best_places(scores, depth)
    measured = measure(benchmark, query, scores, overlaps)
    return QueryResult(best.astype(np.int32), scores[best], measured)


def measure(
    benchmark: Benchmark, query: int, scores: Row, overlaps: Overlaps | None = None
) -> Measured:
    """Measure the scores of a benchmark's query, (n_gallery,) float32.

    query: its place. overlaps: None for a method that does not say where the object is.
    """
    asked = benchmark.queries[query]
    relevant, ranked = _ranked(asked, scores)
    ranks = ranks_of(relevant, ranked) + 1
    found = Measured(query_precision(asked, scores), ranks.tolist())
    if benchmark.graded:
        return replace(found, parts=_by_difficulty(asked, scores))
    parts = {name: queries[query] for name, queries in benchmark.parts.items()}
    return replace(
        found,
        metrics={
            **_recalls(asked, relevant, ranked),
            **_named(benchmark.metrics, asked, scores),
            **_localised(asked, scores, overlaps),
        },
        parts={
            name: _named(benchmark.metrics, part, scores)
            for name, part in parts.items()
            if part is not None
        },
        same_class=_same_class(benchmark, asked, scores),
        absence=query_absence(asked, scores),
    )


def query_precision(asked: BenchmarkQuery, scores: Row) -> float | None:
    """The average precision of a query, 0..1, by which methods are compared.

    It is scikit-learn's, or, on a graded benchmark, the revisited evaluator's at medium difficulty.
    Where nothing is relevant it is None, or 0 if only the files are missing. scores: (n_gallery,).
    """
    if len(asked.relevant) == 0:
        return 0.0 if asked.missing else None
    if asked.hard is not None:
        positives, junk = positives_and_junk(asked, "medium")
        ranks = positive_ranks(scores, positives, junk)
        return revisited_average_precision(ranks, len(positives))
    return average_precision(*_ranked(asked, scores))


def _ranked(asked: BenchmarkQuery, scores: Row) -> tuple[Flags, Row]:
    """Which photos are relevant, and their scores: of all photos that are not ignored."""
    ranked = ~flags(asked.ignored, len(scores))
    return flags(asked.relevant, len(scores))[ranked], scores[ranked]


def _recalls(asked: BenchmarkQuery, relevant: Flags, scores: Row) -> dict[str, float]:
    possible = len(asked.relevant) > 0  # else the files of all relevant photos are missing
    found = {f"Recall@{k}": recall_at(relevant, scores, k) if possible else 0.0 for k in RECALLS}
    found["found_in_5_percent"] = found_within(relevant, scores, 0.05) if possible else 0.0
    return found


def _named(names: tuple[str, ...], asked: BenchmarkQuery, scores: Row) -> dict[str, float]:
    """Metrics of `CUT_METRICS`."""
    relevant, ranked = _ranked(asked, scores)
    n_positives = int(relevant.sum()) + asked.missing
    return {name: CUT_METRICS[name](relevant, ranked, n_positives) for name in names}


def _localised(asked: BenchmarkQuery, scores: Row, overlaps: Overlaps | None) -> dict[str, float]:
    if overlaps is None:
        return {}
    values = {
        name: localised_precision(asked, scores, of_boxes)
        for name, of_boxes in zip(LOCALISED, (overlaps.cells, overlaps.fitted), strict=True)
    }
    return {name: value for name, value in values.items() if value is not None}


def _by_difficulty(asked: BenchmarkQuery, scores: Row) -> dict[str, dict[str, float]]:
    found = {}
    for difficulty in get_args(Difficulty):
        positives, junk = positives_and_junk(asked, difficulty)
        if len(positives) == 0:
            continue
        ranks = positive_ranks(scores, positives, junk)
        found[difficulty] = {
            "mAP": revisited_average_precision(ranks, len(positives)),
            **{f"mP@{k}": revisited_precision_at(ranks, k) for k in (1, 5, 10)},
        }
    return found


def _same_class(benchmark: Benchmark, asked: BenchmarkQuery, scores: Row) -> float | None:
    """With the photos of other classes left out, knowing the class does not help."""
    if benchmark.gallery_classes is None:
        return None
    ranked = benchmark.shows(asked.query.class_name) & ~flags(asked.ignored, len(scores))
    relevant = flags(asked.relevant, len(scores))[ranked]
    return average_precision(relevant, scores[ranked]) if relevant.any() else None
