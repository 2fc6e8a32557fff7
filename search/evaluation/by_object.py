"""Reports on objects' masks, in photos and videos: as tables, and as run files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import WaldoError
from indexer.store.files import write_text_atomically
from search.evaluation import object_masks as masks
from search.evaluation import video_labels as video
from search.evaluation.report import methods_table

if TYPE_CHECKING:
    from rich.table import Table


def objects_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Each method's row: text by column, the same columns for all, in percent."""
    module = video if report["protocol"] == "davis2017" else masks
    return module.table_cells(report)


def objects_table(report: dict[str, Any]) -> "Table":
    """The comparison as a table, the paper's figures below."""
    pictures = "frames" if report["protocol"] == "davis2017" else "photos"
    title = (
        f"{report['protocol']}, {report['model']['model']}: {report['n_queries']} objects, "
        f"{report['n_gallery']} {pictures}"
    )
    return methods_table(title, objects_cells(report), report)


def write_objects_run(path: Path, report: dict[str, Any]) -> None:
    """Write the report, every object's results in it. Raises WaldoError where it cannot be."""
    try:
        write_text_atomically(path, json.dumps(report))
    except OSError as error:
        raise WaldoError(f"--out {path}: cannot be written ({error.strerror})") from None
