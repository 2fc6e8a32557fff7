"""Reports on objects' masks, in photos and videos: as tables, and as run files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import WaldoError
from indexer.files import write_text_atomically
from search.evaluation import masks, video
from search.evaluation.paper import paper_cells

if TYPE_CHECKING:
    from rich.table import Table


def objects_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Each method's row: text by column, the same columns for all, in percent."""
    module = video if report["protocol"] == "davis2017" else masks
    return module.table_cells(report)


def objects_table(report: dict[str, Any]) -> "Table":
    """The comparison as a table, the paper's figures below."""
    from rich.table import Table

    pictures = "frames" if report["protocol"] == "davis2017" else "photos"
    title = (
        f"{report['protocol']}, {report['model']['model']}: {report['n_queries']} objects, "
        f"{report['n_gallery']} {pictures}"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("method")
    rows = objects_cells(report)
    columns = next(iter(rows.values())).keys()
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, cells in {**rows, **paper_cells(report)}.items():
        table.add_row(name, *(cells.get(column, "") for column in columns))
    table.caption_justify = "left"
    table.caption = f"paper: {report['paper']['source']}"
    return table


def write_objects_run(path: Path, report: dict[str, Any]) -> None:
    """Write the report, every object's results in it. Raises WaldoError where it cannot be."""
    try:
        write_text_atomically(path, json.dumps(report))
    except OSError as error:
        raise WaldoError(f"--out {path}: cannot be written ({error.strerror})") from None
