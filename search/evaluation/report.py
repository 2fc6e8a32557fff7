"""What an evaluation found, for people and programs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.errors import WaldoError
from search.evaluation.benchmark import Benchmark
from search.evaluation.run import MethodResult, summary

if TYPE_CHECKING:
    from rich.table import Table


def evaluation_json(
    benchmark: Benchmark, fingerprint: dict[str, str | int], results: list[MethodResult]
) -> dict[str, Any]:
    """The comparison as JSON-ready values; metrics are fractions, 0..1."""
    return {
        "protocol": benchmark.protocol,
        "model": fingerprint,
        "methods": {result.method.name: summary(benchmark, result) for result in results},
        "n_queries": len(benchmark.queries),
        "n_gallery": len(benchmark.gallery),
    }


def evaluation_table(report: dict[str, Any]) -> "Table":
    """The comparison as a table, metrics in percent."""
    from rich.table import Table

    title = (
        f"{report['protocol']}, {report['model']['model']}: {report['n_queries']} queries, "
        f"{report['n_gallery']} photos"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("method")
    for column in ("mAP", "95 % interval", "R@1", "R@5", "R@10", "mAP confusable"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, values in report["methods"].items():
        low, high = values["mAP_interval"]
        confusable = values["mAP_confusable"]
        table.add_row(
            name,
            f"{100 * values['mAP']:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            *(f"{100 * values[f'Recall@{k}']:.1f}" for k in (1, 5, 10)),
            "" if confusable is None else f"{100 * confusable:.1f}",
        )
    return table


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
        queries.append({"photo": str(query.photo), "relevant": relevant, "methods": by_method})
    run = {**report, "gallery": [str(photo) for photo in benchmark.gallery], "queries": queries}
    try:
        path.write_text(json.dumps(run))
    except OSError as error:
        raise WaldoError(f"--out {path}: cannot be written ({error.strerror})") from None
