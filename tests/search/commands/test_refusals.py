"""What is wrong with a command is said before torch or a model is loaded, in a process of its own.

The last test also runs a command that has nothing to do, which loads nothing either.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from indexer.store.locks import writer_lock
from indexer.store.manifest import MANIFEST_NAME
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo

DEMO = Path(__file__).parents[3] / "data" / "demo" / "photos"
SCENES = Path(__file__).parents[3] / "data" / "scenes" / "validation"

# Runs commands one after the other, and tells of each its exit code, what it printed on standard
# error, and the heavy modules that have been imported by then.
RUN = """
import contextlib, io, json, sys
from search.commands.app import main
heavy = {"torch", "diffusers", "transformers", "faiss"}
for arguments in json.loads(sys.stdin.read()):
    sys.argv = ["waldo", *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(None):
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
    print(json.dumps([code, said.getvalue(), sorted(heavy & set(sys.modules))]))
"""


def run(commands: list[list[object]]) -> list[tuple[int, str, list[str]]]:
    """Exit code, standard error and imported heavy modules of each command."""
    given = json.dumps([[str(part) for part in command] for command in commands])
    process = subprocess.run(
        [sys.executable, "-c", RUN], input=given, capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in process.stdout.splitlines()]
    return [(code, said, heavy) for code, said, heavy in found]


@pytest.fixture
def index(sample_index: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sample_index, tmp_path / "index")


def refused(commands: dict[str, list[object]]) -> None:
    """Assert that each command is refused in one line that holds its key, and imports nothing."""
    outcomes = run(list(commands.values()))
    for why, (code, said, heavy) in zip(commands, outcomes, strict=True):
        [line] = [line for line in said.splitlines() if not line.startswith("loading")]
        assert line.startswith("error: "), said
        assert why in line
        assert code == 2
        assert heavy == [], why


def test_queries(index: Path, tmp_path: Path) -> None:
    photo = DEMO / "001.jpg"
    with Image.open(photo) as picture:
        width, height = picture.size
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("L", (width, 2 * height), 255).save(tmp_path / "mask.png")
    Image.new("L", (width, height)).save(tmp_path / "empty.png")
    ask = ["query", photo, "--index", index]
    box = ["--box", "5,5,50,50"]
    refused(
        {
            "absent.jpg": ["query", tmp_path / "absent.jpg", "--index", index, *box],
            "its content is none": ["query", tmp_path / "text.jpg", "--index", index, *box],
            "no index here": ["query", photo, "--index", tmp_path / "nothing", *box],
            "score best: no such score": [*ask, *box, "--score", "best"],
            "needs the object's class name": [*ask, *box, "--score", "semantic"],
            "recall siglip:": [*ask, *box, "--recall", "siglip"],
            "say which object": ask,
            "give one of mask, box and point": [*ask, *box, "--point", "5,5"],
            "must be X0,Y0,X1,Y1": [*ask, "--box", "5,5,50"],
            "box 5,5,5,50 is empty": [*ask, "--box", "5,5,5,50"],
            f"box 0,0,{width + 1},9 reaches": [*ask, "--box", f"0,0,{width + 1},9"],
            f"point 3,{height} is outside": [*ask, "--point", f"3,{height}"],
            "their shapes differ": [*ask, "--mask", tmp_path / "mask.png"],
            "the mask selects nothing": [*ask, "--mask", tmp_path / "empty.png"],
            "not a readable picture": [*ask, "--mask", tmp_path / "absent.png"],
            "'qwzx': the model tiny knows none of its words": [*ask, "--class", "qwzx"],
            "also.jpg": [*ask, *box, "--also", f"{tmp_path / 'also.jpg'}@5,5,9,9"],
            "box 9,5,9,9 is empty": [*ask, *box, "--not", f"{photo}@9,9,9,5"],
            "lies within one pixel": [*ask, "--box", "0.1,0.2,0.5,0.6"],
            "must be from 0 to 1; 90 % is 0.9": [*ask, *box, "--min-confidence", "90"],
            "leave out --paths": [*ask, *box, "--json", "-0"],
            "did you mean dog": [*ask, "--class", "dgo"],
        }
    )


def test_indexes_that_another_run_writes(index: Path) -> None:
    with writer_lock(index):
        refused(
            {
                "is writing this index": ["index", DEMO, "--index", index],
                "wait until it is done": ["compact", "--index", index],
                "or stop it": ["remove", DEMO / "001.jpg", "--index", index],
            }
        )


def test_other_commands(index: Path, tmp_path: Path) -> None:
    photo = DEMO / "001.jpg"
    new, out, at = tmp_path / "new", ["--out", tmp_path / "out"], ["--index", index]
    refused(
        {
            "more than this machine can use": [
                *("index", DEMO, "--index", index, "--workers", "9999")
            ],
            str(tmp_path / "nowhere"): ["index", tmp_path / "nowhere", "--index", new],
            "--codec tiniest": ["index", DEMO, "--index", new, "--codec", "tiniest"],
            "made with codec standard": ["index", DEMO, *at, "--codec", "small"],
            "no such model": ["index", DEMO, "--index", new, "--model", "large"],
            "absent.jpg": ["segment", tmp_path / "absent.jpg", DEMO, *out, "--point", "5,5"],
            "box 9,5,9,9": ["segment", photo, DEMO, *out, "--box", "9,9,9,5"],
            "sam nowhere: no such model": [
                *("segment", photo, DEMO, *out, "--box", "5,5,9,9", "--sam", "nowhere")
            ],
            "first.png": ["propagate", DEMO, "--mask", tmp_path / "first.png", *out],
            "nothing: no such protocol": ["evaluate", "nothing", "--root", tmp_path],
            "holds no labels.json": ["evaluate", "scenes", "--root", tmp_path],
            "method best:": ["evaluate", "scenes", "--root", SCENES, "--method", "best"],
            "has no block mid": [
                *("evaluate", "scenes", "--root", SCENES, "--method", "late@block=mid")
            ],
            f"{tmp_path}: holds no": [*("fit-weights", "scenes", "--root", tmp_path), *at],
            "no photo of": ["remove", tmp_path / "absent.jpg", *at],
        }
    )
    assert not new.exists()


def test_no_index_is_made_for_a_model_that_is_broken(
    waldo: CommandLine, tmp_path: Path, pipeline_folder: Callable[[str], Path]
) -> None:
    model = shutil.copytree(pipeline_folder("sd1"), tmp_path / "model")
    [weights] = (model / "vae").glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    photo = save_photo(tmp_path / "photo.png", 96, 64)
    ask = ("index", photo, "--index", tmp_path / "index", "--model", model)
    assert f"{weights} is cut short or damaged; copy the whole" in waldo.refusal(*ask)
    assert not (tmp_path / "index" / MANIFEST_NAME).exists()

    # The same command works once the weights are mended.
    weights.write_bytes(whole)
    assert waldo(*ask).code == 0
