"""Figures of papers: beside which reports and in which columns they stand."""

from typing import Any

import pytest

from search.evaluation.method_table import heading, method_cells
from search.evaluation.paper import FOUNDYOU, PDM, published_json, published_rows

MASKS = {
    "mIoU": 0.5,
    "mIoU_interval": [0.4, 0.6],
    "bIoU": 0.4,
    "cumulative_IoU": 0.3,
    "mIoU_per_instance": 0.5,
    "mIoU_per_group": 0.45,
    "cumulative_bIoU": 0.2,
}


@pytest.mark.parametrize(
    ("convention", "source", "figure"),
    [("150 videos", PDM, "73.0"), ("216 folders", FOUNDYOU, "92.1")],
)
def test_permir_has_the_figures_of_its_convention(
    convention: str, source: str, figure: str
) -> None:
    rows = list(published_rows(published_json("permir", convention)))
    assert {row[0] for row in rows} == {source}
    assert figure in [cells["mAP"] for _, _, cells in rows]


def test_other_galleries_have_none() -> None:
    assert published_json("permir", "20 videos") == published_json("scenes") == {}


def test_each_way_of_counting_is_a_column_of_its_own() -> None:
    report: dict[str, Any] = {"protocol": "permis", "methods": {"segment": MASKS}}
    heads = [heading("permis", column) for column in method_cells(report)["segment"]]
    assert len(heads) == len(set(heads))
    assert heads[0] == "mIoU per instance"
    report |= published_json("permis")
    beside = {name: (source, cells) for source, name, cells in published_rows(report)}
    assert beside["paper: PDM"] == (PDM, {"cumulative IoU": "42.3"})
    assert beside["paper: FoundYou"] == (FOUNDYOU, {"mIoU per group": "62.6"})
    # PerSeg's own way is per group, so the same key means another column there.
    assert heading("perseg", "mIoU") == "mIoU per group"
    own = method_cells({"protocol": "perseg", "methods": {"segment": MASKS}})["segment"]
    assert [heading("perseg", column) for column in own].count("mIoU per group") == 1


def test_reports_of_earlier_versions_keep_their_figures() -> None:
    earlier = {"paper": {"source": PDM, "methods": {"PDM": {"mAP": 73.0}}}}
    assert list(published_rows(earlier)) == [(PDM, "paper: PDM", {"mAP": "73.0"})]
