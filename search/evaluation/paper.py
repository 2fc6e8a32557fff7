"""Figures that others published for the same benchmarks; tables print them beside the measured.

A figure stands only beside figures of the same convention. What is searched decides the convention
of a report; how it is counted decides the column.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PDM = "Samuel et al., NeurIPS 2024"
FOUNDYOU = "FoundYou, ECCV 2026"

# The mark of published rows in a table.
_MARK = "paper: "


@dataclass(frozen=True)
class Published:
    """The figures of one source for one benchmark.

    protocol, convention: those of the reports beside which they may stand; `Benchmark.convention`
    says what a convention is. methods: percent, by method and by column of
    `method_table.method_cells`.
    """

    protocol: str
    convention: str
    source: str
    methods: dict[str, dict[str, float]]


PUBLISHED: tuple[Published, ...] = (
    Published(
        "roxford5k",
        "",
        PDM,
        {
            "DINOv2": {"medium mAP": 75.1, "hard mAP": 54.0},
            "OpenCLIP": {"medium mAP": 50.7, "hard mAP": 19.7},
            "PDM": {"medium mAP": 77.2, "hard mAP": 58.3},
            "OpenCLIP + PDM (top 400)": {"medium mAP": 70.1, "hard mAP": 57.7},
            "DINOv2 + PDM (top 400)": {"medium mAP": 80.4, "hard mAP": 62.1},
            "SuperGlobal": {"medium mAP": 90.9, "hard mAP": 80.2},
            "SuperGlobal + PDM": {"medium mAP": 91.2, "hard mAP": 80.3},
        },
    ),
    Published(
        "rparis6k",
        "",
        PDM,
        {
            "DINOv2": {"medium mAP": 92.7, "hard mAP": 83.5},
            "OpenCLIP": {"medium mAP": 79.2, "hard mAP": 60.2},
            "PDM": {"medium mAP": 93.4, "hard mAP": 84.7},
            "OpenCLIP + PDM (top 400)": {"medium mAP": 90.1, "hard mAP": 82.0},
            "DINOv2 + PDM (top 400)": {"medium mAP": 93.6, "hard mAP": 85.1},
            "SuperGlobal": {"medium mAP": 93.9, "hard mAP": 86.7},
            "SuperGlobal + PDM": {"medium mAP": 94.0, "hard mAP": 86.8},
        },
    ),
    Published(
        "permir",
        "150 videos",
        PDM,
        {
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
    ),
    Published(
        "perseg",
        "",
        PDM,
        {
            "PDM": {"mIoU": 95.4, "bIoU": 79.8},
            "PDM + SAM": {"mIoU": 97.4, "bIoU": 81.9},
        },
    ),
    Published("permir", "216 folders", FOUNDYOU, {"FoundYou": {"mAP": 92.1}}),
    Published("perseg", "", FOUNDYOU, {"FoundYou": {"mIoU": 96.4, "bIoU": 85.6}}),
    # The code published with PDM calls the cumulative IoU mIoU. How the paper's bIoU (86.8, with
    # SAM 89.3) is counted is not known, so it stands beside nothing.
    Published(
        "permis",
        "",
        PDM,
        {"PDM": {"cumulative IoU": 42.3}, "PDM + SAM": {"cumulative IoU": 49.7}},
    ),
    Published("permis", "", FOUNDYOU, {"FoundYou": {"mIoU per group": 62.6}}),
    Published("davis2017", "", PDM, {"PDM": {"J&F": 75.8}, "PDM + SAM": {"J&F": 78.0}}),
    Published(
        "ilias",
        "100 M distractors",
        FOUNDYOU,
        {
            "FoundYou": {"mAP@1k": 32.5},
            "FoundYou, four references": {"mAP@1k": 34.2},
            "PDM, about": {"mAP@1k": 14.7},
        },
    ),
)


def published_json(protocol: str, convention: str = "") -> dict[str, Any]:
    """What a report says of published figures, JSON-ready; empty where there are none.

    "published" lists the figures of each source: its "source", and "methods", which holds percent
    by the column of our tables with the same metric. "paper" is PDM's part of it.
    """
    sources = [
        {"source": found.source, "methods": found.methods}
        for found in PUBLISHED
        if (found.protocol, found.convention) == (protocol, convention)
    ]
    pdm = [found for found in sources if found["source"] == PDM]
    return {
        **({"paper": pdm[0]} if pdm else {}),
        **({"published": sources} if sources else {}),
    }


def has_published(report: dict[str, Any]) -> bool:
    """Whether a report has published figures."""
    return bool(report.get("published") or report.get("paper"))


def published_rows(report: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The published rows of a report's table: the source, the method with a mark, and text by
    column.
    """
    # Reports of earlier versions have PDM's figures alone.
    earlier = [report["paper"]] if report.get("paper") else []
    for found in report.get("published", earlier):
        for name, figures in found["methods"].items():
            cells = {column: f"{figure:.1f}" for column, figure in figures.items()}
            yield found["source"], _MARK + name, cells
