"""Ablations as methods of an evaluation: NAME@KEY=VALUE, and late interaction not centred."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.photo import load_model_input
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.methods.ablation import Changes
from search.evaluation.methods.methods import METHODS, RerankedMethod, find_method, select_methods
from search.evaluation.retrieval import run_methods
from search.query import Query
from search.reference import make_reference, make_references
from tests.helpers.benchmarks.query_results import whole_scores
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo
from tests.helpers.stores import make_photos

N_PHOTOS, N_QUERIES = 6, 3


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    """Each of the first photos looks for the one behind it."""
    photos = make_photos(tmp_path / "photos", N_PHOTOS)
    queries = [
        BenchmarkQuery(
            Query(photos[i], ("dog", "cup")[i % 2], box=(2.0, 2.0, 18.0, 14.0)),
            *(np.array([i + 1]), np.array([i]), True),
        )
        for i in range(N_QUERIES)
    ]
    return Benchmark("folders", photos, [{"dog", "cup"}] * N_PHOTOS, queries, [])


@pytest.fixture(autouse=True)
def few_nouns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of features has class vectors of its own, which some 3,100 nouns make slow."""
    monkeypatch.setattr("features.diffusion.noun_vectors.nouns", lambda: ["cat", "cup", "dog"])


def scores_of(
    benchmark: Benchmark,
    names: list[str],
    extractor: FeatureExtractor,
    work: Path,
    codec: str = "standard",
) -> dict[str, NDArray[np.float32]]:
    methods = select_methods(names, benchmark)
    found = run_methods(benchmark, methods, extractor, work, codec)
    return {result.method.name: whole_scores(result.queries) for result in found.results}


# What names mean


def test_names() -> None:
    late = METHODS["late"]
    assert find_method("late@timestep=200") == replace(
        late, name="late@timestep=200", changes=Changes((("timestep", 200),))
    )
    several = find_method("words-by-class@inversion=ddim@tau=0.25@steps=4@prompt=a+b/c, d=e")
    assert several.changes == Changes(  # type: ignore[union-attr]
        (("inversion", "ddim"), ("prompt", "a+b/c, d=e"), ("steps", 4)), tau=0.25
    )
    assert find_method("late@prompt=").changes.settings == (("prompt", ""),)  # type: ignore[union-attr]
    both = find_method("dinov2+late@timestep=200")
    assert isinstance(both, RerankedMethod)
    assert both.parts == (find_method("dinov2"), find_method("late@timestep=200"))
    both = find_method("words@image_size=96+late")
    assert isinstance(both, RerankedMethod)
    assert both.parts == (find_method("words@image_size=96"), late)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("late@magic=3", "'magic=3' is no change of features; .* block, .*, prompt, model, tau$"),
        ("late@timestep", "'timestep' is no change of features; write @KEY=VALUE"),
        ("late@", "'' is no change"),
        ("late@timestep=2@timestep=3", "gives timestep twice"),
        ("late@timestep=1000", "timestep must be a whole number from 0 to 999"),
        ("late@timestep=-1", "timestep must be a whole number from 0 to 999"),
        ("late@timestep=2.5", "timestep must be a whole number"),
        ("late@timestep=2+words", "no such method"),
        ("words+late@timestep=soon", "late@timestep=soon: timestep must be a whole number"),
        ("late@image_size=0", "image_size must be a whole number of at least 1"),
        ("late@iterations=²", "iterations must be a whole number of at least 1"),
        ("late@inversion=DDIM", "inversion must be one of none, noise, ddim, fixed-point"),
        ("late-by-class@tau=1", "tau must be a number from 0 to 1, less than 1"),
        ("late-by-class@tau=nan", "tau must be a number"),
        ("late-by-class@tau=high", "tau must be a number"),
        ("late@tau=0.5", "only methods by class do, such as late-by-class@tau=0.5"),
        ("rgb-patches@timestep=3", "rgb-patches compares no maps that @ could change"),
        ("class-oracle@timestep=3", "class-oracle compares no maps"),
        ("dinov2@timestep=3", "dinov2 compares no maps"),
        ("lat@timestep=3", "lat@timestep=3: no such method; one of "),
    ],
)
def test_changes_that_are_none(name: str, reason: str) -> None:
    with pytest.raises(WaldoError, match=f"^method .*{reason}"):
        find_method(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "late@block=up_blocks.9",
            "has no block up_blocks.9 on its UNet's up path; its blocks are named like up_",
        ),
        ("late@image_size=100", "the image size 100 is no multiple of"),
        (
            "late@steps=4",
            "steps belong to the inversion ddim or fixed-point, not to none",
        ),
        ("late@inversion=ddim@iterations=2", "iterations belong to the inversion fixed-point"),
    ],
)
def test_what_a_model_cannot_do_is_told_at_once(
    name: str, reason: str, benchmark: Benchmark, small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    with pytest.raises(WaldoError, match=f"^method {name}: .*{reason}"):
        scores_of(benchmark, ["late", name], small_tiny, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_ablations_are_for_who_asks(benchmark: Benchmark) -> None:
    usual = {method.name for method in select_methods([], benchmark)}
    assert METHODS.keys() - usual == {"late-uncentred", "consistent-whole-photo"}


# What they score


def test_scores_are_those_of_an_extractor_with_these_settings(
    benchmark: Benchmark,
    small_tiny: FeatureExtractor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = "up_blocks.1.attentions.0.transformer_blocks.0"
    settings: dict[str, dict[str, int | str]] = {
        "late@timestep=200": {"timestep": 200},
        "words@image_size=64": {"image_size": 64},
        "late-by-class@prompt=a cup, or a dog": {"prompt": "a cup, or a dog"},
        f"late@timestep=50@block={blocks}": {"timestep": 50, "block": blocks},
    }
    work = tmp_path / "work"
    found = scores_of(benchmark, ["late", *settings], small_tiny, work)
    assert not np.array_equal(found["late"], found["late@timestep=200"])
    for number, (name, values) in enumerate(settings.items()):
        plain = name.partition("@")[0]
        alone = scores_of(benchmark, [plain], small_tiny.changed(**values), tmp_path / str(number))
        np.testing.assert_array_equal(found[name], alone[plain], err_msg=name)
    # Each has an index of its own, which serves again, and serves other methods.
    assert len([*work.glob("folders-model-*")]) == 1 + len(settings)
    extracted: list[int] = []
    begin = FeatureExtractor.begin  # `extract` calls it too

    def told(self: FeatureExtractor, inputs: list) -> Callable[[], list]:
        extracted.append(len(inputs))
        return begin(self, inputs)

    monkeypatch.setattr(FeatureExtractor, "begin", told)
    again = scores_of(
        benchmark, ["late-uncentred@timestep=200", "late@timestep=0"], small_tiny, work
    )
    assert extracted == [1] * N_QUERIES * 2
    assert len([*work.glob("folders-model-*")]) == 1 + len(settings)
    # The model's own timestep.
    np.testing.assert_array_equal(again["late@timestep=0"], found["late"])


def test_random_weights_too(
    benchmark: Benchmark, small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    names = ["random-weights", "random-weights@image_size=64"]
    found = scores_of(benchmark, names, small_tiny, tmp_path / "work")
    alone = scores_of(benchmark, names[:1], small_tiny.changed(image_size=64), tmp_path / "alone")
    np.testing.assert_array_equal(found[names[1]], alone["random-weights"])
    assert not np.array_equal(found[names[0]], found[names[1]])


def test_halves_are_changed_each_for_itself(
    benchmark: Benchmark, small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    names = ["words+late@timestep=200", "late@timestep=200"]
    found = scores_of(benchmark, names, small_tiny, tmp_path / "work")
    # Six photos are all among the 400 best, so recall does not matter.
    np.testing.assert_array_equal(found[names[0]], found[names[1]])


def test_tau_is_eq_3s_whatever_the_models_rule(
    benchmark: Benchmark, small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    query = Query(benchmark.gallery[0], "dog")
    [maps] = small_tiny.extract(
        [load_model_input(query.photo, small_tiny.image_size, small_tiny.grid)]
    )
    logits = maps.semantic.astype(np.float64) @ small_tiny.class_vector("dog").astype(np.float64)
    attention = np.exp(logits / np.sqrt(small_tiny.dim))[maps.frame.valid()]
    share = (attention - attention.min()) / (attention.max() - attention.min())
    taus = (0.0, 0.25, 0.9)
    references = make_references([query] * len(taus), small_tiny, taus)
    cells = {tau: found.cells for tau, found in zip(taus, references, strict=True)}
    for tau, found in cells.items():
        np.testing.assert_array_equal(found[maps.frame.valid()], share > tau)
    assert cells[0.0].sum() > cells[0.25].sum() > cells[0.9].sum() > 0
    names = ["late-by-class", *(f"late-by-class@tau={tau}" for tau in cells)]
    found = scores_of(benchmark, names, small_tiny, tmp_path / "work", "none")
    # Another way to find the object in the query's photo needs no other index.
    assert len([*(tmp_path / "work").glob("folders-model-*")]) == 1
    # By hand: one token's best cosine, about the photos' mean; the mean over tokens.
    gallery = small_tiny.extract(
        [
            load_model_input(photo, small_tiny.image_size, small_tiny.grid)
            for photo in benchmark.gallery
        ]
    )
    tokens = [photo.appearance[photo.frame.valid()].astype(np.float64) for photo in gallery]
    mean = np.mean([photo.mean(axis=0) for photo in tokens], axis=0)
    for tau, chosen in cells.items():
        wanted = unit(maps.appearance[chosen].astype(np.float64) - mean)
        naive = [(unit(photo - mean) @ wanted.T).max(axis=0).mean() for photo in tokens]
        np.testing.assert_allclose(found[f"late-by-class@tau={tau}"][0], naive, atol=5e-3)
    rows = {tuple(scores[0]) for scores in found.values()}
    assert len(rows) == len(names)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_models_that_keep_eq_3_have_tau_07(
    benchmark: Benchmark, pipeline_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    extractor = FeatureExtractor.load(str(pipeline_folder("sd1")), "cpu", batch_size=2)
    names = ["late-by-class", "late-by-class@tau=0.7", "late-by-class@tau=0.1"]
    own, paper, other = scores_of(benchmark, names, extractor, tmp_path / "work").values()
    np.testing.assert_array_equal(own, paper)
    assert not np.array_equal(own, other)


def test_uncentred_is_late_by_plain_cosine(
    benchmark: Benchmark, small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    found = scores_of(benchmark, ["late", "late-uncentred"], small_tiny, tmp_path / "work", "none")
    asked = benchmark.queries[1].query
    reference = make_reference(asked, small_tiny).for_scoring(torch.device("cpu"))
    wanted = unit(reference.tokens.double().numpy())
    photos = [
        load_model_input(path, small_tiny.image_size, small_tiny.grid) for path in benchmark.gallery
    ]
    naive = []
    for maps in small_tiny.extract(photos):
        tokens = unit(maps.appearance[maps.frame.valid()].astype(np.float64))
        naive.append((tokens @ wanted.T).max(axis=0).mean())
    np.testing.assert_allclose(found["late-uncentred"][1], naive, atol=5e-3)
    assert np.abs(found["late"][1] - naive).max() > 0.05


def test_the_command(waldo: CommandLine, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "run.json"
    for subject in ("cup", "dog"):
        (root / subject).mkdir(parents=True)
        for i in range(2):
            save_photo(root / subject / f"{i}.png", 40, 30, seed=len(subject) * ord(subject[0]) + i)
    (root / "classes.json").write_text(json.dumps({"cup": "cup", "dog": "dog"}))
    assert len(read_folders(root).queries) == 4
    names = ["late", "late@prompt=a photo of an object", "late-by-class@tau=0.5"]
    asked = [argument for name in names for argument in ("--method", name)]
    result = waldo("evaluate", "folders", "--root", root, *asked, "--out", out)
    assert result.code == 0, result.err
    rows = [line for line in result.out.splitlines() if line.startswith("late")]
    assert [row[: len(name)] for row, name in zip(rows, names, strict=True)] == names
    run = json.loads(out.read_text())
    assert list(run["methods"]) == names
    assert set(run["timings"]["methods"]) == set(names)
    assert all(list(query["methods"]) == names for query in run["queries"])
    report = waldo("report", out, "--html", tmp_path / "run.html")
    assert all(name in report.out for name in names)
    line = waldo.refusal("evaluate", "folders", "--root", root, "--method", "late@block=mid")
    assert "has no block mid on its UNet's up path; its blocks are named like up_blocks." in line
