"""What PDM's paper reports for the same benchmarks, to be printed beside what was measured here."""

from typing import Any

SOURCE = "Samuel et al., NeurIPS 2024"

# What a figure of the paper's is called by in a table.
MARK = "paper: "

# By protocol and method, in percent, by the column of `report.table_cells`.
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
    # what its code calls mIoU is the cumulative one
    "permis": {
        "PDM": {"cumulative IoU": 42.3, "bIoU": 86.8},
        "PDM + SAM": {"cumulative IoU": 49.7, "bIoU": 89.3},
    },
    "davis2017": {"PDM": {"J&F": 75.8}, "PDM + SAM": {"J&F": 78.0}},
}


def published(protocol: str) -> dict[str, Any] | None:
    """The paper's figures for a benchmark, JSON-ready; None where it has none.

    "source", and "methods": for each of the paper's methods, in percent, figures by the column of
    our tables that holds the same metric.
    """
    methods = _PUBLISHED.get(protocol)
    return None if methods is None else {"source": SOURCE, "methods": methods}


def paper_cells(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Rows of a report's table that are the paper's: text by column, each row's name marked."""
    methods = report.get("paper", {}).get("methods", {})
    return {
        MARK + name: {column: f"{figure:.1f}" for column, figure in figures.items()}
        for name, figures in methods.items()
    }
