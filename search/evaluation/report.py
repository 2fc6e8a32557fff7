"""What an evaluation found, for people and programs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.errors import WaldoError
from search.evaluation.benchmark import Benchmark
from search.evaluation.classmap import ClassMapQuality
from search.evaluation.run import MethodResult, summary
from search.scores import DEFAULT_SCORE

if TYPE_CHECKING:
    from rich.table import Table


def evaluation_json(
    benchmark: Benchmark,
    fingerprint: dict[str, str | int],
    results: list[MethodResult],
    class_map: ClassMapQuality | None,
) -> dict[str, Any]:
    """The comparison as JSON-ready values; metrics are fractions, 0..1.

    class_map: how well S_S tells classes apart, where the benchmark has masks to measure it by.
    """
    default = next((r for r in results if r.method.name == DEFAULT_SCORE), None)
    report = {
        "protocol": benchmark.protocol,
        "model": fingerprint,
        "methods": {result.method.name: summary(benchmark, result, default) for result in results},
        "n_queries": len(benchmark.queries),
        "n_gallery": len(benchmark.gallery),
    }
    return report if class_map is None else {**report, "class_map": asdict(class_map)}


def evaluation_table(report: dict[str, Any]) -> "Table":
    """The comparison as a table, metrics in percent."""
    from rich.table import Table

    title = (
        f"{report['protocol']}, {report['model']['model']}: {report['n_queries']} queries, "
        f"{report['n_gallery']} photos"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("method")
    levels = list(next(iter(report["methods"].values()))["levels"])
    # Where there are levels, every query has look-alikes.
    last = levels or ["mAP confusable"]
    compared = len(report["methods"]) > 1 and DEFAULT_SCORE in report["methods"]
    more = [f"more than {DEFAULT_SCORE}"] if compared else []
    ranks = ("R@1", "R@5", "R@10", "in 5 %")
    for column in ("mAP", "95 % interval", *ranks, "same class", *last, *more):
        table.add_column(column, justify="right", no_wrap=True)
    for name, values in report["methods"].items():
        low, high = values["mAP_interval"]
        parts = [values["levels"][level]["mAP"] for level in levels] or [values["mAP_confusable"]]
        table.add_row(
            name,
            f"{100 * values['mAP']:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            *(f"{100 * values[f'Recall@{k}']:.1f}" for k in (1, 5, 10)),
            f"{100 * values['found_in_5_percent']:.1f}",
            *(
                "" if part is None else f"{100 * part:.1f}"
                for part in (values["mAP_same_class"], *parts)
            ),
            *([_difference(values) if name != DEFAULT_SCORE else ""] if compared else []),
        )
    if "class_map" in report:
        found = report["class_map"]
        table.caption_justify = "left"
        table.caption = (
            f"class map, AUC in percent: {100 * found['auc_everything']:.1f} against everything "
            f"else, {100 * found['auc_other_objects']:.1f} against other objects; naming "
            f"{found['n_objects']} objects by {found['n_names']} names: "
            f"{100 * found['top1']:.1f} % right, {100 * found['top5']:.1f} % among the first five"
        )
    return table


def _difference(values: dict[str, Any]) -> str:
    low, high = values["more_than_default_interval"]
    return f"{100 * values['more_than_default']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def write_run(
    path: Path, report: dict[str, Any], benchmark: Benchmark, results: list[MethodResult]
) -> None:
    """Write the report with every query's average precision and ranking (places in `gallery`).

    Raises WaldoError where the file cannot be written.
    """
    queries = []
    for row, query in enumerate(benchmark.queries):
        by_method = {
            result.method.name: {
                "average_precision": result.average_precisions[row],
                "ranking": np.argsort(-result.scores[row], kind="stable").tolist(),
            }
            for result in results
        }
        relevant = np.flatnonzero(query.relevant).tolist()
        queries.append(
            {"photo": str(query.query.photo), "relevant": relevant, "methods": by_method}
        )
    run = {**report, "gallery": [str(photo) for photo in benchmark.gallery], "queries": queries}
    try:
        path.write_text(json.dumps(run))
    except OSError as error:
        raise WaldoError(f"--out {path}: cannot be written ({error.strerror})") from None
