"""Fusion weights fitted to labelled queries, as PDM's appendix E fits those of its two maps."""

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.errors import WaldoError
from features.models import MapExtractor
from indexer.ingest.progress import Progress
from indexer.store.manifest import read_manifest
from indexer.upkeep.fusion_weights import store_weights
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.methods.methods import MapMethod, Method
from search.evaluation.metrics.measured import QueryResult, Row, query_precision
from search.evaluation.metrics.ranking import bootstrap_interval
from search.evaluation.retrieval import run_methods
from search.evaluation.steps import OnStep
from search.scoring.fusion import FusionWeights, default_weights, fuse
from search.scoring.scores import SCORES, Score, agreement, class_evidence, token_heat

if TYPE_CHECKING:
    from rich.table import Table

# What is tried: weights of agreement, and of class evidence in parts of the weight that would let
# it spread a query's photos as far as `consistent` does.
_AGREEMENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
_SPREADS = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)

# Of fewer objects all might well gain by chance.
FEWEST = 6

# What `fused` is made of, each as a method that measures nothing else.
_COMPONENTS: list[Method] = [
    MapMethod("late", "model", SCORES["late"]),
    MapMethod("agreement", "model", Score("agreement", "", agreement, token_heat)),
    MapMethod(
        "class-evidence",
        "model",
        Score("class-evidence", "", class_evidence, token_heat, takes=("rivals",)),
    ),
]


@dataclass(frozen=True)
class Components:
    """What `fused` is made of, of every query and photo; (n_gallery,) float32 for each query.

    class_evidence: 0 throughout for a query without a class name.
    """

    likeness: Sequence[Row]
    agreement: Sequence[Row]
    class_evidence: Sequence[Row]

    def fused(self, query: int, weights: FusionWeights) -> NDArray[np.float32]:
        """A query's score of each photo, (n_gallery,)."""
        return fuse(
            weights, self.likeness[query], self.agreement[query], self.class_evidence[query]
        )


class _WholeRows(Sequence[Row]):
    """The scores of all photos, of each query, from results that keep them all."""

    def __init__(self, results: Sequence[QueryResult]) -> None:
        self._results = results

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, query: Any) -> Any:
        return self._results[query].by_place()


@dataclass(frozen=True)
class Fit:
    """Which weights suit labelled queries, and what they are worth.

    weights: the default ones where no others are clearly better. precision_default,
    precision_fitted: mAP over the queries, 0..1. gain_interval: 95 % interval of the mean gain of
    an object's queries, over objects. precision_held_out: mAP of queries by weights that were
    fitted to the other half of the objects. n_queries: those with something to find; n_objects:
    that they are of.
    """

    default: FusionWeights
    weights: FusionWeights
    precision_default: float
    precision_fitted: float
    gain_interval: tuple[float, float]
    precision_held_out: float
    n_queries: int
    n_objects: int

    @property
    def changed(self) -> bool:
        return self.weights != self.default

    @property
    def verdict(self) -> str:
        """What was made of it, in a sentence."""
        asked = f"{self.n_queries} queries of {self.n_objects} objects"
        if not self.changed:
            return f"{asked}: no weights are clearly better than the default, which searches keep"
        low, high = (100 * edge for edge in self.gain_interval)
        gain = f"{low:+.1f} to {high:+.1f}"
        return f"{asked}: the gain's 95 % interval is {gain}; stored for the score fused"

    def as_json(self) -> dict[str, Any]:
        return {
            "queries": self.n_queries,
            "objects": self.n_objects,
            "changed": self.changed,
            "default": {**asdict(self.default), "mAP": self.precision_default},
            "fitted": {**asdict(self.weights), "mAP": self.precision_fitted},
            "gain_interval": list(self.gain_interval),
            "mAP_held_out": self.precision_held_out,
        }


def fit_index(
    index_dir: Path,
    benchmark: Benchmark,
    extractor: MapExtractor,
    work: Path,
    on_progress: Callable[[Progress], None] | None = None,
    on_step: OnStep | None = None,
    on_commit: Callable[[], None] | None = None,
) -> Fit:
    """Fit weights to a benchmark's queries, and keep them with an index for its searches.

    Where no weights are clearly better than the model's own, the index keeps none.

    extractor: the index's own model and settings. work, on_progress, on_step: as for `run_methods`.
    on_commit: called when the weights are stored; if it raises, what was measured is kept for the
    next call. Raises WaldoError, also where the queries are of fewer than 6 objects.
    """
    _check_objects(benchmark.queries)
    found = run_methods(
        *(benchmark, _COMPONENTS, extractor, work, read_manifest(index_dir).quality),
        on_progress=on_progress,
        on_step=on_step,
        depth=len(benchmark.gallery),
    )
    components = Components(*(_WholeRows(result.queries) for result in found.results))
    fit = fit_weights(benchmark.queries, components, default_weights(extractor.model.name))
    store_weights(index_dir, asdict(fit.weights) if fit.changed else None)
    if on_commit is not None:
        on_commit()
    shutil.rmtree(found.folder)
    return fit


def fit_weights(
    queries: list[BenchmarkQuery], components: Components, default: FusionWeights
) -> Fit:
    """The weights nearest to the default that are as good as the best on a grid.

    These are clearly better than the default (95 % paired bootstrap interval of the gain above 0),
    and the best of the grid is not clearly better than they. The default stays where there are no
    such weights, or where those so chosen on half of the objects lose on the other half.

    Raises WaldoError where the queries are of fewer than 6 objects.
    """
    _check_objects(queries)
    asked = [row for row, query in enumerate(queries) if len(query.relevant)]
    grid, start = _grid(queries, components, default)
    # Query by query, because the scores of all may not fit in memory.
    precisions = np.array(
        [
            [
                query_precision(queries[row], components.fused(row, weights))
                for weights in grid.values()
            ]
            for row in asked
        ],
        dtype=np.float64,
    ).T
    objects = _objects([queries[row] for row in asked])
    steps = np.abs(np.array(list(grid)) - start).sum(axis=1)
    place = list(grid).index(start)
    half = np.isin(objects, np.random.default_rng(0).permutation(objects.max() + 1)[::2])
    held_out = np.empty(len(asked))
    for fitted, measured in ((half, ~half), (~half, half)):
        chosen = _choose(precisions[:, fitted], objects[fitted], steps, place)
        held_out[measured] = precisions[chosen, measured]
    chosen = _choose(precisions, objects, steps, place)
    if held_out.mean() < precisions[place].mean():
        chosen = place
    gains = _by_object(precisions[chosen] - precisions[place], objects)
    return Fit(
        default,
        list(grid.values())[chosen],
        float(precisions[place].mean()),
        float(precisions[chosen].mean()),
        bootstrap_interval(gains),
        float(held_out.mean()),
        len(asked),
        len(gains),
    )


def _check_objects(queries: list[BenchmarkQuery]) -> None:
    count = len(set(_objects([query for query in queries if len(query.relevant)]).tolist()))
    if count < FEWEST:
        raise WaldoError(
            f"queries of {count} objects are too few to tell what chance does; fitting weights "
            f"takes those of at least {FEWEST}"
        )


def _grid(
    queries: list[BenchmarkQuery], components: Components, default: FusionWeights
) -> tuple[dict[tuple[int, int], FusionWeights], tuple[int, int]]:
    """Weights by their place on the grid, and the default's place."""
    consistent, evidence = [], []
    plain = FusionWeights(default.agreement, 0.0)
    for row, query in enumerate(queries):
        if query.query.class_name is not None:
            consistent.append(np.delete(components.fused(row, plain), query.ignored).std())
            evidence.append(np.delete(components.class_evidence[row], query.ignored).std())
    classes = {default.class_evidence}
    # Where no class is named, nothing is learnt of them.
    if evidence and np.median(evidence) > 0:
        even = float(np.median(consistent) / np.median(evidence))
        classes |= {float(f"{share * even:.2g}") for share in _SPREADS}
    rows, columns = sorted({*_AGREEMENTS, default.agreement}), sorted(classes)
    grid = {
        (i, j): FusionWeights(rows[i], columns[j])
        for i, j in itertools.product(range(len(rows)), range(len(columns)))
    }
    return grid, (rows.index(default.agreement), columns.index(default.class_evidence))


def _choose(
    precisions: NDArray[np.float64],
    objects: NDArray[np.int64],
    steps: NDArray[np.int64],
    default: int,
) -> int:
    """The place of the weights that `fit_weights` describes; `default` is the default's.

    precisions: (n_weights, n_queries). objects: (n_queries,). steps: (n_weights,), how far from the
    default on the grid.
    """
    means = precisions.mean(axis=1)
    best = np.lexsort((steps, -means))[0]

    def clearly_more(one: int, other: int) -> bool:
        gains = _by_object(precisions[one] - precisions[other], objects)
        return bootstrap_interval(gains)[0] > 0

    for place in np.lexsort((-means, steps)).tolist():
        better = means[place] > means[default] and clearly_more(place, default)
        if better and not clearly_more(best, place):
            return int(place)
    return default


def _objects(queries: list[BenchmarkQuery]) -> NDArray[np.int64]:
    """Numbers, (n_queries,), the same for queries of the same object: with the same answers.

    A photo of the object that is ignored because it is the query itself counts as one.
    """
    numbers: dict[bytes, int] = {}
    answers = [np.union1d(query.relevant, query.ignored).tobytes() for query in queries]
    return np.array([numbers.setdefault(answer, len(numbers)) for answer in answers], np.int64)


def _by_object(values: NDArray[np.float64], objects: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each object's queries, so that one of many photos does not count as many."""
    _, rows = np.unique(objects, return_inverse=True)
    means: NDArray[np.float64] = np.bincount(rows, values) / np.bincount(rows)
    return means


def fit_table(fit: Fit) -> "Table":
    """Weights and mAP in percent."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("weights")
    for column in ("agreement", "class evidence", "mAP"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, weights, precision in (
        ("default", fit.default, fit.precision_default),
        ("fitted", fit.weights, fit.precision_fitted),
    ):
        numbers = (f"{weights.agreement:g}", f"{weights.class_evidence:g}")
        table.add_row(name, *numbers, f"{100 * precision:.1f}")
    table.add_row("fitted to the other half", "", "", f"{100 * fit.precision_held_out:.1f}")
    return table
