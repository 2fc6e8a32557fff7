"""What people are used to: a default index, help in groups with examples, paths for pipes."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from search.commands.app import app
from search.commands.terminal import options
from search.commands.terminal.help import EXAMPLES
from search.commands.terminal.option_values import box_of
from search.commands.terminal.options import nearest_index
from tests.helpers.command_line import CommandLine

DEMO = Path(__file__).parents[3] / "data" / "demo"
CAT = (str(DEMO / "query" / "cat.jpg"), "--box", "172,31,333,164")


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def test_the_nearest_index_is_found_as_git_finds_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "2024" / "may"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert nearest_index() == Path(".waldo")  # to be made here
    (tmp_path / ".waldo").mkdir()
    assert nearest_index() == tmp_path / ".waldo"
    (tmp_path / "2024" / ".waldo").mkdir()
    assert nearest_index() == tmp_path / "2024" / ".waldo"
    (below / ".waldo").mkdir()
    assert nearest_index() == Path(".waldo")


def test_the_option_goes_before_the_environment_and_that_before_the_folder(
    waldo: CommandLine, sample_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WALDO_INDEX", raising=False)
    assert ".waldo: no index here" in waldo.refusal("info")
    monkeypatch.setenv("WALDO_INDEX", str(sample_index))
    assert waldo("info").out.startswith(f"{sample_index}: 81 photos")
    assert "nowhere: no index here" in waldo.refusal("info", "--index", "nowhere")


def test_paths_for_pipes(waldo: CommandLine, sample_index: Path) -> None:
    ask = ("query", *CAT, "--index", sample_index, "--top", "3")
    found = [match["path"] for match in json.loads(waldo(*ask, "--json").out)["matches"]]
    assert waldo(*ask, "--paths").out.splitlines() == found
    assert waldo(*ask, "-0").out == "".join(f"{path}\0" for path in found)


def test_a_class_name_beside_a_region_is_said_to_change_nothing(
    waldo: CommandLine, sample_index: Path
) -> None:
    ask = ("query", *CAT, "--index", sample_index, "--json")
    without, named = waldo(*ask), waldo(*ask, "--class", "Cats")
    assert "note:" not in without.err
    assert "the class name 'Cats' changes nothing here: the box says" in named.err
    answers = [json.loads(result.out)["matches"] for result in (without, named)]
    assert answers[0] == answers[1]
    counted = waldo(*ask, "--class", "cat", "--score", "fused")
    assert "counts in the search by the score fused" in counted.err
    assert json.loads(counted.out)["matches"] != answers[0]


def test_plurals_and_case_are_understood(waldo: CommandLine, sample_index: Path) -> None:
    ask = ("query", CAT[0], "--index", sample_index, "--json", "--class")
    one, many = (json.loads(waldo(*ask, name).out) for name in ("cat", "CATS"))
    assert one["matches"] == many["matches"]
    assert one["query"]["taken"] == many["query"]["taken"]
    assert (one["query"]["class"], many["query"]["class"]) == ("cat", "CATS")


def test_words_of_the_bundled_model(waldo: CommandLine) -> None:
    words = waldo("models", "--words").out.splitlines()
    assert {"dog", "traffic light", "glasses"} <= set(words)
    assert not {"the", "background", "zucchini"} & set(words)
    assert json.loads(waldo("models", "--words", "--json").out) == {"words": words}


def test_corners_of_a_box_come_in_any_order() -> None:
    assert box_of(9, 20, 5, 3) == (5, 3, 9, 20)
    assert box_of(0, 0, 2, 1) == (0, 0, 2, 1)


def test_a_missing_faiss_is_one_line(waldo: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert "FAISS is not installed: `pip install faiss-cpu`" in waldo.refusal("info")
    assert importlib.util.find_spec("faiss") is not None
    assert waldo("info", "-h").code == 0


def test_examples_parse(commands: dict[str, Any]) -> None:
    assert set(EXAMPLES) == set(commands)
    for name, text in EXAMPLES.items():
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        for line in lines:
            words = shlex.split(line)
            words = words[: words.index("|") if "|" in words else None]
            assert words[:2] == ["waldo", name]
            commands[name].make_context(name, words[2:])  # raises for what it cannot parse


@pytest.mark.parametrize("columns", [80, 120])
def test_help_uses_the_width_of_the_terminal(
    columns: int, waldo: CommandLine, commands: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    widest = 0
    for name in commands:
        short, long = waldo(name, "-h"), waldo(name, "--help")
        assert short == long
        assert "\nExamples:\n" in short.out
        # Types are named for people: DIR, and not <path>.
        assert not re.search(r"<(path|str|int|float)", short.out)
        lines = short.out.split("\nExamples:")[0].splitlines()
        widest = max(widest, *map(len, lines))
    assert columns - 12 < widest <= columns
    overview = waldo("-h").out
    titles = re.findall(r"^(\S.*):$", overview, re.MULTILINE)
    assert titles == [
        *("Options", "Everyday commands", "Objects with a name"),
        *("Indexes and models", "For researchers"),
    ]
    assert "..." not in overview.split("Everyday")[1]  # no text is cut
