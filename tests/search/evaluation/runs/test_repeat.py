"""`waldo evaluate --check`: a sample of a run is repeated, and compared with its file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        query["methods"]["rgb-patches"]["average_precision"] *= 0.75
    content["methods"]["rgb-patches"]["mAP"] *= 0.75
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
    line = waldo.refusal(
        "evaluate", "folders", "--check", run, "--method", "late", "--out", "o.json"
    )
    assert line.endswith("takes its settings from the run; leave out PROTOCOL, --method, --out")
    assert "leave out --model" in waldo.refusal("evaluate", "--check", run, "--model", "tiny")
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


def _set(*path: Any, to: Any) -> Callable[[Any], None]:
    """Sets one entry of a run file."""

    def edit(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = to

    return edit


PRECISION = ("queries", 3, "methods", "rgb-patches", "average_precision")

EDITS = {
    "request.protocol": _set("request", to={}),
    "request ": _set("request", to=[]),
    "request.root": _set("request", "root", to=7),
    "request.methods": _set("request", "methods", to=[1]),
    "request.batch_size": _set("request", "batch_size", to=10**30),
    "request.codec": _set("request", "codec", to="nothing"),
    "machine ": _set("machine", to=None),
    "machine.kernels": _set("machine", "kernels", to=[]),
    "versions": _set("versions", to="1.0"),
    "files": _set("files", to=0),
    "queries[2].photo": _set("queries", 2, "photo", to=5),
    "queries[3].methods.rgb-patches": _set(*PRECISION, to="much"),
    "queries[3].methods.rgb-patches ": _set(*PRECISION, to=float("nan")),
    "queries[3].methods.rgb-patches is": _set(*PRECISION, to=10**400),
    "methods.rgb-histogram.mAP": _set("methods", "rgb-histogram", "mAP", to=0.99),
    "queries[0].methods.late": _set("request", "methods", to=["late"]),
    "not a run file": _set("queries", 1, "methods", to=[]),
    "not a run file as": _set("model", to=None),
}


def test_an_edited_file_has_one_line(waldo: CommandLine, run: Path) -> None:
    content = run.read_text()
    for names, edit in EDITS.items():
        edited = json.loads(content)
        edit(edited)
        run.write_text(json.dumps(edited))
        line = waldo.refusal("evaluate", "--check", run)
        assert str(run) in line
        assert names in line


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "7", "null", '{"protocol": 1e999}'])
def test_a_file_that_is_no_run_has_one_line(waldo: CommandLine, tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    assert "not a run file" in waldo.refusal("evaluate", "--check", path)
