"""The page of evaluation runs: their tables, differences and charts, and their best and worst
queries as pictures (`query_pictures`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.commands.pages.chart import MOST_LINES, Chart, Plot, plot
from search.commands.pages.query_pictures import PictureStore, QueryGroup, best_and_worst
from search.commands.pages.rendering import render, write_html
from search.evaluation.runs.breakdowns import Part, by_class, by_part, by_size, has_sizes
from search.evaluation.runs.comparison import Comparison, compare
from search.evaluation.runs.curves import (
    RECALLS,
    found_ranks,
    has_exact_ranks,
    precision_recall,
    recall_at,
)
from search.evaluation.runs.run_files import (
    Run,
    RunsTable,
    by_benchmark,
    runs_parts_table,
    runs_table,
)
from search.evaluation.runs.values import Entrant, entrants

# The size of a chart on wide and on narrow screens, in pixels.
_WIDE, _NARROW = (604, 380), (340, 320)
_MOST_PHOTOS = 1000  # on the x axis of recall: run files hold so many places


@dataclass(frozen=True)
class _Breakdown:
    """A metric of the parts of a benchmark. title: the metric, and what parts it. parted_by: that,
    as the head of its column.
    """

    title: str
    parted_by: str
    parts: list[Part]


@dataclass(frozen=True)
class _Section:
    """Runs of one benchmark. compared: the methods of charts and breakdowns. charts: each for wide
    and for narrow screens. notes: what is left out of these.
    """

    table: RunsTable
    runs: list[Run]
    comparison: Comparison
    compared: list[Entrant]
    charts: list[tuple[Plot, Plot]]
    breakdowns: list[_Breakdown]
    notes: list[str]
    queries: list[QueryGroup]


def write_runs_page(runs: list[Run], path: Path) -> list[Path]:
    """Write a page of runs as one file that needs no other; return the photos that are gone.

    For each benchmark it shows the table of its runs, the differences between methods, and for
    searches precision over recall, recall over the number of photos, mAP by class and by size, and
    each method's best and worst queries. Photos that are gone since the run are named in their
    place. Raises WaldoError where the file cannot be written.
    """
    pictures = PictureStore()
    sections = [_section(title, group, pictures) for title, group in by_benchmark(runs).items()]
    text = render("runs.html", title="Evaluation runs", sections=sections, pictures=pictures)
    write_html(text, path)
    return pictures.gone


def _section(title: str, runs: list[Run], pictures: PictureStore) -> _Section:
    searches = [run for run in runs if "queries" in run.content]
    entered = entrants(searches)
    compared, notes = _chosen(entered), []
    if len(compared) < len(entered):
        notes.append(
            f"Charts show the {MOST_LINES} of {len(entered)} methods with the highest mAP."
        )
    if any(not has_exact_ranks(entrant) for entrant in compared):
        notes.append(
            "Some run files are of an earlier version: their curves are those of the first 1,000 "
            "places, in which equal scores stand in the order of the gallery."
        )
    breakdowns = [_Breakdown("mAP by class", "class", by_class(compared))]
    if all(map(has_sizes, compared)):
        breakdowns.append(
            _Breakdown("mAP by the object's share of the query photo", "share", by_size(compared))
        )
    else:
        notes.append("No table by size: some run files are of an earlier version without sizes.")
    if (parts := runs_parts_table(searches)) is not None:
        breakdowns.append(_Breakdown(parts.title, "part", by_part(compared)))
    return _Section(
        runs_table(title, runs),
        runs,
        compare(runs),
        compared,
        [(plot(c, *_WIDE), plot(c, *_NARROW, numbered=True)) for c in _charts(compared)],
        [breakdown for breakdown in breakdowns if len(breakdown.parts) > 1],
        notes,
        [best_and_worst(entrant, pictures) for entrant in entered],
    )


def _chosen(entered: list[Entrant]) -> list[Entrant]:
    """As many as a chart can show, those with the highest mAP, in the order of the table."""

    def precision(number: int) -> float:
        entrant = entered[number]
        # A benchmark without a query of medium difficulty has no mAP.
        return -float(entrant.run.content["methods"][entrant.method]["mAP"] or 0.0)

    best = sorted(range(len(entered)), key=precision)[:MOST_LINES]
    return [entered[number] for number in sorted(best)]


def _charts(compared: list[Entrant]) -> list[Chart]:
    found = {entrant.name: found_ranks(entrant) for entrant in compared}
    if not found or not all(found.values()):
        return []
    most = min(_MOST_PHOTOS, *(entrant.run.content["n_gallery"] for entrant in compared))
    ks = np.unique(np.geomspace(1, most, 60).round().astype(np.int64))
    return [
        Chart(
            "Precision over recall, interpolated, the mean over queries",
            "recall",
            {
                name: list(zip(RECALLS.tolist(), precision_recall(of).tolist(), strict=True))
                for name, of in found.items()
            },
            x_ticks=[tick / 5 for tick in range(6)],
            x_in_percent=True,
        ),
        Chart(
            "Recall at k: queries with a right photo among the first k",
            "k, the number of photos looked at",
            {
                name: list(zip(ks.tolist(), recall_at(of, ks).tolist(), strict=True))
                for name, of in found.items()
            },
            x_ticks=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
            names_at="start",
            logarithmic=True,
        ),
    ]
