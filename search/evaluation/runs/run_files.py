"""Run files, read again and put beside each other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from features.errors import WaldoError
from search.evaluation.method_table import (
    MORE_THAN_DEFAULT,
    benchmark_name,
    folded,
    heading,
    method_cells,
    part_metric,
    parts_note,
    parts_title,
    percent,
    size,
    table_notes,
)
from search.evaluation.paper import published_rows

if TYPE_CHECKING:
    from rich.table import Table

_FOREIGN = (
    "not a run file as this version's `waldo evaluate --out` writes it; name such a file, or run "
    "the evaluation again"
)


@dataclass(frozen=True)
class Run:
    """A run. path: its file. content: what `report.write_run` wrote. rows: those of its table."""

    path: Path
    content: dict[str, Any]
    rows: dict[str, dict[str, str]]

    def facts(self) -> list[tuple[str, str]]:
        """What decided its numbers, and when known the software: titles and texts."""
        told = {name: self.content.get(name) for name in ("model", "codec", "versions", "machine")}
        return [(name, _in_words(value)) for name, value in told.items() if value]


@dataclass(frozen=True)
class RunsTable:
    """Runs of one benchmark beside each other.

    title: the benchmark. rows: text, one cell per column; the first three columns say what was run,
    the others hold metrics in percent. paper: rows of published figures, whose first cell names
    their source. notes: sentences, `method_table.table_notes`.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    paper: list[list[str]]
    notes: list[str]

    def by_run(self) -> list[tuple[str, list[list[str]]]]:
        """The rows of each run and of the paper, with the run and its model as one text."""
        groups = groupby((*self.rows, *self.paper), key=lambda row: row[:2])
        return [(", ".join(filter(None, names)), list(rows)) for names, rows in groups]


def read_run(path: Path) -> Run:
    """Read a run file. Raises WaldoError for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise WaldoError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise WaldoError(f"{path}: {_FOREIGN}") from None
    try:
        by_object = "objects" in content or "texts" in content
        rows = method_cells(content)
        _look_for(content, "protocol", "n_queries", "n_gallery")
        _look_for(content["model"], "model")
        if not by_object:
            _look_for(content, "gallery")
        for asked in [] if by_object else content["queries"]:
            _look_for(asked, "photo", "mask", "box")
            n_photos = len(content["gallery"])
            _check_places(asked["relevant"], n_photos)
            _check_places(asked["ignored"], n_photos)
            for method in rows:
                found = asked["methods"][method]
                _look_for(found, "average_precision")
                _check_places(found["ranking"], n_photos)
                if len(found.get("relevant_ranks", [])) > len(asked["relevant"]):
                    raise ValueError("more relevant photos were found than there are")
        if not rows:
            raise ValueError("no method")
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, ArithmeticError):
        raise WaldoError(f"{path}: {_FOREIGN}") from None
    return Run(path, content, rows)


def _look_for(entry: dict[str, Any], *keys: str) -> None:
    """Raise KeyError where a key is missing, TypeError where the entry is no dict."""
    for key in keys:
        entry[key]


def _check_places(places: list[int], n_photos: int) -> None:
    """Raise ValueError where a place in the gallery is none, TypeError where it is no number."""
    if places and not (min(places) >= 0 and max(places) < n_photos):
        raise ValueError("a place is not in the gallery")


def by_benchmark(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs of each benchmark, in the order of the runs, by a title that names it.

    Benchmarks of one protocol differ by their convention and their size.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        title = f"{benchmark_name(run.content)}: {size(run.content)}"
        groups.setdefault(title, []).append(run)
    return groups


def runs_table(title: str, runs: list[Run]) -> RunsTable:
    """The table of the runs of one benchmark. A metric that a run does not have is blank.

    What a method has more than the default is left out: `comparison` says it, and for all runs.
    """
    metrics = [
        *dict.fromkeys(
            column
            for run in runs
            for row in run.rows.values()
            for column in row
            if column != MORE_THAN_DEFAULT
        )
    ]
    rows = [
        [
            *(str(run.path), str(run.content["model"]["model"]), method),
            *(cells.get(column, "") for column in metrics),
        ]
        for run in runs
        for method, cells in run.rows.items()
    ]
    paper = [
        [source, "", method, *(cells.get(column, "") for column in metrics)]
        for source, method, cells in published_rows(runs[0].content)
        if cells.keys() & set(metrics)
    ]
    heads = [heading(runs[0].content["protocol"], column) for column in metrics]
    notes = list(dict.fromkeys(note for run in runs for note in table_notes(run.content)))
    return RunsTable(title, ["run", "model", "method", *heads], rows, paper, notes)


def runs_parts_table(runs: list[Run]) -> RunsTable | None:
    """What the runs of one benchmark reach on each part of the relevant photos; None for a
    benchmark that names no parts.
    """
    found = [
        (run, method, values["parts"])
        for run in runs
        for method, values in run.content["methods"].items()
        if values.get("parts")
    ]
    if not found:
        return None
    first = found[0][2]
    metric = part_metric(first)
    rows = [
        [
            *(str(run.path), str(run.content["model"]["model"]), method),
            *(percent(parts[name][metric]) if name in parts else "" for name in first),
        ]
        for run, method, parts in found
    ]
    columns = ["run", "model", "method", *first]
    return RunsTable(parts_title(first), columns, rows, [], [parts_note(first)])


def terminal_table(table: RunsTable, narrow: bool = False) -> "Table":
    """The table for rich's console.

    narrow: for a terminal of 120 columns: headings are folded, and each run has a line of its own
    above its rows.
    """
    from rich.table import Table

    drawn = Table(title=table.title, title_justify="left", box=None, pad_edge=False)
    drawn.collapse_padding = narrow
    first = 2 if narrow else 0  # the columns before are the run and its model
    for number, column in enumerate(table.columns[first:], start=first):
        heading = folded(column) if narrow else column
        side: Literal["left", "right"] = "left" if number < 3 else "right"
        drawn.add_column(heading, justify=side, no_wrap=number > first, overflow="fold")
    if narrow:
        # The names of runs are folded to the width of the longest method.
        drawn.columns[0].min_width = drawn.columns[0].max_width = max(
            len(row[2]) for row in (*table.rows, *table.paper)
        )
    for names, rows in table.by_run():
        if narrow:
            drawn.add_row(names, style="bold")
        for row in rows:
            drawn.add_row(*row[first:])
    drawn.caption, drawn.caption_justify = "\n".join(table.notes) or None, "left"
    return drawn


def markdown_table(table: RunsTable) -> str:
    """The table as Markdown, below its title in bold, with its notes below it."""
    text = to_markdown(table.title, table.columns, [*table.rows, *table.paper], left=3)
    return "\n\n".join((text, *table.notes))


def to_markdown(title: str, columns: Sequence[str], rows: list[list[str]], left: int) -> str:
    """A table as Markdown, below its title in bold. left: how many columns hold text."""
    ruler = ["---" if number < left else "---:" for number in range(len(columns))]
    lines = [
        " | ".join(cell.replace("|", "\\|") for cell in row) for row in (columns, ruler, *rows)
    ]
    return "\n".join([f"**{title}**", "", *(f"| {line} |" for line in lines)])


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items())
    return str(value)
