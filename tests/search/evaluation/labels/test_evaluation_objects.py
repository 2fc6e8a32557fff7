"""Evaluations of masks and videos that are interrupted and run again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from search.evaluation import run_store
from search.evaluation.benchmarks.davis import read_davis
from search.evaluation.benchmarks.perseg import read_perseg
from search.evaluation.labels import object_masks, video_labels
from search.evaluation.labels.mask_methods import select_mask_methods
from search.evaluation.labels.object_masks import evaluate_masks, masks_folder
from search.evaluation.labels.video_labels import (
    evaluate_videos,
    select_video_methods,
    videos_folder,
)
from search.evaluation.methods.baselines import PatchExtractor
from search.evaluation.run_store import RunResults, open_results
from tests.helpers.benchmarks.video_folders import save_davis, save_perseg
from tests.helpers.command_line import CommandLine
from tests.helpers.killed import kill_myself, run_until_killed
from tests.helpers.pictures import save_photo


def small_davis(root: Path) -> Path:
    """Two sequences of three frames."""
    across = [{1: (4 + 6 * step, 20)} for step in range(3)]
    down = [{2: (30, 4 + 6 * step)} for step in range(3)]
    return save_davis(root, {"across": across, "down": down})


@pytest.fixture(scope="module")
def small(small_tiny: FeatureExtractor) -> FeatureExtractor:
    """The bundled model with small maps."""
    return small_tiny.with_batch_size(1)


Evaluate = Callable[[Path], dict[str, Any]]


def masks_of(root: Path, extractor: FeatureExtractor) -> tuple[list[str], list[str], Evaluate]:
    """Items, methods, and what evaluates them, given a work folder."""
    benchmark, names = read_perseg(save_perseg(root)), ["segment", "appearance"]
    objects = benchmark.objects

    def evaluate(work: Path) -> dict[str, Any]:
        methods = select_mask_methods(names, objects, None)
        with open_results(masks_folder(work, "perseg", objects, extractor, [])) as stored:
            return evaluate_masks("perseg", benchmark, extractor, methods, stored)

    return ["cup", "toy2"], names, evaluate


def videos_of(root: Path, _: FeatureExtractor) -> tuple[list[str], list[str], Evaluate]:
    """As `masks_of`."""
    videos, names = read_davis(small_davis(root)), ["rgb-patches", "first-mask"]
    extractor = PatchExtractor(8)

    def evaluate(work: Path) -> dict[str, Any]:
        methods = select_video_methods(names)
        with open_results(videos_folder(work, "davis2017", videos, extractor)) as stored:
            return evaluate_videos("davis2017", videos, extractor, methods, stored)

    return ["across", "down"], names, evaluate


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every item and method that is measured from now on."""
    found: list[tuple[str, str]] = []
    measure_object, measure_video = object_masks.measure_object, video_labels.measure_video

    def of_object(item: Any, extractor: Any, methods: Any, maps_of: Any) -> Any:
        found.extend((item.name, method.name) for method in methods)
        return measure_object(item, extractor, methods, maps_of)

    def of_video(video: Any, method: Any, extractor: Any) -> Any:
        known = video_labels.VIDEO_METHODS.items()
        found.extend((video.name, name) for name, each in known if each is method)
        return measure_video(video, method, extractor)

    monkeypatch.setattr(object_masks, "measure_object", of_object)
    monkeypatch.setattr(video_labels, "measure_video", of_video)
    return found


@pytest.mark.parametrize(
    ("prepare", "number", "half", "n_done"), [(masks_of, 4, True, 3), (videos_of, 3, False, 2)]
)
def test_killed_run_continues_after_its_last_result(
    small: FeatureExtractor,
    tmp_path: Path,
    measured: list[tuple[str, str]],
    prepare: Callable[[Path, FeatureExtractor], tuple[list[str], list[str], Evaluate]],
    number: int,
    half: bool,
    n_done: int,
) -> None:
    """Killed while it writes a result of an item, half written or not begun."""
    items, methods, evaluate = prepare(tmp_path / "root", small)
    whole = evaluate(tmp_path / "elsewhere")
    assert measured == [(item, method) for item in items for method in methods]
    measured.clear()
    write, times = run_store.write_text_atomically, 0

    def die(path: Path, text: str) -> None:
        nonlocal times
        times += 1
        if times == number:
            if half:
                path.with_name(f"{path.name}.tmp").write_text(text[:20])
            kill_myself()
        write(path, text)

    def evaluate_and_die() -> None:
        run_store.write_text_atomically = die
        evaluate(tmp_path / "work")

    run_until_killed(evaluate_and_die)
    [folder] = (tmp_path / "work").iterdir()
    done = [
        (path.stem, method)
        for path in sorted(folder.glob("*.json"))
        for method in json.loads(path.read_text())
    ]
    assert done == [(item, method) for item in items for method in methods][:n_done]
    assert evaluate(tmp_path / "work") == whole
    # Nothing that was done is done again, and nothing is left out.
    assert done + measured == [(item, method) for item in items for method in methods]


def test_an_error_keeps_what_was_done(
    waldo: CommandLine, tmp_path: Path, measured: list[tuple[str, str]]
) -> None:
    root, out = save_perseg(tmp_path / "root"), tmp_path / "nowhere" / "run.json"
    work = tmp_path / "work"
    command = ("evaluate", "perseg", "--root", root, "--work", work, "--method", "appearance")
    failed = waldo(*command, "--out", out)
    assert failed.code == 2
    assert "cannot be written" in failed.err
    assert "going on" not in failed.err
    # Another method measures what it lacks, and nothing else.
    measured.clear()
    failed = waldo(*command, "--method", "pdm", "--out", out)
    assert measured == [("cup", "pdm"), ("toy2", "pdm")]
    result = waldo(*command)
    assert result.code == 0, result.err
    assert "going on with an interrupted run: 2 of 2 objects are done" in result.err
    assert len(measured) == 2
    # What is told is not stored any longer.
    assert [*work.iterdir()] == []


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
            pytest.raises(WaldoError, match="another process is running this evaluation"),
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
    small_tiny: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = read_perseg(save_perseg(tmp_path / "PerSeg")).objects
    sequences = read_davis(small_davis(tmp_path / "DAVIS"))
    weights = save_photo(tmp_path / "sam.safetensors.png", 8, 8)
    other = FeatureExtractor(small_tiny.model, replace(small_tiny.settings, timestep=100), 4)

    def of_masks(protocol: str = "perseg", **changed: Any) -> Path:
        given = {"objects": objects, "extractor": small_tiny, "others": [], **changed}
        return masks_folder(tmp_path, protocol, **given)

    found = [
        of_masks(),
        of_masks("permis"),
        of_masks(extractor=other),
        of_masks(others=[weights]),
        of_masks(objects=objects[:1]),
        of_masks(objects=[replace(objects[0], class_name="cup"), *objects[1:]]),
        videos_folder(tmp_path, "davis2017", sequences, small_tiny),
        videos_folder(tmp_path, "davis2017", sequences, other),
        videos_folder(tmp_path, "davis2017", sequences[:1], small_tiny),
    ]
    assert of_masks() == found[0]
    with monkeypatch.context() as patched:
        patched.setattr(run_store, "RESULTS_VERSION", run_store.RESULTS_VERSION + 1)
        found.append(of_masks())
    for path in (objects[1].targets[0].mask, sequences[0].annotations[2]):
        path.touch()
    found += [of_masks(), videos_folder(tmp_path, "davis2017", sequences, small_tiny)]
    assert len(set(found)) == len(found)
    sequences[0].frames[1].unlink()
    with pytest.raises(WaldoError, match=r"00001\.jpg: cannot be read"):
        videos_folder(tmp_path, "davis2017", sequences, small_tiny)
