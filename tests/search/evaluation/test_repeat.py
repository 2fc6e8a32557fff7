"""`waldo evaluate --check`: a sample of a run is repeated, and compared with its file."""

import json
from pathlib import Path

import pytest

from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo


@pytest.fixture
def run(waldo: CommandLine, tmp_path: Path) -> Path:
    """A run of two methods over twelve queries, so that a sample leaves some out."""
    for number in range(12):
        folder = tmp_path / "root" / f"{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        save_photo(folder / f"{number}.png", 60, 40, seed=number)
    path = tmp_path / "run.json"
    methods = [word for name in ("rgb-patches", "rgb-histogram") for word in ("--method", name)]
    work = ("--work", tmp_path / "work", "--device", "cpu", "--out", path)
    result = waldo("evaluate", "folders", "--root", tmp_path / "root", *work, *methods)
    assert result.code == 0, result.err
    return path


def test_a_run_agrees_with_itself(waldo: CommandLine, run: Path, tmp_path: Path) -> None:
    content = json.loads(run.read_text())
    assert content["request"]["methods"] == ["rgb-patches", "rgb-histogram"]
    assert content["machine"]["threads"] > 0
    result = waldo("evaluate", "--check", run, "--work", tmp_path / "work")
    assert (result.code, result.err.count("Traceback")) == (0, 0), result.err
    # Of twelve queries, the sample has those after the first eight.
    assert result.out == f"4 queries by 2 methods agree with {run}\n"
    assert not [*(tmp_path / "work").glob("*-run-*")]


def test_what_differs_is_named(waldo: CommandLine, run: Path, tmp_path: Path) -> None:
    content = json.loads(run.read_text())
    for query in content["queries"]:
        query["methods"]["rgb-patches"]["average_precision"] += 0.25
    content["versions"]["numpy"] = "0.1"
    run.write_text(json.dumps(content))
    result = waldo("evaluate", "--check", run, "--work", tmp_path / "work")
    assert result.code == 1
    lines = result.out.splitlines()
    assert all(", rgb-patches: average precision " in line for line in lines[:-2])
    assert len(lines) == 4 + 2
    assert lines[-2].startswith("changed since: numpy: 0.1 then, ")
    assert lines[-1].endswith(f"differ from {run}")
    result = waldo("evaluate", "--check", run, "--work", tmp_path / "work", "--json")
    found = json.loads(result.out)
    assert (result.code, found["agrees"], len(found["departures"])) == (1, False, 4)


def test_what_cannot_be_checked(waldo: CommandLine, run: Path, tmp_path: Path) -> None:
    assert "leave both" in waldo.refusal("evaluate", "folders", "--check", run)
    assert "name a protocol" in waldo.refusal("evaluate", "--root", tmp_path)
    content = json.loads(run.read_text())
    work = ("--work", tmp_path / "work")
    save_photo(tmp_path / "root" / "0" / "0.png", 200, 100, seed=77)
    line = waldo.refusal("evaluate", "--check", run, *work)
    assert "cannot be checked: the photos of folders" in line
    del content["request"]
    run.write_text(json.dumps(content))
    assert "does not say how it was made" in waldo.refusal("evaluate", "--check", run, *work)
    assert "not a run file" in waldo.refusal("evaluate", "--check", tmp_path / "root/0/0.png")
