"""The report of an evaluation, of searches, masks or videos, as a table with a row per method."""

import textwrap
from typing import TYPE_CHECKING, Any

from search.evaluation.paper import published_note, published_rows
from search.scoring.scores import DEFAULT_SCORE

if TYPE_CHECKING:
    from rich.table import Table

# What a class map is compared as, and the start of the names of its AUCs in a report.
_CLASS_MAPS = {
    "S_S": "auc",
    "log-softmax of S_S over all nouns": "among_names",
    "difference from the background": "from_background",
}

_PER_INSTANCE = {"mIoU": "mIoU per instance", "bIoU": "bIoU per instance"}

# The protocol's own mIoU is counted in another way in each of them.
_HEADINGS = {
    "perseg": {"mIoU": "mIoU per group", "bIoU": "bIoU per group"},
    "permis": _PER_INSTANCE,
    "pods_masks": _PER_INSTANCE,
}

# How average precision is counted, where it is not scikit-learn's.
_TRAPEZOIDAL = "the revisited evaluator's average precision (trapezoidal, junk left out)"
_AVERAGE_PRECISIONS = {"roxford5k": _TRAPEZOIDAL, "rparis6k": _TRAPEZOIDAL}

# How the numbers of a column are counted; said once for columns that are counted alike.
_COUNTED = {
    "R@1": "R@k: the share of queries for which one of the first k photos is relevant",
    "in 5 %": (
        "in 5 %: the mean over queries of the share of their relevant photos that is among the "
        "best 5 % of the gallery"
    ),
    "same class": "same class: mAP among the photos of the query's class",
    "mAP confusable": "mAP confusable: over the queries whose class other objects share",
    "medium mP@10": (
        "mP@10: the mean precision among the first 10, or up to the last relevant photo if that "
        "is earlier"
    ),
    "NDCG": "NDCG: over the whole list, with gain 1 and discount log2(rank + 1)",
    "mAP@1k": (
        "mAP@1k: scikit-learn's average precision over the first 1,000 photos, times the number "
        "of relevant ones among them / min(1,000, number of relevant ones)"
    ),
    "mAP@100": (
        "mAP@100: the sum of the precisions at the relevant photos among the first 100 / "
        "min(100, number of relevant ones)"
    ),
    "mAP, trapezoidal": "mAP, trapezoidal: average precision as Oxford's evaluator counts it",
    "mAP, box IoU 0.5": (
        "mAP, box IoU 0.5: over the first 100 photos, of which a relevant one counts only where "
        "the box of cells found in it overlaps a true one with an IoU of at least 0.5, as in "
        "PASCAL VOC"
    ),
    "mAP, fitted box IoU 0.5": (
        "mAP, fitted box IoU 0.5: the same by the box that is fitted to the mask, as searches "
        "show it"
    ),
    "mIoU": (
        "per instance: the mean over photos; per group: the pixels of an object's photos "
        "together, then the mean over objects; cumulative: the pixels of all photos together; "
        "bIoU: of the pixels within 2 % of the photo's diagonal of the masks' boundaries"
    ),
    "F1, IoU 0.5": (
        "F1: that of COCO's precision and recall as PODS' evaluator takes it, with at most one "
        "detection per photo, then the mean over objects"
    ),
    "J&F": (
        "J: IoU of masks; F: F-measure of their boundaries; J&F: the mean of both; all are means "
        "over frames, without the first and the last, then over objects"
    ),
}

# The column of differences from the default score, query by query.
MORE_THAN_DEFAULT = f"more than {DEFAULT_SCORE}"

# Metrics that only some benchmarks have: the key in a report, and the column.
_FURTHER = {
    "mAP@1k": "mAP@1k",
    "mAP@100": "mAP@100",
    "NDCG": "NDCG",
    "F1": "F1, IoU 0.5 to 0.95",
    "F1_50": "F1, IoU 0.5",
    "mAP_trapezoidal": "mAP, trapezoidal",
    "Recall@20": "R@20",
    "Recall@30": "R@30",
    "Recall@100": "R@100",
    "Recall@1000": "R@1000",
    "mAP_localised": "mAP, box IoU 0.5",
    "mAP_localised_fitted": "mAP, fitted box IoU 0.5",
    "mIoU_per_instance": "mIoU per instance",
    "bIoU_per_instance": "bIoU per instance",
    "mIoU_per_group": "mIoU per group",
    "bIoU_per_group": "bIoU per group",
    "cumulative_bIoU": "cumulative bIoU",
}


def method_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The row of each method: text by column, the same columns for all; metrics in percent.

    Columns that are blank for all methods are left out: those that the benchmark does not have.
    """
    methods = report["methods"]
    shown = _HEADINGS.get(report["protocol"], {}).values()
    rows = {
        name: _cells(values)
        | {
            column: percent(values[key])
            for key, column in _FURTHER.items()
            if key in values and column not in shown
        }
        for name, values in methods.items()
    }
    if len(methods) > 1 and DEFAULT_SCORE in methods:
        for name, cells in rows.items():
            more = "" if name == DEFAULT_SCORE else _difference(methods[name])
            cells[MORE_THAN_DEFAULT] = more
    filled = {column for cells in rows.values() for column, text in cells.items() if text}
    return {
        name: {column: text for column, text in cells.items() if column in filled}
        for name, cells in rows.items()
    }


def benchmark_name(report: dict[str, Any]) -> str:
    """The protocol, with its convention where it has several, and the distractors behind it."""
    name = ", ".join(filter(None, (report["protocol"], report.get("convention"))))
    added = report.get("n_distractors")
    return f"{name} + {added:,} distractors" if added else name


def heading(protocol: str, column: str) -> str:
    """The head of a column, which says how its metric is counted where papers count in several
    ways.
    """
    return _HEADINGS.get(protocol, {}).get(column, column)


def table_notes(report: dict[str, Any]) -> list[str]:
    """What must be known to read a report's table, in sentences: how its numbers are counted, and
    whose the published figures are.
    """
    columns = next(iter(method_cells(report).values()))
    counted = [note for column, note in _COUNTED.items() if column in columns]
    drawn = "photos" if "BCubed precision" in columns else _asked(report)
    interval = f"95 % interval: bootstrap over {drawn}"
    notes = (_counted(report), interval, *counted, published_note(report))
    return [note for note in notes if note]


def _counted(report: dict[str, Any]) -> str:
    if "mAP" not in next(iter(report["methods"].values())):
        return ""
    kind = _AVERAGE_PRECISIONS.get(report["protocol"], "scikit-learn's average precision")
    return f"mAP: the mean over queries of {kind}"


def size(report: dict[str, Any]) -> str:
    """How much was evaluated, in words."""
    videos = any("J&F" in values for values in report["methods"].values())
    shown = "frames" if videos else "photos"
    return f"{report['n_queries']} {_asked(report)}, {report['n_gallery']} {shown}"


def _asked(report: dict[str, Any]) -> str:
    """What is looked for, in the plural."""
    return next((name for name in ("objects", "texts") if name in report), "queries")


def evaluation_table(report: dict[str, Any], narrow: bool = False) -> "Table":
    """The comparison of the methods for rich's console; the paper's figures are the last rows.

    narrow: for a terminal of 120 columns: headings are folded.
    """
    from rich.table import Table

    title = f"{benchmark_name(report)}, {report['model']['model']}: {size(report)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    rows = method_cells(report)
    columns = next(iter(rows.values())).keys()
    table.add_column("method")
    for column in columns:
        full = heading(report["protocol"], column)
        table.add_column(folded(full) if narrow else full, justify="right", no_wrap=True)
    for name, cells in rows.items():
        table.add_row(name, *(cells.get(column, "") for column in columns))
    for _, name, cells in published_rows(report):
        # A figure that nothing was measured for is no comparison.
        if cells.keys() & columns:
            table.add_row(name, *(cells.get(column, "") for column in columns))
    notes = table_notes(report)
    if "class_map" in report:
        notes.append(_class_map_note(report["class_map"]))
    table.caption_justify = "left"
    table.caption = "\n".join(notes)
    return table


def parts_table(report: dict[str, Any]) -> "Table | None":
    """What the methods reach on each part of the relevant photos, for rich's console; None for a
    benchmark that names no parts.
    """
    from rich.table import Table

    methods = report["methods"]
    parts = next(iter(methods.values())).get("parts", {})
    if not parts:
        return None
    metric = part_metric(parts)
    table = Table(title=parts_title(parts), title_justify="left", box=None, pad_edge=False)
    table.add_column("method")
    for name in parts:
        table.add_column(folded(name), justify="right")
    for name, values in methods.items():
        table.add_row(name, *(percent(values["parts"][part][metric]) for part in parts))
    table.caption, table.caption_justify = parts_note(parts), "left"
    return table


def part_metric(parts: dict[str, Any]) -> str:
    """The key of the metric that a method's parts have in a report."""
    return next(key for key in next(iter(parts.values())) if key in _FURTHER)


def parts_title(parts: dict[str, Any]) -> str:
    """What a table of parts shows."""
    return (
        f"{_FURTHER[part_metric(parts)]} of each part of the relevant photos, the others left out"
    )


def parts_note(parts: dict[str, Any]) -> str:
    """How many queries each part has, in words."""
    count = ", ".join(str(part["n_queries"]) for part in parts.values())
    return f"queries with such photos: {count}"


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
    if "medium" in values:
        return _graded_cells(values)
    if "mAP" not in values:
        return {
            "mAP@1k": percent(values["mAP@1k"]),
            "95 % interval": _interval(values["mAP@1k_interval"]),
        }
    return _retrieval_cells(values)


def _retrieval_cells(values: dict[str, Any]) -> dict[str, str]:
    by_level = {f"mAP, {level}": part["mAP"] for level, part in values["levels"].items()}
    # On a benchmark with levels every query is confusable.
    parts = by_level or {"mAP confusable": values["mAP_confusable"]}
    return {
        "mAP": percent(values["mAP"]),
        "95 % interval": _interval(values["mAP_interval"]),
        **{f"R@{k}": percent(values[f"Recall@{k}"]) for k in (1, 5, 10, 50)},
        "in 5 %": percent(values["found_in_5_percent"]),
        "same class": percent(values["mAP_same_class"]),
        **{column: percent(part) for column, part in parts.items()},
    }


def _graded_cells(values: dict[str, Any]) -> dict[str, str]:
    """mAP and mP@10 of each difficulty, as papers print them."""
    cells = {}
    for difficulty in ("easy", "medium", "hard"):
        found = values[difficulty]
        cells[f"{difficulty} mAP"] = percent(found["mAP"])
        if difficulty == "medium":
            cells["95 % interval"] = _interval(found["mAP_interval"])
        cells[f"{difficulty} mP@10"] = percent(found["mP@10"])
    return cells


def _mask_cells(values: dict[str, Any]) -> dict[str, str]:
    return {
        "mIoU": percent(values["mIoU"]),
        "95 % interval": _interval(values["mIoU_interval"]),
        "bIoU": percent(values["bIoU"]),
        "cumulative IoU": percent(values["cumulative_IoU"]),
    }


def _group_cells(values: dict[str, Any]) -> dict[str, str]:
    return {
        "groups": str(values["groups"]),
        "BCubed precision": percent(values["bcubed_precision"]),
        "95 % interval": _interval(values["bcubed_precision_interval"]),
        "recall": percent(values["bcubed_recall"]),
        "95 % interval of recall": _interval(values["bcubed_recall_interval"]),
        "F": percent(values["bcubed_f"]),
        "pairwise F": percent(values["pair_f"]),
        "placed": percent(values["placed"]),
    }


def _video_cells(values: dict[str, Any]) -> dict[str, str]:
    cells = {"J&F": percent(values["J&F"]), "95 % interval": _interval(values["J&F_interval"])}
    for metric in ("J", "F"):
        cells[metric] = percent(values[metric])
        cells[f"{metric} recall"] = percent(values[f"{metric}_recall"])
        cells[f"{metric} decay"] = percent(values[f"{metric}_decay"])
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


def percent(part: float | None) -> str:
    """A fraction as a cell has it; blank where there is none."""
    return "" if part is None else f"{100 * part:.1f}"


def _interval(ends: list[float]) -> str:
    low, high = ends
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _difference(values: dict[str, Any]) -> str:
    low, high = values["more_than_default_interval"]
    return f"{100 * values['more_than_default']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
