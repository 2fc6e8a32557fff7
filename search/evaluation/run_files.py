"""Runs that `waldo evaluate --out` wrote, read again and put beside each other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import WaldoError
from search.evaluation.by_object import objects_cells
from search.evaluation.paper import paper_cells
from search.evaluation.report import table_cells

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Run:
    """One run. path: its file. content: what `write_run` or `write_objects_run` put there. rows: of
    its table.
    """

    path: Path
    content: dict[str, Any]
    rows: dict[str, dict[str, str]]


@dataclass(frozen=True)
class RunsTable:
    """Runs of one benchmark beside each other. title: the benchmark. rows: text, a cell a column;
    the first three columns say what was run, the others hold metrics in percent. paper: rows alike,
    of published figures; they say where these come from.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    paper: list[list[str]]


def read_run(path: Path) -> Run:
    """Read a run's file. Raises WaldoError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WaldoError(f"{path}: not a readable run file ({error})") from None
    try:
        by_object = "objects" in content
        rows = objects_cells(content) if by_object else table_cells(content)
        _look_for(content, "protocol", "n_queries", "n_gallery")
        _look_for(content["model"], "model")
        if not by_object:
            _look_for(content, "gallery")
        for asked in [] if by_object else content["queries"]:
            _look_for(asked, "photo", "mask", "box", "relevant", "ignored")
            for method in rows:
                _look_for(asked["methods"][method], "average_precision", "ranking")
        if not rows:
            raise ValueError("no method")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WaldoError(
            f"{path}: not laid out as this version's `waldo evaluate --out` writes it ({error!r})"
        ) from None
    return Run(path, content, rows)


def _look_for(entry: dict[str, Any], *keys: str) -> None:
    """Raises KeyError, or TypeError for what is no dict, where a key is missing."""
    for key in keys:
        entry[key]


def runs_tables(runs: list[Run]) -> list[RunsTable]:
    """A table for each benchmark that was run, in the order of the runs; benchmarks of one protocol
    are told apart by their size. A metric that a run does not have is left blank.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        found = run.content
        asked = "objects" if "objects" in found else "queries"
        title = f"{found['protocol']}: {found['n_queries']} {asked}, {found['n_gallery']} photos"
        groups.setdefault(title, []).append(run)
    tables = []
    for title, group in groups.items():
        metrics = list(
            dict.fromkeys(column for run in group for row in run.rows.values() for column in row)
        )
        rows = [
            [
                *(str(run.path), str(run.content["model"]["model"]), method),
                *(cells.get(column, "") for column in metrics),
            ]
            for run in group
            for method, cells in run.rows.items()
        ]
        # The same in all runs of a protocol, but for runs by versions that knew other figures.
        known = next((run.content for run in group if "paper" in run.content), {})
        paper = [
            [known["paper"]["source"], "", method, *(cells.get(column, "") for column in metrics)]
            for method, cells in paper_cells(known).items()
        ]
        tables.append(RunsTable(title, ["run", "model", "method", *metrics], rows, paper))
    return tables


def terminal_table(table: RunsTable) -> "Table":
    """For rich's console."""
    from rich.table import Table

    drawn = Table(title=table.title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if number < 3 else "right", no_wrap=number > 0)
    for row in (*table.rows, *table.paper):
        drawn.add_row(*row)
    return drawn


def markdown_table(table: RunsTable) -> str:
    """As Markdown, below the title in bold."""
    ruler = ["---" if number < 3 else "---:" for number in range(len(table.columns))]
    lines = [
        " | ".join(cell.replace("|", "\\|") for cell in row)
        for row in (table.columns, ruler, *table.rows, *table.paper)
    ]
    return "\n".join([f"**{table.title}**", "", *(f"| {line} |" for line in lines)])
