"""Whether one method is better than another: differences query by query, with their spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.evaluation.runs.run_files import Run, to_markdown
from search.evaluation.runs.values import (
    Entrant,
    Metric,
    Value,
    entrants,
    main_method,
    metric_of,
    values,
)

if TYPE_CHECKING:
    from rich.table import Table

_RESAMPLES = 2000

# Percentiles of fewer groups are too narrow by much.
_FEW_GROUPS = 10

# The columns of the table of differences, without the metric's.
_COLUMNS = ("method", "compared with", "difference", "95 % interval", "better", "worse", "pairs")


@dataclass(frozen=True)
class Difference:
    """A method minus another, over the same queries, as fractions.

    interval: 95 %, by a paired bootstrap over groups (`Value.group`). better, worse: the shares of
    queries at which the method is. n, n_groups: how many queries and groups there are.
    """

    entrant: Entrant
    other: Entrant
    mean: float
    interval: tuple[float, float]
    better: float
    worse: float
    n: int
    n_groups: int


@dataclass(frozen=True)
class Comparison:
    """The differences between the methods of runs of one benchmark.

    metric: what differs. notes: sentences that say what could not be compared.
    """

    metric: Metric
    differences: list[Difference]
    notes: list[str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The heads of its table."""
        return _COLUMNS

    @property
    def title(self) -> str:
        """The title of its table."""
        return f"Differences in {self.metric.name}, in points"

    def rows(self) -> list[list[str]]:
        """The cells of its table; differences in points, shares of queries in percent."""
        return [
            [
                *(found.entrant.name, found.other.name, f"{100 * found.mean:+.1f}"),
                " to ".join(f"{100 * end:+.1f}" for end in found.interval),
                *(f"{100 * share:.0f} %" for share in (found.better, found.worse)),
                str(found.n),
            ]
            for found in self.differences
        ]

    def explanation(self) -> str:
        """How the numbers are made, in a sentence; "" where there are none."""
        if not self.differences:
            return ""
        groups = max(found.n_groups for found in self.differences)
        return (
            f"Intervals: paired bootstrap, {_RESAMPLES:,} resamples of the {groups} "
            f"{self.metric.groups}. Better and worse: the share of pairs; the others are equal. "
            "Each interval is for one comparison."
            + (" So few say little: the intervals are too narrow." if groups < _FEW_GROUPS else "")
        )


def comparison_table(comparison: Comparison) -> "Table":
    """The table for rich's console, with what it means below it."""
    from rich.table import Table

    drawn = Table(title=comparison.title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(comparison.columns):
        drawn.add_column(column, justify="left" if number < 2 else "right", overflow="fold")
    for row in comparison.rows():
        drawn.add_row(*row)
    drawn.caption, drawn.caption_justify = comparison.explanation(), "left"
    return drawn


def comparison_markdown(comparison: Comparison) -> str:
    """The table as Markdown, with what it means below it."""
    table = to_markdown(comparison.title, comparison.columns, comparison.rows(), left=2)
    return f"{table}\n\n{comparison.explanation()}"


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare each method with the same method of the first run, or with that run's main method.

    runs: of one benchmark. The main method is `main_method`.
    """
    known = entrants(list(runs))
    first = {entrant.method: entrant for entrant in known if entrant.run is runs[0]}
    main = first[main_method(runs[0])]
    reached = {entrant.name: values(entrant) for entrant in known}
    metric = metric_of(runs[0])
    if not reached[main.name]:
        return Comparison(metric, [], ["These runs have no results of single queries to compare."])
    differences = []
    unlike = [run for run in runs if _queries(run, reached, known) != set(reached[main.name])]
    for entrant in known:
        other = main if entrant.run is runs[0] else first.get(entrant.method, main)
        if entrant is not other and entrant.run not in unlike:
            pairs = [(reached[entrant.name][key], old) for key, old in reached[other.name].items()]
            differences.append(_difference(entrant, other, pairs))
    notes = [f"Not compared: {run.path} has other queries than {runs[0].path}." for run in unlike]
    return Comparison(metric, differences, notes)


def _queries(run: Run, reached: dict[str, dict[str, Value]], known: list[Entrant]) -> set[str]:
    """The names of the queries of a run."""
    return set(reached[next(entrant.name for entrant in known if entrant.run is run)])


def _difference(entrant: Entrant, other: Entrant, pairs: list[tuple[Value, Value]]) -> Difference:
    """pairs: of each query, what the method and what the other reached."""
    more = np.array([new.value - old.value for new, old in pairs])
    _, groups = np.unique([old.group for _, old in pairs], return_inverse=True)
    return Difference(
        *(entrant, other, float(more.mean()), grouped_interval(more, groups)),
        better=float((more > 0).mean()),
        worse=float((more < 0).mean()),
        n=len(more),
        n_groups=int(groups.max()) + 1,
    )


def grouped_interval(
    differences: NDArray[np.float64], groups: NDArray[np.integer[Any]], seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean, where whole groups are drawn.

    differences: (n,). groups: (n,), the group of each, from 0; every number up to the highest
    occurs.
    """
    sums, sizes = np.bincount(groups, weights=differences), np.bincount(groups)
    picks = np.random.default_rng(seed).integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
