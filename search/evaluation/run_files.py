"""Run files, read again and put beside each other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import WaldoError
from search.evaluation.method_table import method_cells, size
from search.evaluation.paper import paper_cells

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Run:
    """A run. path: its file. content: what `report.write_run` wrote. rows: those of its table."""

    path: Path
    content: dict[str, Any]
    rows: dict[str, dict[str, str]]


@dataclass(frozen=True)
class RunsTable:
    """Runs of one benchmark beside each other.

    title: the benchmark. rows: text, one cell per column; the first three columns say what was run,
    the others hold metrics in percent. paper: rows of published figures, whose first cell names
    their source.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    paper: list[list[str]]


def read_run(path: Path) -> Run:
    """Read a run file. Raises WaldoError for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WaldoError(f"{path}: not a readable run file ({error})") from None
    try:
        by_object = "objects" in content
        rows = method_cells(content)
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
    """Raise KeyError where a key is missing, TypeError where the entry is no dict."""
    for key in keys:
        entry[key]


def runs_tables(runs: list[Run]) -> list[RunsTable]:
    """One table per benchmark that was run, in the order of the runs.

    Benchmarks of one protocol differ by their size. A metric that a run does not have is blank.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(f"{run.content['protocol']}: {size(run.content)}", []).append(run)
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
        # All runs of a protocol have the same figures, except runs by versions that had others.
        known = next((run.content for run in group if run.content.get("paper")), {})
        paper = [
            [known["paper"]["source"], "", method, *(cells.get(column, "") for column in metrics)]
            for method, cells in paper_cells(known).items()
        ]
        tables.append(RunsTable(title, ["run", "model", "method", *metrics], rows, paper))
    return tables


def terminal_table(table: RunsTable) -> "Table":
    """The table for rich's console."""
    from rich.table import Table

    drawn = Table(title=table.title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if number < 3 else "right", no_wrap=number > 0)
    for row in (*table.rows, *table.paper):
        drawn.add_row(*row)
    return drawn


def markdown_table(table: RunsTable) -> str:
    """The table as Markdown, below its title in bold."""
    ruler = ["---" if number < 3 else "---:" for number in range(len(table.columns))]
    lines = [
        " | ".join(cell.replace("|", "\\|") for cell in row)
        for row in (table.columns, ruler, *table.rows, *table.paper)
    ]
    return "\n".join([f"**{table.title}**", "", *(f"| {line} |" for line in lines)])
