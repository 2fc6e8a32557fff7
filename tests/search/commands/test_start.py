"""A quick start: what the command line completes, and which packages it does not import for it."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.helpers.command_line import CommandLine

ROOT = Path(__file__).parents[3]

# Packages that take a tenth of a second or more to import.
HEAVY = ("numpy", "PIL", "scipy", "pyarrow", "faiss", "torch", "diffusers", "transformers")

# What torch, diffusers and transformers import as usual, and a search does not use.
UNUSED = (
    *("torch._dynamo", "torch.distributed.tensor", "sympy", "scipy.stats", "scipy.optimize"),
    *("diffusers.pipelines", "diffusers.models.transformers.transformer_flux"),
)

# Runs `waldo` and prints, on a last line, its exit code and which modules of a list it imported.
PROGRAM = """
import json, sys
from search.commands.app import main
names, sys.argv = json.loads(sys.argv[1]), ["waldo", *sys.argv[2:]]
try:
    main()
except SystemExit as stopped:
    code = stopped.code
print("\\n" + json.dumps([code or 0, [name for name in names if name in sys.modules]]))
"""


def run(
    *arguments: object, names: tuple[str, ...] = HEAVY, **environment: str
) -> tuple[int, list[str], str]:
    """The exit code of a command, the modules among `names` that it imported, and its output."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(names), *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    output, _, last = found.stdout.rstrip("\n").rpartition("\n")
    code, imported = json.loads(last)
    return code, imported, output + found.stderr


def completed(*words: str) -> tuple[list[str], list[str]]:
    """What bash offers for the last word, and the heavy modules that were imported for it."""
    code, imported, output = run(
        _WALDO_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(["waldo", *words]),
        COMP_CWORD=str(len(words)),
    )
    assert code == 0
    return output.split(), imported


def test_version(waldo: CommandLine) -> None:
    shown = waldo("--version")
    assert (shown.code, shown.out) == (0, f"waldo {version('waldo-search')}\n")


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("query", "--help"), ("evaluate", "--help"), ("models",)],
    ids=" ".join,
)
def test_what_prints_only_text_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code, imported, output = run(*arguments)
    assert (code, imported) == (0, [])
    assert output.strip()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ver",), ["verify"]),
        (("query", "--reca"), ["--recall"]),
        (("query", "--score", "late"), ["late", "late-gated"]),
        (("query", "--class", "zebr"), ["zebra"]),
        (("index", "--codec", "s"), ["standard", "small"]),
        (("segment", "--model", "sdx"), ["sdxl", "sdxl-turbo"]),
        (("evaluate", "per"), ["permir", "perseg", "permis"]),
        (("fit-weights", "per"), ["permir"]),
    ],
    ids=str,
)
def test_completion_imports_nothing_heavy(words: tuple[str, ...], offered: list[str]) -> None:
    found, imported = completed(*words)
    assert sorted(found) == sorted(offered)
    assert imported == []


@pytest.mark.parametrize("region", [("--box", "172,31,333,164"), ("--class", "cat")], ids="".join)
def test_a_search_imports_only_what_it_uses(region: tuple[str, ...], sample_index: Path) -> None:
    code, imported, output = run(
        *("query", "data/demo/query/cat.jpg", "--index", sample_index, *region),
        names=(*UNUSED, "torch", "diffusers.models.unets.unet_2d_condition"),
    )
    assert code == 0, output
    assert imported == ["torch", "diffusers.models.unets.unet_2d_condition"]


def test_an_index_without_new_photos_needs_no_model(demo_index: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(demo_index, index)
    code, imported, output = run(
        *("index", "data/demo/photos", "--index", index), names=("torch", "diffusers")
    )
    assert (code, imported) == (0, []), output
    assert "0 new" in output
    assert "loading" not in output


def test_completed_names_are_all_there_are() -> None:
    from search.commands.terminal.options import OTHER_BENCHMARKS, SCORE_NAMES, SEARCH_BENCHMARKS
    from search.evaluation.benchmarks import (
        GROUPS,
        MASKS,
        PACKED_SEARCHES,
        SEARCHES,
        TEXTS,
        VIDEOS,
    )
    from search.scoring.scores import SCORES

    assert tuple(SCORES) == SCORE_NAMES
    assert (*SEARCHES, *PACKED_SEARCHES) == SEARCH_BENCHMARKS
    assert (*TEXTS, *MASKS, *VIDEOS, *GROUPS) == OTHER_BENCHMARKS


def test_public_names_are_imported_on_first_use() -> None:
    program = """
import sys
import search
assert "numpy" not in sys.modules
assert set(search.__all__) <= set(dir(search))
from search import Query
import search.query
assert Query is search.query.Query and Query is search.Query
try:
    search.Qeury
except AttributeError as error:
    print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout == "module 'search' has no attribute 'Qeury'\n"
