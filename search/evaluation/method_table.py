"""The report of an evaluation, of searches, masks or videos, as a table with a row per method."""

import textwrap
from typing import TYPE_CHECKING, Any

from search.evaluation.paper import paper_cells
from search.scores import DEFAULT_SCORE

if TYPE_CHECKING:
    from rich.table import Table

# What a class map is compared as, and the start of the names of its AUCs in a report.
_CLASS_MAPS = {
    "S_S": "auc",
    "log-softmax of S_S over all nouns": "among_names",
    "difference from the background": "from_background",
}


def method_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The row of each method: text by column, the same columns for all; metrics in percent."""
    methods = report["methods"]
    rows = {name: _cells(values) for name, values in methods.items()}
    if len(methods) > 1 and DEFAULT_SCORE in methods:
        for name, cells in rows.items():
            more = "" if name == DEFAULT_SCORE else _difference(methods[name])
            cells[f"more than {DEFAULT_SCORE}"] = more
    return rows


def size(report: dict[str, Any]) -> str:
    """How much was evaluated, in words."""
    asked = "objects" if "objects" in report else "queries"
    videos = any("J&F" in values for values in report["methods"].values())
    shown = "frames" if videos else "photos"
    return f"{report['n_queries']} {asked}, {report['n_gallery']} {shown}"


def evaluation_table(report: dict[str, Any], narrow: bool = False) -> "Table":
    """The comparison of the methods for rich's console; the paper's figures are the last rows.

    narrow: for a terminal of 120 columns: headings are folded.
    """
    from rich.table import Table

    title = f"{report['protocol']}, {report['model']['model']}: {size(report)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    rows = method_cells(report)
    columns = next(iter(rows.values())).keys()
    table.add_column("method")
    for column in columns:
        heading = folded(column) if narrow else column
        table.add_column(heading, justify="right", no_wrap=True)
    for name, cells in {**rows, **paper_cells(report)}.items():
        table.add_row(name, *(cells.get(column, "") for column in columns))
    notes = []
    if report.get("paper"):
        notes.append(f"paper: {report['paper']['source']}")
    if "class_map" in report:
        notes.append(_class_map_note(report["class_map"]))
    if notes:
        table.caption_justify = "left"
        table.caption = "\n".join(notes)
    return table


def folded(heading: str) -> str:
    """A heading in several lines, no wider than its longest word, or six letters."""
    return textwrap.fill(heading, max(6, *map(len, heading.split())))


def _cells(values: dict[str, Any]) -> dict[str, str]:
    """The row of a method; the metrics that it has tell what was measured."""
    if "J&F" in values:
        return _video_cells(values)
    if "bcubed_f" in values:
        return _group_cells(values)
    if "mIoU" in values:
        return _mask_cells(values)
    return _graded_cells(values) if "medium" in values else _retrieval_cells(values)


def _retrieval_cells(values: dict[str, Any]) -> dict[str, str]:
    by_level = {level: part["mAP"] for level, part in values["levels"].items()}
    # On a benchmark with levels every query is confusable.
    parts = by_level or {"mAP confusable": values["mAP_confusable"]}
    return {
        "mAP": _percent(values["mAP"]),
        "95 % interval": _interval(values["mAP_interval"]),
        **{f"R@{k}": _percent(values[f"Recall@{k}"]) for k in (1, 5, 10, 50)},
        "in 5 %": _percent(values["found_in_5_percent"]),
        "same class": _percent(values["mAP_same_class"]),
        **{column: _percent(part) for column, part in parts.items()},
    }


def _graded_cells(values: dict[str, Any]) -> dict[str, str]:
    """mAP and mP@10 of each difficulty, as papers print them."""
    cells = {}
    for difficulty in ("easy", "medium", "hard"):
        found = values[difficulty]
        cells[f"{difficulty} mAP"] = _percent(found["mAP"])
        if difficulty == "medium":
            cells["95 % interval"] = _interval(found["mAP_interval"])
        cells[f"{difficulty} mP@10"] = _percent(found["mP@10"])
    return cells


def _mask_cells(values: dict[str, Any]) -> dict[str, str]:
    return {
        "mIoU": _percent(values["mIoU"]),
        "95 % interval": _interval(values["mIoU_interval"]),
        "bIoU": _percent(values["bIoU"]),
        "cumulative IoU": _percent(values["cumulative_IoU"]),
    }


def _group_cells(values: dict[str, Any]) -> dict[str, str]:
    return {
        "groups": str(values["groups"]),
        "BCubed precision": _percent(values["bcubed_precision"]),
        "95 % interval": _interval(values["bcubed_precision_interval"]),
        "recall": _percent(values["bcubed_recall"]),
        "95 % interval of recall": _interval(values["bcubed_recall_interval"]),
        "F": _percent(values["bcubed_f"]),
        "pairwise F": _percent(values["pair_f"]),
        "placed": _percent(values["placed"]),
    }


def _video_cells(values: dict[str, Any]) -> dict[str, str]:
    cells = {"J&F": _percent(values["J&F"]), "95 % interval": _interval(values["J&F_interval"])}
    for metric in ("J", "F"):
        cells[metric] = _percent(values[metric])
        cells[f"{metric} recall"] = _percent(values[f"{metric}_recall"])
        cells[f"{metric} decay"] = _percent(values[f"{metric}_decay"])
    return cells


def _class_map_note(found: dict[str, Any]) -> str:
    aucs = ", ".join(
        f"{way} {100 * found[f'{key}_everything']:.1f} and "
        f"{100 * found[f'{key}_other_objects']:.1f}"
        for way, key in _CLASS_MAPS.items()
        if found[f"{key}_everything"] is not None
    )
    return (
        f"class map, AUC in percent against everything else and against other objects: {aucs}; "
        f"naming {found['n_objects']} objects by {found['n_names']} names: "
        f"{100 * found['top1']:.1f} % right, {100 * found['top5']:.1f} % among the first five"
    )


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.1f}"


def _interval(ends: list[float]) -> str:
    low, high = ends
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _difference(values: dict[str, Any]) -> str:
    low, high = values["more_than_default_interval"]
    return f"{100 * values['more_than_default']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
