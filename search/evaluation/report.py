"""What an evaluation found, for people and programs."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.errors import WaldoError
from indexer.store.files import write_atomically
from search.evaluation.benchmarks.benchmark import Benchmark
from search.evaluation.metrics.class_map import ClassMapQuality
from search.evaluation.metrics.summary import query_precision, summary
from search.evaluation.paper import paper_cells, published
from search.evaluation.retrieval import Evaluation
from search.scores import DEFAULT_SCORE

if TYPE_CHECKING:
    from rich.table import Table

# Of each query's ranking, so many places are written down.
_RANKED = 1000
# What the class map is looked at as, and what its AUCs' names begin with.
_CLASS_MAPS = {
    "S_S": "auc",
    "told from other names": "among_names",
    "told from the background": "from_background",
}


def evaluation_json(
    benchmark: Benchmark,
    fingerprint: dict[str, str | int],
    codec: str,
    evaluation: Evaluation,
    class_map: ClassMapQuality | None,
) -> dict[str, Any]:
    """The comparison as JSON-ready values; metrics are fractions, 0..1.

    fingerprint: the model's, as in its index. codec: the quality by which its maps were stored.
    class_map: how well S_S tells classes apart, where the benchmark has masks to measure it by.
    "timings" are seconds by stage, and by method its scoring. "paper" has published figures, in
    percent, for a benchmark that they exist for.
    """
    results = evaluation.results
    default = next((r for r in results if r.method.name == DEFAULT_SCORE), None)
    names = {result.method.name for result in results}
    seconds = evaluation.seconds
    report: dict[str, Any] = {
        "protocol": benchmark.protocol,
        "model": fingerprint,
        "codec": codec,
        "versions": versions(),
        "methods": {result.method.name: summary(benchmark, result, default) for result in results},
        "n_queries": len(benchmark.queries),
        "n_gallery": len(benchmark.gallery),
        "timings": {
            **{stage: spent for stage, spent in seconds.items() if stage not in names},
            "methods": {name: spent for name, spent in seconds.items() if name in names},
        },
    }
    paper = published(benchmark.protocol)
    if paper is not None:
        report["paper"] = paper
    if class_map is not None:
        report["class_map"] = asdict(class_map)
    return report


def versions() -> dict[str, str]:
    """Of what the numbers were made by."""
    import faiss
    import torch

    try:
        waldo = version("waldo-search")
    except PackageNotFoundError:  # run from its source folder
        waldo = "unknown"
    return {
        "waldo": waldo,
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "numpy": np.__version__,
    }


def evaluation_table(report: dict[str, Any]) -> "Table":
    """The comparison as a table, metrics in percent."""
    title = (
        f"{report['protocol']}, {report['model']['model']}: {report['n_queries']} queries, "
        f"{report['n_gallery']} photos"
    )
    table = methods_table(title, table_cells(report), report)
    if "class_map" in report:
        found = report["class_map"]
        table.caption_justify = "left"
        told = ", ".join(
            f"{way} {100 * found[f'{key}_everything']:.1f} and "
            f"{100 * found[f'{key}_other_objects']:.1f}"
            for way, key in _CLASS_MAPS.items()
            if found[f"{key}_everything"] is not None
        )
        table.caption = (
            f"class map, AUC in percent against everything else and against other objects: {told}; "
            f"naming {found['n_objects']} objects by {found['n_names']} names: "
            f"{100 * found['top1']:.1f} % right, {100 * found['top5']:.1f} % among the first five"
        )
    return table


def methods_table(title: str, rows: dict[str, dict[str, str]], report: dict[str, Any]) -> "Table":
    """Each method's row, text by column, the same columns for all; the paper's figures below."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("method")
    columns = next(iter(rows.values())).keys()
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, cells in {**rows, **paper_cells(report)}.items():
        table.add_row(name, *(cells.get(column, "") for column in columns))
    if "paper" in report:
        table.caption_justify = "left"
        table.caption = f"paper: {report['paper']['source']}"
    return table


def table_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Each method's row: text by column, the same columns for all, metrics in percent."""
    methods = report["methods"]
    graded = any("medium" in values for values in methods.values())
    rows = {
        name: _graded_cells(values) if graded else _retrieval_cells(values)
        for name, values in methods.items()
    }
    if len(methods) > 1 and DEFAULT_SCORE in methods:
        for name, cells in rows.items():
            more = "" if name == DEFAULT_SCORE else _difference(methods[name])
            cells[f"more than {DEFAULT_SCORE}"] = more
    return rows


def _retrieval_cells(values: dict[str, Any]) -> dict[str, str]:
    by_level = {level: part["mAP"] for level, part in values["levels"].items()}
    # Where there are levels, every query has look-alikes.
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
    """For each difficulty mAP and mP@10, as papers print them."""
    cells = {}
    for difficulty in ("easy", "medium", "hard"):
        found = values[difficulty]
        cells[f"{difficulty} mAP"] = _percent(found["mAP"])
        if difficulty == "medium":
            cells["95 % interval"] = _interval(found["mAP_interval"])
        cells[f"{difficulty} mP@10"] = _percent(found["mP@10"])
    return cells


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.1f}"


def _interval(ends: list[float]) -> str:
    low, high = ends
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _difference(values: dict[str, Any]) -> str:
    low, high = values["more_than_default_interval"]
    return f"{100 * values['more_than_default']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def write_run(
    path: Path, report: dict[str, Any], benchmark: Benchmark, evaluation: Evaluation
) -> None:
    """Write the report with every query's average precision (`query_precision`), the first 1,000
    places of its ranking and what is relevant or ignored (places in `gallery`; of equal scores the
    earlier place comes first, which is not how metrics take them).

    Raises WaldoError where the file cannot be written; what was there is then as it was.
    """

    def write(temporary: Path) -> None:
        # Query by query: all rankings of a large gallery may be more than fits in memory.
        with temporary.open("w", encoding="utf-8") as file:
            gallery = [str(photo.absolute()) for photo in benchmark.gallery]
            file.write(json.dumps({**report, "gallery": gallery})[:-1] + ', "queries": [')
            for row, query in enumerate(_query_results(benchmark, evaluation)):
                file.write((", " if row > 0 else "") + json.dumps(query))
            file.write("]}")

    try:
        write_atomically(path, write)
    except OSError as error:
        raise WaldoError(f"--out {path}: cannot be written ({error.strerror})") from None


def _query_results(benchmark: Benchmark, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for row, query in enumerate(benchmark.queries):
        by_method = {}
        for result in evaluation.results:
            scores = np.asarray(result.scores[row])
            by_method[result.method.name] = {
                "average_precision": query_precision(query, scores),
                "ranking": np.argsort(-scores, kind="stable")[:_RANKED].tolist(),
            }
        asked = query.query
        yield {
            "photo": str(asked.photo.absolute()),
            "class": asked.class_name,
            "mask": None if asked.mask is None else str(asked.mask.absolute()),
            "box": asked.box,
            "relevant": np.flatnonzero(query.relevant).tolist(),
            "ignored": np.flatnonzero(query.ignored).tolist(),
            "methods": by_method,
        }
