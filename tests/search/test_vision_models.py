"""Vision transformers in place of a diffusion model: index, search, masks and evaluation."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.models import find_extractor
from indexer.ingest.build import index_photos
from search import Query, SearchOptions, open_index
from tests.helpers.command_line import CommandLine
from tests.helpers.naive_pdm import exhaustive_pdm
from tests.helpers.pictures import save_photo

Folder = Callable[[str], Path]

BOX = "10,10,60,70"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for i in range(8):
        save_photo(folder / f"{i:02}.png", 80 + 9 * i, 120 - 5 * i, seed=i)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three objects of three photos each, for `waldo evaluate folders`."""
    root = tmp_path_factory.mktemp("folders")
    for number in range(9):
        (root / f"object{number // 3}").mkdir(exist_ok=True)
        save_photo(root / f"object{number // 3}" / f"{number % 3}.png", 90, 80, seed=number)
    return root


@pytest.mark.parametrize(
    ("kind", "class_name"), [("dinov2", None), ("siglip", None), ("siglip", "dog")]
)
def test_recall_is_the_papers_exhaustive_ranking(
    kind: str, class_name: str | None, vision_folder: Folder, gallery: Path, tmp_path: Path
) -> None:
    extractor = find_extractor(str(vision_folder(kind)), "cpu", batch_size=4)
    index_photos([gallery], tmp_path, extractor, batch_size=4, quality="none")
    query = Query(gallery / "03.png", class_name, box=(10, 10, 60, 70))
    with open_index(tmp_path, device="cpu") as index:
        expected = exhaustive_pdm(index, gallery, query)
        by_recall = index.search(query, SearchOptions(score="pdm", rerank=False)).matches
        by_pdm = index.search(query, SearchOptions(score="pdm")).matches
    assert [match.path.name for match in by_recall] == [name for _, name in expected]
    # Features made one by one here and four at once in the store differ by rounding.
    values = [-value for value, _ in expected]
    np.testing.assert_allclose([match.score for match in by_recall], values, rtol=1e-2, atol=1e-3)
    assert [match.path.name for match in by_pdm] == [name for _, name in expected]


@pytest.mark.parametrize("kind", ["dinov3_vit", "siglip"])
def test_an_index_of_a_vision_transformer_from_the_terminal(
    kind: str, vision_folder: Folder, gallery: Path, tmp_path: Path, waldo: CommandLine
) -> None:
    index, model = tmp_path / "index", vision_folder(kind)
    ask = ("query", gallery / "03.png", "--index", index)
    made = waldo("index", gallery, "--index", index, "--model", model, "--json")
    assert json.loads(made.out)["total"] == 8
    assert waldo("verify", "--index", index).code == 0
    [first, *_] = json.loads(waldo(*ask, "--box", BOX, "--json").out)["matches"]
    assert Path(first["path"]).name == "03.png"
    # The index knows its model: new photos need no --model, and another one is refused.
    save_photo(gallery / "late.png", 90, 90, seed=99)
    again = json.loads(waldo("index", gallery, "--index", index, "--json").out)
    assert (again["new"], again["unchanged"]) == (1, 8)
    (gallery / "late.png").unlink()
    other = waldo.refusal("index", gallery, "--index", index, "--model", "tiny")
    assert f"made with model {model}, but model tiny is in use; use the index's model" in other
    if kind == "siglip":
        by_class = waldo(*ask, "--class", "dog", "--json")
        assert len(json.loads(by_class.out)["matches"]) == 9
    else:
        line = waldo.refusal(*ask, "--class", "dog")
        assert "knows no words; give a mask, a box or a point of the object" in line
        with_box = waldo(*ask, "--class", "dog", "--box", BOX, "--json")
        assert json.loads(with_box.out)["matches"][0]["id"] == first["id"]


def test_masks_by_a_vision_transformer(
    vision_folder: Folder, gallery: Path, tmp_path: Path, waldo: CommandLine
) -> None:
    model = vision_folder("dinov2")
    photos = [gallery / "00.png", gallery / "01.png"]
    found = waldo("segment", *photos, "--box", BOX, "--model", model, "--out", tmp_path, "--json")
    assert found.code == 0, found.err
    shown = tmp_path / "shown.png"
    assert waldo("show", photos[0], "--box", BOX, "--model", model, "--out", shown).code == 0
    assert shown.stat().st_size > 0
    refused = waldo.refusal(
        *("show", photos[0], "--model", model, "--timestep", 100, "--out", shown)
    )
    assert "is no diffusion model and has no timestep" in refused


def test_methods_of_several_models_in_one_evaluation(
    vision_folder: Folder, folders: Path, tmp_path: Path, waldo: CommandLine
) -> None:
    model = vision_folder("dinov2")
    evaluate = ("evaluate", "folders", "--root", folders, "--json", "--work", tmp_path / "work")
    both = waldo(*evaluate, "--method", "late", "--method", f"late@model={model}")
    assert both.code == 0, both.err
    report = json.loads(both.out)
    alone = json.loads(waldo(*evaluate, "--model", model, "--method", "late").out)
    assert report["methods"][f"late@model={model}"] == alone["methods"]["late"]
    assert report["methods"]["late"] != alone["methods"]["late"]
    larger = waldo(*evaluate, "--method", f"late@model={model}@image_size=96")
    assert list(json.loads(larger.out)["methods"]) == [f"late@model={model}@image_size=96"]


def test_what_a_vision_transformer_cannot_do_is_refused(
    vision_folder: Folder, folders: Path, tmp_path: Path, waldo: CommandLine
) -> None:
    model = vision_folder("dinov2")
    (folders / "classes.json").write_text(json.dumps({f"object{i}": "dog" for i in range(3)}))
    evaluate = ("evaluate", "folders", "--root", folders, "--work", tmp_path / "work")
    assert (
        "is no diffusion model and has no timestep; its image_size can be changed"
        in waldo.refusal(*evaluate, "--method", f"late@model={model}@timestep=10")
    )
    assert "the image size 60 is no multiple of the patch, 8" in waldo.refusal(
        *evaluate, "--method", f"late@model={model}@image_size=60"
    )
    assert "needs class names, and the model" in waldo.refusal(
        *evaluate, "--model", model, "--method", "late-by-class"
    )
    assert "no such model" in waldo.refusal(*evaluate, "--method", "late@model=none-such")
    # Without names of methods, those that the model can run are compared.
    found = waldo(*evaluate, "--model", model, "--json")
    methods = json.loads(found.out)["methods"]
    assert {"late", "consistent", "random-weights", "words"} <= set(methods)
    assert not [name for name in methods if "by-class" in name]
