"""J and F of labels carried through videos, on a miniature of DAVIS-2017."""

import json
from pathlib import Path

import numpy as np
import pytest

from features.errors import PhotoError, WaldoError
from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.labelled_objects import read_annotation
from search.evaluation.labels.video_labels import (
    VIDEO_METHODS,
    evaluate_videos,
    measure_video,
    select_video_methods,
)
from search.evaluation.method_table import method_cells
from search.evaluation.methods.baselines import PatchExtractor
from search.evaluation.metrics.masks import boundary_f_measure, j_and_f
from search.evaluation.run_store import RunResults
from tests.helpers.benchmarks.video_folders import save_davis
from tests.helpers.command_line import CommandLine

# A square crosses the picture; two pass each other, one of them out of sight for a while.
SEQUENCES: dict[str, list[dict[int, tuple[int, int] | None]]] = {
    "across": [{1: (4 + 6 * step, 20)} for step in range(7)],
    "away": [
        {2: (8 + 3 * step, 4), 5: None if 2 <= step <= 3 else (70 - 4 * step, 40)}
        for step in range(7)
    ],
}


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return save_davis(tmp_path / "DAVIS", SEQUENCES)


@pytest.fixture
def stored(tmp_path: Path) -> RunResults:
    """Of a run that begins."""
    (tmp_path / "run").mkdir()
    return RunResults(tmp_path / "run")


def test_the_first_mask_unchanged_scores_what_is_counted_by_hand(davis: Path) -> None:
    across, away = read_davis(davis)
    [result] = measure_video(across, VIDEO_METHODS["first-mask"], PatchExtractor(8))
    # Squares of 20 pixels, 6 more apart each frame; frames 1 to 5 count.
    wanted = [max(0, 20 - 6 * step) / (20 + 6 * step) for step in range(1, 6)]
    assert result.j.mean == pytest.approx(np.mean(wanted))
    assert result.j.recall == pytest.approx(1 / 5)
    first = read_annotation(across.annotations[0]) == 1
    f = [boundary_f_measure(first, read_annotation(path) == 1) for path in across.annotations[1:-1]]
    assert result.f.mean == pytest.approx(np.mean(f))
    assert j_and_f(result.j, result.f) == pytest.approx((np.mean(wanted) + np.mean(f)) / 2)
    results = measure_video(away, VIDEO_METHODS["first-mask"], PatchExtractor(8))
    assert [(item.sequence, item.object_id) for item in results] == [("away", 2), ("away", 5)]
    # Where it is out of sight a mask is all wrong.
    hidden = [16 / 24, 0, 0, 4 / 36, 0]
    assert results[1].j.mean == pytest.approx(np.mean(hidden))


def test_carried_labels_beat_the_first_mask(davis: Path, stored: RunResults) -> None:
    report = evaluate_videos(
        "davis2017", read_davis(davis), PatchExtractor(24), VIDEO_METHODS, stored
    )
    values = {name: found["J&F"] for name, found in report["methods"].items()}
    assert list(values) == ["propagate", "propagate-unsharpened", "rgb-patches", "first-mask"]
    assert values["propagate"] > 0.7
    assert values["propagate"] > values["propagate-unsharpened"]
    assert values["propagate"] > values["first-mask"] + 0.3
    # The extractor is that of the baseline.
    assert values["propagate"] == values["rgb-patches"]


def test_the_report(davis: Path, stored: RunResults) -> None:
    said: list[tuple[str, int, int]] = []
    methods = select_video_methods(["first-mask"])
    report = evaluate_videos(
        *("davis2017", read_davis(davis), PatchExtractor(8), methods, stored),
        on_step=lambda *step: said.append(step),
    )
    assert said == [
        ("measuring across", 0, 2),
        ("measuring across", 1, 2),
        ("measuring away", 1, 2),
        ("measuring away", 2, 2),
    ]
    assert (report["protocol"], report["n_queries"], report["n_gallery"]) == ("davis2017", 3, 14)
    assert report["model"]["model"] == "rgb-patches"
    found, each = report["methods"]["first-mask"], report["objects"]["first-mask"]
    both = [(item["j"]["mean"] + item["f"]["mean"]) / 2 for item in each]
    assert found["J&F"] == pytest.approx(np.mean(both))
    assert found["J&F"] == pytest.approx((found["J"] + found["F"]) / 2)
    low, high = found["J&F_interval"]
    assert min(both) - 1e-9 <= low < found["J&F"] < high <= max(both) + 1e-9
    assert found["J_decay"] == pytest.approx(np.mean([item["j"]["decay"] for item in each]))
    cells = method_cells(report)["first-mask"]
    assert cells["J&F"] == f"{100 * found['J&F']:.1f}"
    assert list(cells) == [
        "J&F", "95 % interval", "J", "J recall", "J decay", "F", "F recall", "F decay",
    ]  # fmt: skip


def test_a_frame_that_cannot_be_read_ends_it(davis: Path) -> None:
    across, _ = read_davis(davis)
    whole = across.frames[2].read_bytes()
    across.frames[2].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PhotoError, match=r"00002\.jpg"):
        measure_video(across, VIDEO_METHODS["propagate"], PatchExtractor(8))


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(WaldoError, match=r"^method late: no such method; one of propagate, "):
        select_video_methods(["late"])


def test_the_command(waldo: CommandLine, tmp_path: Path) -> None:
    davis = save_davis(tmp_path / "DAVIS", {"across": SEQUENCES["across"][:3]})
    run = tmp_path / "run.json"
    methods = ("--method", "propagate", "--method", "first-mask")
    result = waldo("evaluate", "davis2017", "--root", davis, *methods, "--out", run)
    assert result.code == 0, result.err
    assert result.out.startswith("davis2017, tiny: 1 objects, 3 frames")
    report = json.loads(run.read_text())
    assert list(report["methods"]) == ["propagate", "first-mask"]
    assert report["model"]["model"] == "tiny"
    assert report["methods"]["propagate"]["J&F"] > report["methods"]["first-mask"]["J&F"]
    options = ("--method", "first-mask", "--json")
    printed = json.loads(waldo("evaluate", "davis2017", "--root", davis, *options).out)
    assert printed["methods"]["first-mask"] == report["methods"]["first-mask"]


def test_a_bad_folder_is_one_line(waldo: CommandLine, tmp_path: Path) -> None:
    assert "ImageSets/2017/val.txt" in waldo.refusal("evaluate", "davis2017", "--root", tmp_path)
