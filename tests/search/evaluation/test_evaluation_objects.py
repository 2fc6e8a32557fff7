"""Evaluations of masks that are interrupted and run again: perseg, permis and davis2017."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from search.evaluation import object_masks as masks
from search.evaluation import run_store as kept
from search.evaluation import video_labels as video
from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.perseg import read_perseg
from search.evaluation.object_masks import masks_folder
from search.evaluation.run_store import RunResults, open_results
from search.evaluation.video_labels import davis_folder
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo
from tests.helpers.video_folders import save_davis, save_perseg

ROOT = Path(__file__).parents[3]


def small_davis(root: Path) -> Path:
    """Two sequences of three frames."""
    across = [{1: (4 + 6 * step, 20)} for step in range(3)]
    down = [{2: (30, 4 + 6 * step)} for step in range(3)]
    return save_davis(root, {"across": across, "down": down})


# Each: what makes its folder, methods, and what they are measured on, in order.
PROTOCOLS: dict[str, tuple[Callable[[Path], Path], list[str], list[str]]] = {
    "perseg": (save_perseg, ["segment", "appearance"], ["cup", "toy2"]),
    "davis2017": (small_davis, ["rgb-patches", "first-mask"], ["across", "down"]),
}


def evaluate_and_die(number: int, where: str, arguments: list[str]) -> None:
    """In a process of its own: the command, killed when results are kept for the given time,
    "before" they are written, or "within": when they are, but not under their name.
    """
    from search.commands.app import main

    write, times = kept.write_text_atomically, 0

    def written(path: Path, text: str) -> None:
        nonlocal times
        times += 1
        if times == number:
            if where == "within":
                path.with_name(f"{path.name}.tmp").write_text(text[:20])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, text)

    kept.write_text_atomically = written
    sys.argv = ["waldo", *arguments]
    main()


def kill_evaluation(number: int, where: str, arguments: list[str]) -> None:
    code = (
        "import sys; from tests.search.evaluation.test_evaluation_objects import evaluate_and_die; "
        "evaluate_and_die(int(sys.argv[1]), sys.argv[2], sys.argv[3:])"
    )
    command = [sys.executable, "-c", code, str(number), where, *arguments]
    killed = subprocess.run(command, cwd=ROOT, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every item and method that is measured from now on."""
    found: list[tuple[str, str]] = []
    measure_object, measure_sequence = masks.measure_object, video.measure_sequence

    def of_object(item: Any, extractor: Any, methods: Any) -> Any:
        found.extend((item.name, method.name) for method in methods)
        return measure_object(item, extractor, methods)

    def of_sequence(sequence: Any, method: Any, extractor: Any) -> Any:
        names = [name for name, known in video.METHODS.items() if known is method]
        found.append((sequence.name, *names))
        return measure_sequence(sequence, method, extractor)

    monkeypatch.setattr(masks, "measure_object", of_object)
    monkeypatch.setattr(video, "measure_sequence", of_sequence)
    return found


# An object's methods are kept together, a sequence's one by one: those behind the first item's.
@pytest.mark.parametrize(
    ("protocol", "number", "where"), [("perseg", 2, "within"), ("davis2017", 4, "before")]
)
def test_killed_run_goes_on_behind_its_last_item(
    waldo: CommandLine,
    tmp_path: Path,
    measured: list[tuple[str, str]],
    protocol: str,
    number: int,
    where: str,
) -> None:
    save, methods, items = PROTOCOLS[protocol]
    root, work = save(tmp_path / "root"), tmp_path / "work"
    asked = [argument for name in methods for argument in ("--method", name)]
    command = ["evaluate", protocol, "--root", str(root), *asked, "--device", "cpu", "--json"]
    whole = waldo(*command, "--work", tmp_path / "elsewhere")
    assert whole.code == 0, whole.err
    assert "going on" not in whole.err
    assert len(measured) == 4
    measured.clear()

    kill_evaluation(number, where, [*command, "--work", str(work)])
    [folder] = work.iterdir()
    done = {
        (path.stem, method)
        for path in folder.glob("*.json")
        for method in json.loads(path.read_text())
    }
    assert {(items[0], method) for method in methods} <= done
    again = waldo(*command, "--work", work)
    assert again.code == 0, again.err
    assert json.loads(again.out) == json.loads(whole.out)
    # Nothing that was done is done again, and nothing is left out.
    assert len(measured) == len(set(measured))
    assert set(measured) == {(item, method) for item in items for method in methods} - done
    things = {"perseg": "objects", "davis2017": "sequences"}[protocol]
    assert f"going on with an interrupted run: 1 of 2 {things} are done" in again.err
    # What is told is not kept.
    assert [*work.iterdir()] == []
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_an_error_keeps_what_was_done(
    waldo: CommandLine, tmp_path: Path, measured: list[tuple[str, str]]
) -> None:
    root, out = save_perseg(tmp_path / "root"), tmp_path / "nowhere" / "run.json"
    command = ("evaluate", "perseg", "--root", root, "--work", tmp_path / "work")
    failed = waldo(*command, "--method", "appearance", "--out", out)
    assert failed.code == 2
    assert "cannot be written" in failed.err
    measured.clear()
    # Another method measures what it lacks, and nothing else.
    result = waldo(*command, "--method", "appearance", "--method", "pdm")
    assert result.code == 0, result.err
    assert measured == [("cup", "pdm"), ("toy2", "pdm")]


def test_results_that_cannot_be_read_are_made_again(tmp_path: Path) -> None:
    with open_results(tmp_path / "run") as results:
        results.keep("a/b", {"pdm": {"iou": 0.25}})
        assert results.of("a/b") == {"pdm": {"iou": 0.25}}
        assert results.of("a") == {}
        assert results.count(["a/b", "a"], ["pdm"]) == 1
        assert results.count(["a/b", "a"], ["pdm", "segment"]) == 0
        [path] = (tmp_path / "run").glob("*.json")
        path.write_text("{")
        assert results.of("a/b") == {}
        with (
            pytest.raises(WaldoError, match="under way in another process"),
            open_results(tmp_path / "run"),
        ):
            pass


def test_any_name_gets_a_file_of_its_own(tmp_path: Path) -> None:
    results = RunResults(tmp_path)
    long = "ä" * 100
    names = ["a", "a b", "a/b", "a%2Fb", "..", "\udcff", long, f"{long}b"]
    for number, name in enumerate(names):
        results.keep(name, {"pdm": number})
    assert [results.of(name) for name in names] == [{"pdm": n} for n in range(len(names))]
    assert len([*tmp_path.iterdir()]) == len(names)


def test_what_changes_results_is_another_run(
    tiny: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = read_perseg(save_perseg(tmp_path / "PerSeg"))
    sequences = read_davis(small_davis(tmp_path / "DAVIS"))
    weights = save_photo(tmp_path / "sam.safetensors.png", 8, 8)
    other = FeatureExtractor(tiny.model, replace(tiny.settings, timestep=100), 4)

    def of_masks(protocol: str = "perseg", **changed: Any) -> Path:
        given = {"objects": objects, "extractor": tiny, "others": [], **changed}
        return masks_folder(tmp_path, protocol, **given)

    found = [
        of_masks(),
        of_masks("permis"),
        of_masks(extractor=other),
        of_masks(others=[weights]),
        of_masks(objects=objects[:1]),
        of_masks(objects=[replace(objects[0], class_name="cup"), *objects[1:]]),
        davis_folder(tmp_path, sequences, tiny),
        davis_folder(tmp_path, sequences, other),
        davis_folder(tmp_path, sequences[:1], tiny),
    ]
    assert of_masks() == found[0]
    with monkeypatch.context() as patched:
        patched.setattr(kept, "_source_digest", lambda: "another waldo")
        found.append(of_masks())
    for path in (objects[1].targets[0].mask, sequences[0].annotations[2]):
        path.touch()
    found += [of_masks(), davis_folder(tmp_path, sequences, tiny)]
    assert len(set(found)) == len(found)
    sequences[0].frames[1].unlink()
    with pytest.raises(WaldoError, match=r"00001\.jpg: cannot be read"):
        davis_folder(tmp_path, sequences, tiny)
