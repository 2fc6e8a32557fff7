"""Figures that others published for the same benchmarks; tables print them beside the measured.

A figure stands only beside figures of the same convention: of the whole benchmark, with the same
gallery, counted in the same way. What is searched is the convention of a report; how it is counted
decides the column.
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

    protocol, convention, n_queries, n_gallery: those of the reports beside which they may stand;
    `Benchmark.convention` says what a convention is. n_queries counts objects where masks or videos
    are measured; n_gallery is None where any will do. methods: percent, by method and by column of
    `method_table.method_cells`.
    """

    protocol: str
    convention: str
    source: str
    n_queries: int
    n_gallery: int | None
    methods: dict[str, dict[str, float]]

    def stands_beside(self, report: dict[str, Any]) -> bool:
        """Whether a report is of the same convention and the same size, without distractors behind
        the gallery that the benchmark does not have.
        """
        if report.get("n_distractors"):
            return False
        # Reports of earlier versions have no convention; their size tells.
        convention = report.get("convention", self.convention)
        return (
            (self.protocol, self.convention, self.n_queries)
            == (report["protocol"], convention, report["n_queries"])
        ) and self.n_gallery in (None, report["n_gallery"])


PUBLISHED: tuple[Published, ...] = (
    Published(
        "roxford5k",
        "",
        PDM,
        70,
        4993,
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
        70,
        6322,
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
        150,
        300,
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
        40,
        None,
        {
            "PDM": {"mIoU": 95.4, "bIoU": 79.8},
            "PDM + SAM": {"mIoU": 97.4, "bIoU": 81.9},
        },
    ),
    Published("permir", "216 folders", FOUNDYOU, 216, 432, {"FoundYou": {"mAP": 92.1}}),
    Published("perseg", "", FOUNDYOU, 40, None, {"FoundYou": {"mIoU": 96.4, "bIoU": 85.6}}),
    # The code published with PDM calls the cumulative IoU mIoU. How the paper's bIoU (86.8, with
    # SAM 89.3) is counted is not known, so it stands beside nothing.
    Published(
        "permis",
        "150 videos",
        PDM,
        150,
        None,
        {"PDM": {"cumulative IoU": 42.3}, "PDM + SAM": {"cumulative IoU": 49.7}},
    ),
    Published("permis", "216 folders", FOUNDYOU, 216, None, {"FoundYou": {"mIoU per group": 62.6}}),
    Published("davis2017", "", PDM, 61, None, {"PDM": {"J&F": 75.8}, "PDM + SAM": {"J&F": 78.0}}),
    Published(
        "ilias",
        "100 M distractors",
        FOUNDYOU,
        1232,
        None,
        {
            "FoundYou": {"mAP@1k": 32.5},
            "FoundYou, four references": {"mAP@1k": 34.2},
            "PDM, about": {"mAP@1k": 14.7},
        },
    ),
)


def published_json(report: dict[str, Any]) -> dict[str, Any]:
    """What a report says of published figures, JSON-ready; empty where there are none.

    report: with its protocol, convention and size. "published" lists the figures that may stand
    beside it: "source", and "methods", which holds percent by the column of our tables with the
    same metric. "paper" has PDM's of its protocol, of whatever convention and size.
    """
    pdm = [p for p in PUBLISHED if (p.protocol, p.source) == (report["protocol"], PDM)]
    beside = [_as_json(found) for found in PUBLISHED if found.stands_beside(report)]
    return {
        **({"paper": _as_json(pdm[0])} if pdm else {}),
        **({"published": beside} if beside else {}),
    }


def published_rows(report: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The published rows of a report's table: the source, the method with a mark, and text by
    column.
    """
    for found in PUBLISHED:
        if found.stands_beside(report):
            for name, figures in found.methods.items():
                cells = {column: f"{figure:.1f}" for column, figure in figures.items()}
                yield found.source, _MARK + name, cells


def published_note(report: dict[str, Any]) -> str:
    """Where the published rows of a report come from, or why there are none, in a sentence; "" for
    a benchmark without published figures.
    """
    known = [found for found in PUBLISHED if found.protocol == report["protocol"]]
    if beside := [found for found in known if found.stands_beside(report)]:
        return f"paper: {'; '.join(found.source for found in beside)}"
    if not known:
        return ""
    wholes = dict.fromkeys(
        ", ".join(
            [f"{found.n_queries:,} queries or objects"]
            + ([f"{found.n_gallery:,} photos"] if found.n_gallery else [])
            + ([found.convention] if found.convention else [])
        )
        for found in known
    )
    return f"Published figures are not shown: they are of {'; or of '.join(wholes)}"


def _as_json(found: Published) -> dict[str, Any]:
    return {"source": found.source, "methods": found.methods}
