"""Figures of papers: beside which reports and in which columns they stand."""

from typing import Any

import pytest

from search.evaluation.method_table import heading, method_cells, table_notes
from search.evaluation.paper import (
    FOUNDYOU,
    PDM,
    PUBLISHED,
    published_json,
    published_note,
    published_rows,
)

MASKS = {
    "mIoU": 0.5,
    "mIoU_interval": [0.4, 0.6],
    "bIoU": 0.4,
    "cumulative_IoU": 0.3,
    "mIoU_per_instance": 0.5,
    "mIoU_per_group": 0.45,
    "cumulative_bIoU": 0.2,
}


def report(protocol: str, n_queries: int, n_gallery: int, **more: Any) -> dict[str, Any]:
    return {"protocol": protocol, "n_queries": n_queries, "n_gallery": n_gallery, **more}


@pytest.mark.parametrize(
    ("size", "convention", "source", "figure"),
    [((150, 300), "150 videos", PDM, "73.0"), ((216, 432), "216 folders", FOUNDYOU, "92.1")],
)
def test_permir_has_the_figures_of_its_convention(
    size: tuple[int, int], convention: str, source: str, figure: str
) -> None:
    asked = report("permir", *size, convention=convention)
    rows = list(published_rows(asked))
    assert {row[0] for row in rows} == {source}
    assert figure in [cells["mAP"] for _, _, cells in rows]
    assert [found["source"] for found in published_json(asked)["published"]] == [source]
    assert published_note(asked) == f"paper: {source}"
    # Reports of earlier versions have no convention; their size tells.
    assert list(published_rows(report("permir", *size))) == rows


def test_figures_of_other_sizes_and_galleries_are_not_shown() -> None:
    for other in (
        report("permir", 20, 40, convention="20 videos"),
        report("permir", 216, 432, convention="216 videos"),
        report("roxford5k", 70, 4993 + 1_001_001),  # with distractors
        report("roxford5k", 12, 4993),
        report("davis2017", 4, 200),
    ):
        assert list(published_rows(other)) == []
        assert "published" not in published_json(other)
        # What reports of this protocol always had is there nevertheless.
        assert published_json(other)["paper"]["source"] == PDM
        assert published_note(other).startswith("Published figures are not shown: they are of ")
    assert published_json(report("scenes", 80, 160)) == {}
    assert published_note(report("scenes", 80, 160)) == ""
    assert published_note(report("permir", 20, 40)).endswith(
        "150 queries or objects, 300 photos, 150 videos; "
        "or of 216 queries or objects, 432 photos, 216 folders"
    )


def test_each_way_of_counting_is_a_column_of_its_own() -> None:
    asked = report("permis", 216, 432, methods={"segment": MASKS})
    heads = [heading("permis", column) for column in method_cells(asked)["segment"]]
    assert len(heads) == len(set(heads))
    assert heads[0] == "mIoU per instance"
    assert list(published_rows(asked)) == [
        (FOUNDYOU, "paper: FoundYou", {"mIoU per group": "62.6"})
    ]
    assert next(published_rows(report("permis", 150, 300))) == (
        *(PDM, "paper: PDM"),
        {"cumulative IoU": "42.3"},
    )
    # PerSeg's own way is per group, so the same key means another column there.
    assert heading("perseg", "mIoU") == "mIoU per group"
    own = method_cells(report("perseg", 40, 200, methods={"segment": MASKS}))["segment"]
    assert [heading("perseg", column) for column in own].count("mIoU per group") == 1


def searched(**more: Any) -> dict[str, Any]:
    """The metrics of a method of searches, in a report."""
    always = ("mAP", "Recall@1", "Recall@5", "Recall@10", "Recall@50", "found_in_5_percent")
    none = {"mAP_same_class": None, "mAP_confusable": None, "levels": {}}
    return {**dict.fromkeys(always, 0.5), "mAP_interval": [0.4, 0.6], **none, **more}


def test_each_number_says_how_it_is_counted() -> None:
    levels = {"Public": {"mAP": 0.6}, "Private": {"mAP": 0.4}}
    further = {"mAP@100": 0.3, "mAP_localised": None}
    asked = report("gldv2", 4, 9, methods={"late": searched(levels=levels, **further)})
    columns = list(method_cells(asked)["late"])
    # Nobody may take a part's mAP for mAP@100; what the benchmark does not have has no column.
    assert columns[:2] == ["mAP", "95 % interval"]
    assert columns[-4:] == ["in 5 %", "mAP, Public", "mAP, Private", "mAP@100"]
    starts = [note.split(":")[0] for note in table_notes(asked)]
    assert starts == ["mAP", "95 % interval", "R@k", "in 5 %", "mAP@100"]
    masks = report("permis", 9, 18, methods={"pdm": MASKS}, objects={}, convention="9 videos")
    interval, counted, none = table_notes(masks)
    assert interval == "95 % interval: bootstrap over objects"
    assert all(f"{way}: " in counted for way in ("per instance", "per group", "cumulative", "bIoU"))
    assert none.endswith(
        "150 queries or objects, 150 videos; or of 216 queries or objects, 216 folders"
    )


def test_every_figure_is_a_percentage_of_a_named_source() -> None:
    for found in PUBLISHED:
        assert found.source in (PDM, FOUNDYOU)
        assert all(0 < f < 100 for figures in found.methods.values() for f in figures.values())
