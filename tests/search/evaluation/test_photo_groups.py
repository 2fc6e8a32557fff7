"""Grouping photos by what they show: the labels, and the report of `waldo evaluate objects-...`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from features.errors import WaldoError
from search.evaluation.benchmarks.shown_objects import read_folder_objects, read_scene_objects
from search.evaluation.photo_groups import GROUP_METHODS, select_group_methods
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two folders of three photos."""
    root = tmp_path / "folders"
    for number, name in enumerate(("cup", "dog")):
        (root / name).mkdir(parents=True)
        for photo in range(3):
            save_photo(root / name / f"{photo}.png", 60, 60, seed=10 * number + photo)
    return root


def test_a_photo_shows_the_object_of_its_folder(folders: Path) -> None:
    found = read_folder_objects(folders)
    assert found.names == ["cup", "dog"]
    assert found.labels == [{photo.parent.name} for photo in found.benchmark.gallery]
    assert [len(found.labels), found.labels[0], found.labels[-1]] == [6, {"cup"}, {"dog"}]


def test_an_object_that_lies_about_in_scenes_is_the_last_of_its_class(tmp_path: Path) -> None:
    def item(instance: str, class_name: str) -> dict[str, str]:
        return {"instance": instance, "class": class_name}

    shown = [
        [item("stop-sign-easy-1", "stop sign"), item("stop-sign-easy-4", "stop sign")],
        [item("dog-hard-1", "dog"), item("other-1", "stop sign"), item("other-2", "cat")],
        [item("stop-sign-easy-3", "stop sign"), item("other-1", "cat")],
    ]
    gallery = [
        {"photo": f"{n}.jpg", "mask": f"{n}.png", "objects": objects}
        for n, objects in enumerate(shown)
    ]
    query = {"photo": "q.jpg", "mask": "q.png", "level": "easy", **shown[0][0]}
    labels = {"queries": [query], "gallery": gallery}
    (tmp_path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    for n, objects in enumerate(shown):
        mask = Image.fromarray(np.arange(1 + len(objects), dtype=np.uint8)[None])
        mask.save(tmp_path / f"{n}.png")
        save_photo(tmp_path / f"{n}.jpg", *mask.size)
    assert read_scene_objects(tmp_path).labels == [
        {"stop-sign-easy-1", "stop-sign-easy-4"},
        {"dog-hard-1", "stop-sign-easy-4", "cat-easy-0"},
        {"stop-sign-easy-3", "cat-easy-0"},
    ]


def test_every_method_is_reported(folders: Path, waldo: CommandLine, tmp_path: Path) -> None:
    (folders / "classes.json").write_text('{"cup": "cup", "dog": "dog"}', encoding="utf-8")
    run = tmp_path / "run.json"
    asked = "evaluate", "objects-folders", "--root", folders, "--work", tmp_path / "work"
    report: dict[str, Any] = json.loads(waldo(*asked, "--out", run, "--json").out)
    assert list(report["methods"]) == list(GROUP_METHODS)
    assert (report["n_queries"], report["n_gallery"]) == (2, 6)
    alone, true = report["methods"]["alone"], report["methods"]["by-class"]
    assert (alone["bcubed_precision"], alone["placed"], alone["pair_precision"]) == (1, 0, None)
    assert alone["bcubed_recall"] == pytest.approx(1 / 3)
    assert (true["groups"], true["bcubed_f"], true["pair_f"], true["placed"]) == (2, 1, 1, 1)
    table = waldo(*asked, "--method", "alone").out
    assert "2 objects, 6 photos" in table
    assert "33.3" in table
    assert "objects-folders" in waldo("report", run).out


def test_what_cannot_be_measured_is_refused(folders: Path, waldo: CommandLine) -> None:
    photos = read_folder_objects(folders)
    assert "by-class" not in select_group_methods([], photos)
    with pytest.raises(WaldoError, match="needs the class"):
        select_group_methods(["by-class"], photos)
    asked = "evaluate", "objects-folders", "--root", folders
    assert "no such method" in waldo.refusal(*asked, "--method", "late")
    assert "searches can be swept" in waldo.refusal(*asked, "--sweep", "timestep")
