"""Sweeps: a method with every combination of some settings."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.models import find_extractor
from search.evaluation.methods.sweep import Axis, find_sweeps, sweep_json, sweep_table
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two objects of two photos each."""
    folder = tmp_path / "root"
    for number in range(4):
        (folder / f"object{number // 2}").mkdir(parents=True, exist_ok=True)
        save_photo(folder / f"object{number // 2}" / f"{number}.png", 40, 30, seed=number)
    return folder


def test_every_combination_has_a_name(tiny: FeatureExtractor) -> None:
    [late, words] = find_sweeps(["late", "words"], ["timestep=0,200", "prompt=a,b"], tiny)
    assert late.names == {
        ("0", "a"): "late@timestep=0@prompt=a",
        ("0", "b"): "late@timestep=0@prompt=b",
        ("200", "a"): "late@timestep=200@prompt=a",
        ("200", "b"): "late@timestep=200@prompt=b",
    }
    assert set(words.names) == set(late.names)
    [blocks] = find_sweeps(["late@timestep=5"], ["block"], tiny)
    assert blocks.axes == (Axis("block", tiny.blocks),)
    assert next(iter(blocks.names.values())) == f"late@timestep=5@block={tiny.blocks[0]}"
    [spaced] = find_sweeps(["late"], ["prompt=a b, c"], tiny)
    assert spaced.axes == (Axis("prompt", ("a b", "c")),)
    [steps] = find_sweeps(["late"], ["timestep"], tiny)
    assert len(steps.names) == 10


@pytest.mark.parametrize(
    ("methods", "asked", "says"),
    [
        (["late"], ["timestep=0", "timestep=1"], "one or two different settings"),
        (["late"], ["timestep", "block", "steps=1"], "one or two different settings"),
        (["late"], ["image_size"], "name its values, as in image_size=VALUE,VALUE"),
        (["late"], ["steps=,"], "names no value"),
        ([], ["block"], "name the method that it is for"),
    ],
)
def test_what_cannot_be_swept(
    methods: list[str], asked: list[str], says: str, tiny: FeatureExtractor
) -> None:
    with pytest.raises(WaldoError, match=says):
        find_sweeps(methods, asked, tiny)


def test_the_grid_is_darkest_where_the_value_is_highest(tiny: FeatureExtractor) -> None:
    [sweep] = find_sweeps(["late"], ["timestep=0,200", "prompt=a,b,c"], tiny)
    values = [0.1, 0.9, 0.3, 0.5, 0.2, 0.4]
    methods = {n: {"mAP": v} for n, v in zip(sweep.names.values(), values, strict=True)}
    found = sweep_json(sweep, {"methods": methods})
    assert found["mAP"] == [[0.1, 0.9, 0.3], [0.5, 0.2, 0.4]]
    assert found["best"] == "late@timestep=0@prompt=b"
    console = Console(width=100, record=True, force_terminal=True, color_system="truecolor")
    console.print(sweep_table(found))
    drawn = console.export_text(styles=True)
    for value, colour in (("90.0", "48;2;8;81;156m"), ("10.0", "48;2;239;243;255m")):
        assert any(f"{colour} {value}" in line for line in drawn.splitlines())


def test_the_command(waldo: CommandLine, root: Path, tmp_path: Path) -> None:
    evaluate = ("evaluate", "folders", "--root", root, "--work", tmp_path / "work")
    sweep = ("--method", "late", "--sweep", "timestep=0,200", "--sweep", "image_size=64,96")
    found = waldo(*evaluate, *sweep, "--json")
    assert found.code == 0, found.err
    report = json.loads(found.out)
    [swept] = report["sweeps"]
    assert [axis["key"] for axis in swept["axes"]] == ["timestep", "image_size"]
    for row, step in zip(swept["mAP"], (0, 200), strict=True):
        for value, size in zip(row, (64, 96), strict=True):
            name = f"late@timestep={step}@image_size={size}"
            assert value == report["methods"][name]["mAP"]
    alone = json.loads(
        waldo(*evaluate, "--method", "late@timestep=200@image_size=64", "--json").out
    )
    assert alone["methods"]["late@timestep=200@image_size=64"]["mAP"] == swept["mAP"][1][0]
    table = waldo(*evaluate, *sweep)
    assert "late: mAP of each timestep by image_size" in table.out
    assert swept["best"] in table.out
    refused = waldo.refusal(*evaluate, "--method", "late", "--sweep", "block=mid")
    assert "has no block mid" in refused


def test_a_model_without_blocks_has_none_to_sweep(vision_folder: Callable[[str], Path]) -> None:
    extractor = find_extractor(str(vision_folder("dinov2")), "cpu", 1)
    with pytest.raises(WaldoError, match="has no block to choose"):
        find_sweeps(["late"], ["block"], extractor)
