"""IoU and boundary IoU of masks, on miniatures of PerSeg and PerMIS."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from search.evaluation.benchmarks.labelled_objects import read_mask
from search.evaluation.benchmarks.perseg import read_perseg
from search.evaluation.labels.mask_methods import (
    MASK_METHODS,
    MaskInput,
    MaskMethod,
    select_mask_methods,
)
from search.evaluation.labels.object_masks import evaluate_masks
from search.evaluation.method_table import method_cells
from search.evaluation.metrics.masks import boundaries, boundary_iou
from search.evaluation.run_store import RunResults
from tests.helpers.benchmarks.benchmark_folders import save_streets
from tests.helpers.benchmarks.video_folders import save_perseg
from tests.helpers.command_line import CommandLine
from tests.helpers.models.mask_models import save_sam


@pytest.fixture
def perseg(tmp_path: Path) -> Path:
    return save_perseg(tmp_path / "PerSeg")


@pytest.fixture
def stored(tmp_path: Path) -> RunResults:
    """Of a run that begins."""
    (tmp_path / "run").mkdir()
    return RunResults(tmp_path / "run")


def shifted(by: int) -> MaskMethod:
    """Knows the true masks of the squares' photos, but is off to the right by some pixels."""

    def rule(seen: MaskInput) -> np.ndarray:
        frame = seen.maps.frame
        mask = np.zeros((frame.height, frame.width), dtype=bool)
        # What is not smooth: by its colour a square is far from the background's half brightness.
        mask[np.asarray(seen.picture, dtype=int).max(axis=2) > 140] = True
        return np.roll(mask, by, axis=1)

    return MaskMethod(f"shifted by {by}", rule)


def watch(
    method: MaskMethod, masks: dict[str, list[np.ndarray]]
) -> Callable[[MaskInput], np.ndarray]:
    """The method's rule, keeping what it finds."""

    def rule(seen: MaskInput) -> np.ndarray:
        masks.setdefault(method.name, []).append(method.rule(seen))
        return masks[method.name][-1]

    return rule


def test_numbers_equal_those_of_a_plain_loop(
    small_tiny: FeatureExtractor, perseg: Path, tmp_path: Path
) -> None:
    benchmark = read_perseg(perseg)
    objects = benchmark.objects
    assert [item.name for item in objects] == ["cup", "toy2"]
    for protocol in ("perseg", "permis"):
        masks: dict[str, list[np.ndarray]] = {}
        methods = [shifted(4), MASK_METHODS["appearance"]]
        watched = [replace(method, rule=watch(method, masks)) for method in methods]
        folder = tmp_path / f"{protocol}-run"
        folder.mkdir()
        stored = RunResults(folder)
        report = evaluate_masks(protocol, benchmark, small_tiny, watched, stored)
        assert (report["n_queries"], report["n_gallery"]) == (2, 4)
        for method in methods:
            together, single, edges, total = [], [], [], [0, 0]
            edges_together, edges_total = [], [0, 0]
            for place, item in enumerate(objects):
                own, own_edges = [0, 0], [0, 0]
                for number, target in enumerate(item.targets):
                    found = masks[method.name][2 * place + number]
                    truth = read_mask(target.mask)
                    both = [int((found & truth).sum()), int((found | truth).sum())]
                    own = [own[0] + both[0], own[1] + both[1]]
                    single.append(both[0] / both[1])
                    edges.append(boundary_iou(found, truth))
                    a, b = boundaries(found, truth)
                    own_edges[0] += int((a & b).sum())
                    own_edges[1] += int((a | b).sum())
                together.append(own[0] / own[1])
                edges_together.append(own_edges[0] / own_edges[1])
                edges_total = [edges_total[0] + own_edges[0], edges_total[1] + own_edges[1]]
                total = [total[0] + own[0], total[1] + own[1]]
            values = report["methods"][method.name]
            wanted = together if protocol == "perseg" else single
            assert values["mIoU"] == pytest.approx(np.mean(wanted))
            assert values["cumulative_IoU"] == pytest.approx(total[0] / total[1])
            conventions = {
                "mIoU_per_instance": np.mean(single),
                "mIoU_per_group": np.mean(together),
                "bIoU_per_instance": np.mean(edges),
                "bIoU_per_group": np.mean(edges_together),
                "cumulative_bIoU": edges_total[0] / edges_total[1],
            }
            for name, number in conventions.items():
                assert values[name] == pytest.approx(number), name
            own_convention = "per_group" if protocol == "perseg" else "per_instance"
            assert values["mIoU"] == pytest.approx(values[f"mIoU_{own_convention}"])
            assert values["bIoU"] == pytest.approx(values[f"bIoU_{own_convention}"])
            if protocol == "permis":
                assert values["bIoU"] == pytest.approx(np.mean(edges))
            low, high = values["mIoU_interval"]
            assert low <= values["mIoU"] <= high


def test_masks_find_the_squares(
    small_tiny: FeatureExtractor, perseg: Path, stored: RunResults
) -> None:
    benchmark = read_perseg(perseg)
    methods = select_mask_methods([], benchmark.objects, None)
    assert [m.name for m in methods] == ["segment", "segment-unsharpened", "pdm", "appearance"]
    report = evaluate_masks("perseg", benchmark, small_tiny, methods, stored)
    found = {name: values["mIoU"] for name, values in report["methods"].items()}
    assert found["segment"] > 0.5
    assert found["segment"] > found["segment-unsharpened"]
    assert list(method_cells(report)["segment"]) == [
        *("mIoU", "95 % interval", "bIoU", "cumulative IoU", "mIoU per instance"),
        *("bIoU per instance", "cumulative bIoU"),
    ]


def test_methods_that_cannot_run_are_refused(perseg: Path) -> None:
    objects = read_perseg(perseg).objects
    with pytest.raises(WaldoError, match=r"^method segmnt: no such method; one of segment, "):
        select_mask_methods(["segmnt"], objects, None)
    with pytest.raises(WaldoError, match=r"^method sam-by-class: needs a SAM"):
        select_mask_methods(["sam-by-class"], objects, None)
    with pytest.raises(WaldoError, match=r"^method semantic: needs the class name of every object"):
        select_mask_methods(["semantic"], objects, None)
    named = [replace(item, class_name="cup") for item in objects]
    assert len(select_mask_methods([], named, None)) == len(MASK_METHODS)


def test_perseg_at_the_command_line(waldo: CommandLine, perseg: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    result = waldo("evaluate", "perseg", "--root", perseg, "--out", out, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert (report["protocol"], report["n_queries"], report["n_gallery"]) == ("perseg", 2, 4)
    assert json.loads(out.read_text()) == report
    beside = waldo("report", out, "--html", tmp_path / "runs.html").out
    assert "perseg: 2 objects, 4 photos" in beside
    # The papers' figures are of 40 objects, not of 2.
    not_shown = "Published figures are not shown: they are of 40 queries or objects"
    assert not_shown in beside
    assert "paper: PDM" not in beside
    assert "perseg: 2 objects" in (tmp_path / "runs.html").read_text()
    assert report["paper"]["methods"]["PDM"] == {"mIoU": 95.4, "bIoU": 79.8}
    table = waldo("evaluate", "perseg", "--root", perseg, "--method", "appearance").out
    assert "perseg, tiny: 2 objects, 4 photos" in table
    assert not_shown in table
    refusal = waldo.refusal("evaluate", "perseg", "--root", tmp_path)
    assert "holds no folder Images" in refusal
    refusal = waldo.refusal("evaluate", "folders", "--root", perseg, "--sam", tmp_path)
    assert "for perseg, permis, pods_masks, not for folders" in refusal


def test_permis_at_the_command_line(waldo: CommandLine, tmp_path: Path) -> None:
    root = tmp_path / "permir"
    burst = save_streets(tmp_path / "BURST")
    assert waldo("prepare", "permir", "--burst", burst, "--out", root).code == 0
    sam = save_sam("sam", tmp_path / "sam")
    methods = ["--method", "segment", "--method", "semantic", "--method", "sam"]
    result = waldo("evaluate", "permis", "--root", root, *methods, "--sam", sam, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert list(report["methods"]) == ["segment", "semantic", "sam"]
    assert (report["n_queries"], report["n_gallery"]) == (2, 4)
    for values in report["methods"].values():
        assert 0 <= values["mIoU"] <= 1
