"""The gallery of an evaluation as a fleet: the same results, bit for bit."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from indexer.fleet.fleet_reader import open_collection
from indexer.parts import part_of_id
from indexer.ray_cluster import RayCluster
from search.evaluation.benchmarks.scenes import read_scenes
from search.evaluation.galleries import GalleryFleet
from search.evaluation.methods.methods import select_methods
from search.evaluation.retrieval import Evaluation, run_methods
from tests.helpers.benchmarks.query_results import whole_scores
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo

VALIDATION = Path(__file__).parents[2] / "data" / "scenes" / "validation"
QUERIES, GALLERY, PARTS = 2, 12, 3

# Each kind of question that methods ask of a gallery: cells, words, a whole class, a descriptor;
# other maps; candidates of one kind that are re-ranked by another; and two kinds together.
METHODS = [
    *("consistent-expanded", "late-by-class", "words", "pdm", "rgb-patches"),
    *("rgb-patches+consistent", "together:late,rgb-patches", "late@timestep=150"),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few queries and photos of the validation scenes."""
    root = tmp_path_factory.mktemp("scenes")
    labels = json.loads((VALIDATION / "labels.json").read_text())
    gallery = labels["gallery"][:GALLERY]
    shown = {thing["instance"] for scene in gallery for thing in scene["objects"]}
    queries = [query for query in labels["queries"] if query["instance"] in shown][:QUERIES]
    assert len(queries) == QUERIES
    for folder in ("photos", "masks"):
        (root / folder).symlink_to(VALIDATION / folder)
    (root / "labels.json").write_text(json.dumps({"queries": queries, "gallery": gallery}))
    return root


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two objects, two photos each."""
    for number in range(4):
        folder = tmp_path / "collection" / ("mug", "kettle")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        save_photo(folder / f"{number}.png", seed=number)
    return tmp_path / "collection"


@pytest.fixture
def distractors(tmp_path: Path) -> Path:
    """Two photos, and half a photo."""
    folder = tmp_path / "others"
    folder.mkdir()
    for number in (7, 8):
        save_photo(folder / f"{number}.png", seed=number)
    (folder / "half.png").write_bytes((folder / "7.png").read_bytes()[:500])
    return folder


@pytest.fixture(scope="module", autouse=True)
def as_workers() -> Iterator[None]:
    """Compare and extract as workers do: by this kernel, and in one thread."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("WALDO_KERNEL", "float32")
        yield
    torch.set_num_threads(threads)


def scores_of(found: Evaluation) -> dict[str, NDArray[np.float32]]:
    """The score of every photo for every query, by each method."""
    return {result.method.name: whole_scores(result.queries) for result in found.results}


@pytest.fixture(scope="module")
def of_index(
    tiny: FeatureExtractor, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, NDArray[np.float32]]:
    """The scores by ordinary indexes."""
    benchmark, work = read_scenes(scenes), tmp_path_factory.mktemp("work")
    scores = scores_of(run_methods(benchmark, select_methods(METHODS, benchmark), tiny, work))
    assert set(scores) == set(METHODS)
    assert all(len(np.unique(values)) > GALLERY // 2 for values in scores.values())
    return scores


def test_a_fleet_gives_the_scores_of_an_index(
    of_index: dict[str, NDArray[np.float32]], tiny: FeatureExtractor, scenes: Path, tmp_path: Path
) -> None:
    benchmark, fleet = read_scenes(scenes), GalleryFleet(PARTS)
    methods = select_methods([name for name in METHODS if "@" not in name], benchmark)
    found = scores_of(run_methods(benchmark, methods, tiny, tmp_path, fleet=fleet))
    for name, scores in found.items():
        np.testing.assert_array_equal(scores, of_index[name])
    [place] = tmp_path.glob("scenes-model-*")
    with open_collection(place / "index") as reader:
        assert set(part_of_id(reader.ids).tolist()) == {*range(PARTS)}
        assert reader.n_photos == GALLERY


@pytest.mark.usefixtures("one_worker")  # a fleet that hired its own would wait for it
def test_so_do_workers_that_hold_three_kinds_of_maps(
    of_index: dict[str, NDArray[np.float32]],
    tiny: FeatureExtractor,
    scenes: Path,
    there: RayCluster,
    tmp_path: Path,
) -> None:
    """Those of the model, those with other settings, and those of colours."""
    benchmark, fleet = read_scenes(scenes), GalleryFleet(PARTS, there)
    methods = select_methods(METHODS, benchmark)
    found = scores_of(run_methods(benchmark, methods, tiny, tmp_path, fleet=fleet))
    for name, scores in found.items():
        np.testing.assert_array_equal(scores, of_index[name])


@pytest.mark.usefixtures("one_worker")
def test_the_command_line_has_workers(
    waldo: CommandLine, collection: Path, distractors: Path, there: RayCluster, tmp_path: Path
) -> None:
    work = ("--work", tmp_path / "work")
    ask = ["evaluate", "folders", "--root", collection, "--distractors", distractors, *work]
    ask += ["--method", "rgb-patches", "--json", "--out", tmp_path / "r.json"]
    found = []
    for more in ((), ("--ray", there.address, "--parts", 2)):
        result = waldo(*ask, *more)
        assert result.code == 0, result.err
        found.append(json.loads(result.out))
    assert found[1]["methods"] == found[0]["methods"]
    request = json.loads((tmp_path / "r.json").read_text())["request"]
    assert (request["parts"], request["ray"]) == (2, True)
    checked = waldo("evaluate", "--check", tmp_path / "r.json", *work)
    assert checked.code == 0, checked.err
    assert "changed since: workers of a Ray cluster compared then" in checked.out


def test_the_command_line_makes_fleets(
    waldo: CommandLine, collection: Path, distractors: Path, tmp_path: Path
) -> None:
    work, found, runs = ("--work", tmp_path / "work"), [], []
    ask = ["evaluate", "folders", "--root", collection, "--distractors", distractors, *work]
    ask += ["--method", "rgb-patches", "--json"]
    for more in ((), ("--parts", PARTS)):
        runs.append(tmp_path / f"{len(more)}.json")
        result = waldo(*ask, *more, "--out", runs[-1])
        assert result.code == 0, result.err
        found.append(json.loads(result.out))
    assert found[1]["methods"] == found[0]["methods"]
    assert found[1]["distractors_left_out"] == found[0]["distractors_left_out"]
    assert (found[1]["n_gallery"], len(found[1]["distractors_left_out"]["broken"])) == (6, 1)
    contents = [json.loads(run.read_text()) for run in runs]
    assert [content["request"].pop("parts") for content in contents] == [None, PARTS]
    assert contents[1]["queries"] == contents[0]["queries"]
    folders = sorted((tmp_path / "work").iterdir())
    assert len(folders) == 2  # neither takes the other's
    assert waldo("evaluate", "--check", runs[1], *work).code == 0
    assert sorted((tmp_path / "work").iterdir()) == folders
    del contents[0]["request"]["batch_size"]
    runs[0].write_text(json.dumps(contents[0]))  # as of an earlier version, but broken
    assert "request.batch_size" in waldo.refusal("evaluate", "--check", runs[0], *work)


def test_what_no_fleet_can_be_of_is_refused(
    waldo: CommandLine, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for protocol in ("perseg", "davis2017"):
        line = waldo.refusal("evaluate", protocol, "--root", scenes, "--parts", 2)
        assert f"searches have a gallery, not {protocol}" in line
    work = ("--work", tmp_path / "work")
    line = waldo.refusal("evaluate", "scenes", "--root", scenes, *work, "--parts", 10**6)
    assert "must be from 1 to 10000" in line
    for option, value in (("--parts", 2), ("--ray", "auto")):
        line = waldo.refusal("evaluate", "objects-scenes", "--root", scenes, option, value)
        assert f"{option} {value}: searches have a gallery, not objects-scenes" in line
        line = waldo.refusal("evaluate", "--check", tmp_path / "run.json", option, value)
        assert f"leave out {option}" in line
    monkeypatch.setitem(sys.modules, "ray", None)
    line = waldo.refusal("evaluate", "scenes", "--root", scenes, *work, "--ray", "auto")
    assert "pip install 'waldo-search[ray]'" in line
    assert not (tmp_path / "work").exists()
