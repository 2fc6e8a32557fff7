"""Diffusion transformers in place of a UNet: index, search and evaluation."""

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
FAMILIES = ["pixart", "sd35", "flux", "flux2"]


@pytest.fixture(autouse=True)
def few_nouns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of names take longer than all else here."""
    monkeypatch.setattr("features.diffusion.noun_vectors.nouns", lambda: ["cat", "cup", "dog"])


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for i in range(6):
        save_photo(folder / f"{i:02}.png", 80 + 9 * i, 120 - 5 * i, seed=i)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("class_name", [None, "dog"])
def test_recall_is_the_papers_exhaustive_ranking(
    family: str, class_name: str | None, pipeline_folder: Folder, gallery: Path, tmp_path: Path
) -> None:
    extractor = find_extractor(str(pipeline_folder(family)), "cpu", batch_size=3)
    extractor = extractor.changed(image_size=128)
    index_photos([gallery], tmp_path, extractor, batch_size=3, quality="none")
    query = Query(gallery / "03.png", class_name, box=(10, 10, 60, 70))
    with open_index(tmp_path, device="cpu") as index:
        expected = exhaustive_pdm(index, gallery, query)
        by_recall = index.search(query, SearchOptions(score="pdm", rerank=False)).matches
        by_pdm = index.search(query, SearchOptions(score="pdm")).matches
    assert [match.path.name for match in by_recall] == [name for _, name in expected]
    # Features made one by one here and three at once in the store differ by rounding.
    values = [-value for value, _ in expected]
    np.testing.assert_allclose([match.score for match in by_recall], values, rtol=1e-2, atol=2e-3)
    assert [match.path.name for match in by_pdm] == [name for _, name in expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_index_of_a_diffusion_transformer_from_the_terminal(
    family: str, pipeline_folder: Folder, gallery: Path, tmp_path: Path, waldo: CommandLine
) -> None:
    index, model = tmp_path / "index", pipeline_folder(family)
    ask = ("query", gallery / "03.png", "--index", index)
    made = waldo("index", gallery, "--index", index, "--model", model, "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["total"] == 6
    assert waldo("verify", "--index", index).code == 0
    [first, *_] = json.loads(waldo(*ask, "--box", BOX, "--json").out)["matches"]
    assert Path(first["path"]).name == "03.png"
    by_class = waldo(*ask, "--class", "dog", "--json")
    assert len(json.loads(by_class.out)["matches"]) == 6, by_class.err
    # The index knows its model: new photos need no --model, and another one is refused.
    save_photo(gallery / "late.png", 90, 90, seed=99)
    again = json.loads(waldo("index", gallery, "--index", index, "--json").out)
    assert (again["new"], again["unchanged"]) == (1, 6)
    (gallery / "late.png").unlink()
    other = waldo.refusal("index", gallery, "--index", index, "--model", "tiny")
    assert f"made with model {model}, but model tiny is in use; use the index's model" in other


def test_ablations_of_a_diffusion_transformer(
    pipeline_folder: Folder, tmp_path: Path, waldo: CommandLine
) -> None:
    root = tmp_path / "folders"
    for number in range(4):
        (root / f"object{number // 2}").mkdir(exist_ok=True, parents=True)
        save_photo(root / f"object{number // 2}" / f"{number % 2}.png", 90, 80, seed=number)
    evaluate = ("evaluate", "folders", "--root", root, "--model", pipeline_folder("sd35"))
    methods = ["late", "late@block=transformer_blocks.0", "late@timestep=600"]
    chosen = [part for method in methods for part in ("--method", method)]
    found = waldo(*evaluate, *chosen, "--json")
    assert found.code == 0, found.err
    assert list(json.loads(found.out)["methods"]) == methods
    refused = waldo.refusal(*evaluate, "--method", "late@block=up_blocks.1")
    assert "the model's transformer has no block up_blocks.1" in refused
    refused = waldo.refusal(*evaluate, "--method", "late@inversion=ddim")
    assert "is for UNets" in refused
