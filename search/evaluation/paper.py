"""The figures of PDM's paper for the same benchmarks, which tables print beside the measured."""

from typing import Any

SOURCE = "Samuel et al., NeurIPS 2024"

# The mark of the paper's rows in a table.
_MARK = "paper: "

# By protocol and method: percent by the column of `method_table.method_cells`.
_PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "roxford5k": {
        "DINOv2": {"medium mAP": 75.1, "hard mAP": 54.0},
        "OpenCLIP": {"medium mAP": 50.7, "hard mAP": 19.7},
        "PDM": {"medium mAP": 77.2, "hard mAP": 58.3},
        "OpenCLIP + PDM (top 400)": {"medium mAP": 70.1, "hard mAP": 57.7},
        "DINOv2 + PDM (top 400)": {"medium mAP": 80.4, "hard mAP": 62.1},
        "SuperGlobal": {"medium mAP": 90.9, "hard mAP": 80.2},
        "SuperGlobal + PDM": {"medium mAP": 91.2, "hard mAP": 80.3},
    },
    "rparis6k": {
        "DINOv2": {"medium mAP": 92.7, "hard mAP": 83.5},
        "OpenCLIP": {"medium mAP": 79.2, "hard mAP": 60.2},
        "PDM": {"medium mAP": 93.4, "hard mAP": 84.7},
        "OpenCLIP + PDM (top 400)": {"medium mAP": 90.1, "hard mAP": 82.0},
        "DINOv2 + PDM (top 400)": {"medium mAP": 93.6, "hard mAP": 85.1},
        "SuperGlobal": {"medium mAP": 93.9, "hard mAP": 86.7},
        "SuperGlobal + PDM": {"medium mAP": 94.0, "hard mAP": 86.8},
    },
    "permir": {
        "DINOv2": {"mAP": 29.7},
        "OpenCLIP": {"mAP": 26.7},
        "PDM": {"mAP": 73.0},
        "PDM, query's true mask": {"mAP": 76.2},
        "appearance map alone": {"mAP": 42.3},
        "semantic map alone": {"mAP": 32.9},
        "OpenCLIP + PDM (top 400)": {"mAP": 69.9},
        "DINOv2 + PDM (top 400)": {"mAP": 70.8},
        "SuperGlobal": {"mAP": 33.5},
        "SuperGlobal + PDM": {"mAP": 69.1},
    },
    "perseg": {
        "PDM": {"mIoU": 95.4, "bIoU": 79.8},
        "PDM + SAM": {"mIoU": 97.4, "bIoU": 81.9},
    },
    # The code of the paper calls the cumulative IoU mIoU.
    "permis": {
        "PDM": {"cumulative IoU": 42.3, "bIoU": 86.8},
        "PDM + SAM": {"cumulative IoU": 49.7, "bIoU": 89.3},
    },
    "davis2017": {"PDM": {"J&F": 75.8}, "PDM + SAM": {"J&F": 78.0}},
}


def published(protocol: str) -> dict[str, Any] | None:
    """The paper's figures for a benchmark, JSON-ready; None for a benchmark that it does not have.

    "methods" holds, for each of the paper's methods, percent by the column of our tables with the
    same metric.
    """
    methods = _PUBLISHED.get(protocol)
    return None if methods is None else {"source": SOURCE, "methods": methods}


def paper_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The paper's rows of a report's table: text by column, each name with a mark."""
    methods = (report.get("paper") or {}).get("methods", {})
    return {
        _MARK + name: {column: f"{figure:.1f}" for column, figure in figures.items()}
        for name, figures in methods.items()
    }
