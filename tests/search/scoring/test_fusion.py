"""Fusion weights: fitted to labelled queries, kept with an index, used by its searches."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.metrics import average_precision_score

import search.scoring.fusion as fusion
from features.errors import WaldoError
from features.extractor import FeatureExtractor
from indexer.errors import IndexBusyError, IndexDamagedError, IndexMissingError
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.store.locks import writer_lock
from indexer.store.manifest import MANIFEST_NAME, read_manifest
from indexer.upkeep.check import describe
from indexer.upkeep.compact import compact
from indexer.upkeep.fusion_weights import store_weights
from indexer.upkeep.remove import remove
from search.evaluation.benchmarks.benchmark import BenchmarkQuery
from search.evaluation.fitting import Components, Fit, fit_weights
from search.index import Index
from search.query import Query, SearchOptions
from search.scoring.fusion import FusionWeights, default_weights, stored_weights
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo, smooth_pixels
from tests.helpers.stores import make_photos, run

N_OBJECTS, PHOTOS, OTHERS = 16, 3, 30
NOTHING = FusionWeights(0.0, 0.0)


def make_queries(
    class_name: str | None = "mug", n_objects: int = N_OBJECTS
) -> list[BenchmarkQuery]:
    """Every photo of every object is a query, as in folders; other photos follow them."""
    shown = np.repeat(np.arange(n_objects), PHOTOS)
    shown = np.concatenate([shown, -np.ones(OTHERS, int)])
    queries = []
    for row in range(n_objects * PHOTOS):
        itself = np.array([row])
        relevant = np.setdiff1d(np.flatnonzero(shown == shown[row]), itself)
        queries.append(
            BenchmarkQuery(Query(Path(f"{row}.png"), class_name), relevant, itself, True)
        )
    return queries


def relevant_flags(queries: list[BenchmarkQuery]) -> np.ndarray:
    """Which photos each query looks for, (n_queries, n_gallery) bool."""
    gallery = np.arange(len(queries) + OTHERS)
    return np.stack([np.isin(gallery, query.relevant) for query in queries])


def make_components(
    queries: list[BenchmarkQuery], seed: int = 0, **signals: tuple[float, float]
) -> Components:
    """Independent noise, and more of it where a photo is relevant: (spread, what is more)."""
    rng = np.random.default_rng(seed)
    relevant = relevant_flags(queries)
    parts = {}
    for name in ("likeness", "agreement", "class_evidence"):
        spread, more = signals.get(name, (0.0, 0.0))
        noise = rng.normal(size=relevant.shape) * spread
        parts[name] = (noise + more * relevant).astype(np.float32)
    return Components(**parts)


def naive_precision(
    queries: list[BenchmarkQuery], components: Components, weights: FusionWeights
) -> float:
    """mAP by scikit-learn, the fused score photo by photo."""
    precisions = []
    for row, query in enumerate(queries):
        scores = []
        ranked = [photo for photo in range(components.likeness.shape[1]) if photo != row]
        for photo in ranked:
            consistent = components.likeness[row, photo]
            consistent += weights.agreement * components.agreement[row, photo]
            consistent /= 1 + weights.agreement
            evidence = components.class_evidence[row, photo]
            scores.append(consistent + weights.class_evidence * evidence)
        precisions.append(average_precision_score(np.isin(ranked, query.relevant), scores))
    return float(np.mean(precisions))


def test_the_weights_that_were_planted_are_found() -> None:
    queries = make_queries()
    # Of normal evidence each kind counts by its signal over its variance: 20, 12 and 0.2.
    components = make_components(
        queries, likeness=(0.05, 0.05), agreement=(0.05, 0.03), class_evidence=(5.0, 5.0)
    )
    fit = fit_weights(queries, components, NOTHING)
    best_agreement = 0.6
    best_evidence = 0.01 / (1 + best_agreement)  # beside a weighted mean of the other two
    assert fit.weights.agreement in (0.2, 0.3, 0.4, 0.6, 0.8)
    assert best_evidence / 2.5 < fit.weights.class_evidence < best_evidence * 2.5
    assert fit.changed
    assert fit.gain_interval[0] > 0
    assert (fit.n_queries, fit.n_objects) == (N_OBJECTS * PHOTOS, N_OBJECTS)
    assert fit.precision_default == pytest.approx(naive_precision(queries, components, NOTHING))
    fitted = naive_precision(queries, components, fit.weights)
    assert fit.precision_fitted == pytest.approx(fitted)
    best = naive_precision(queries, components, FusionWeights(best_agreement, best_evidence))
    assert fitted > fit.precision_default + 0.8 * (best - fit.precision_default)
    assert fit.precision_default < fit.precision_held_out < fitted + 0.02


def test_weights_that_only_do_harm_go_to_zero() -> None:
    queries = make_queries()
    components = make_components(
        queries, likeness=(0.05, 0.1), agreement=(0.3, 0.0), class_evidence=(5.0, 0.0)
    )
    fit = fit_weights(queries, components, FusionWeights(0.8, 0.05))
    assert fit.weights.agreement <= 0.1
    assert fit.weights.class_evidence <= 0.002
    assert fit.changed


def test_the_default_stays_where_nothing_is_gained() -> None:
    queries = make_queries()
    components = make_components(
        queries, likeness=(0.05, 0.08), agreement=(0.05, 0.0), class_evidence=(5.0, 0.0)
    )
    fit = fit_weights(queries, components, NOTHING)
    assert fit.weights == NOTHING
    assert not fit.changed
    assert fit.gain_interval == (0.0, 0.0)
    assert fit.precision_fitted == fit.precision_default
    assert "no weights are clearly better" in fit.verdict


def test_of_equally_good_weights_the_nearest_are_taken() -> None:
    queries = make_queries()
    relevant = relevant_flags(queries).astype(np.float32)
    # Wrong photos are a little liker; any weight of agreement from 0.1 puts that right.
    components = Components(0.05 * (1 - relevant), relevant, np.zeros_like(relevant))
    fit = fit_weights(queries, components, NOTHING)
    assert fit.weights == FusionWeights(0.1, 0.0)
    assert fit.precision_fitted == fit.precision_held_out == 1.0


def test_what_is_stored_is_never_worse_on_objects_it_was_not_fitted_to() -> None:
    queries, changed = make_queries(n_objects=6), 0
    for seed in range(12):
        components = make_components(
            queries, seed, likeness=(0.05, 0.08), agreement=(0.05, 0.01), class_evidence=(5.0, 1.0)
        )
        fit = fit_weights(queries, components, NOTHING)
        changed += fit.changed
        assert not fit.changed or fit.precision_held_out >= fit.precision_default
    assert changed < 12


def test_without_class_names_their_weight_stays() -> None:
    queries = make_queries(class_name=None)
    components = make_components(queries, likeness=(0.05, 0.03), agreement=(0.05, 0.1))
    fit = fit_weights(queries, components, FusionWeights(0.0, 0.007))
    assert fit.weights.class_evidence == 0.007
    assert fit.weights.agreement > 0


def test_a_few_objects_are_too_few() -> None:
    queries = make_queries(n_objects=5)
    components = make_components(queries, likeness=(0.05, 0.03))
    with pytest.raises(WaldoError, match=r"5 objects are too few .* at least 6"):
        fit_weights(queries, components, NOTHING)


def test_a_fit_as_json() -> None:
    fit = Fit(NOTHING, FusionWeights(0.3, 0.01), 0.5, 0.6, (0.05, 0.15), 0.58, 40, 16)
    assert fit.as_json() == {
        "queries": 40,
        "objects": 16,
        "changed": True,
        "default": {"agreement": 0.0, "class_evidence": 0.0, "mAP": 0.5},
        "fitted": {"agreement": 0.3, "class_evidence": 0.01, "mAP": 0.6},
        "gain_interval": [0.05, 0.15],
        "mAP_held_out": 0.58,
    }
    assert fit.verdict.endswith("+5.0 to +15.0; stored for the score fused")


def test_an_index_keeps_its_weights(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    make_photos(photos, 9)
    run(photos, index)
    before = (index / MANIFEST_NAME).read_bytes()
    assert "weights" not in json.loads(before)
    assert "weights" not in describe(index)
    store_weights(index, None)
    assert (index / MANIFEST_NAME).read_bytes() == before

    weights = {"agreement": 0.3, "class_evidence": 0.004}
    generation = read_manifest(index).generation
    store_weights(index, weights)
    assert read_manifest(index).generation == generation + 1
    make_photos(photos, 3, first=20)
    run(photos, index)
    remove(index, [photos / "photo-001.png"])
    assert compact(index).changed
    assert read_manifest(index).weights == weights
    assert describe(index)["weights"] == weights
    with IndexReader.open(index) as reader:
        assert reader.weights == weights
    store_weights(index, None)
    assert "weights" not in json.loads((index / MANIFEST_NAME).read_text())


def test_weights_are_stored_by_one_writer(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    make_photos(photos, 2)
    run(photos, index)
    with writer_lock(index), pytest.raises(IndexBusyError):
        store_weights(index, {"agreement": 0.0, "class_evidence": 0.0})
    assert read_manifest(index).weights is None
    with pytest.raises(IndexMissingError):
        store_weights(tmp_path / "nowhere", None)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "stored",
    [
        {"agreement": 0.2},
        {"agreement": 0.2, "class_evidence": 0.1, "taste": 1.0},
        {"agreement": "0.2", "class_evidence": 0.1},
        {"agreement": -0.2, "class_evidence": 0.1},
        {"agreement": 0.2, "class_evidence": float("nan")},
        {"agreement": 0.2, "class_evidence": None},
        [0.2, 0.1],
        "none",
    ],
)
def test_weights_that_are_none(stored: Any) -> None:
    with pytest.raises(IndexDamagedError, match=r"holiday: .* no fusion weights .* fit-weights"):
        stored_weights(stored, Path("holiday"))


def test_stored_weights_are_those_that_were_fitted() -> None:
    weights = FusionWeights(0.4, 0.002)
    assert stored_weights(json.loads(json.dumps(asdict(weights))), Path()) == weights
    assert stored_weights(None, Path()) is None


def test_searches_use_the_weights_of_their_index(
    small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(6):
        save_photo(tmp_path / "photos" / f"{seed}.png", 96, 80, seed=seed)
    index_photos([tmp_path / "photos"], tmp_path / "index", small_tiny)
    query = Query(tmp_path / "photos" / "2.png", "dog", box=(10, 10, 70, 60))

    def scores(weights: FusionWeights | None, score: str = "fused") -> np.ndarray:
        store_weights(tmp_path / "index", None if weights is None else asdict(weights))
        with Index(IndexReader.open(tmp_path / "index"), small_tiny) as index:
            matches = index.search(query, SearchOptions(score=score)).matches
        return np.array([m.score for m in sorted(matches, key=lambda match: match.id)])

    likeness = scores(NOTHING)
    np.testing.assert_allclose(likeness, scores(NOTHING, "late"), atol=1e-6)
    agreement = 2 * scores(FusionWeights(1.0, 0.0)) - likeness
    evidence = scores(FusionWeights(0.0, 1.0)) - likeness
    assert np.ptp(agreement) > 0.01
    assert (evidence < 0).all()
    assert np.ptp(evidence) > 0.01
    default = default_weights("tiny")
    for weights in (FusionWeights(0.5, 0.02), None):
        a, c = asdict(weights or default).values()
        expected = (likeness + a * agreement) / (1 + a) + c * evidence
        np.testing.assert_allclose(scores(weights), expected, atol=1e-5)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Six objects of two classes, two photos each: the same colours, darker or lighter."""
    root = tmp_path / "collection"
    for seed in range(6):
        (root / f"object{seed}").mkdir(parents=True)
        for i, light in enumerate((0.97, 1.03)):
            picture = Image.fromarray(smooth_pixels(120, 90, seed))
            ImageEnhance.Brightness(picture).enhance(light).save(
                root / f"object{seed}" / f"{i}.png"
            )
    classes = {f"object{seed}": ("mug", "kettle")[seed % 2] for seed in range(6)}
    (root / "classes.json").write_text(json.dumps(classes))
    return root


@pytest.mark.usefixtures("small_maps")
def test_fit_weights_of_an_index(
    waldo: CommandLine, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    assert waldo("index", collection, "--index", index, "--device", "cpu").code == 0
    asked = ("fit-weights", "folders", "--root", collection, "--index", index, "--device", "cpu")
    # By class evidence alone an object is not told from others of its class.
    monkeypatch.setitem(fusion._MODEL_WEIGHTS, "tiny", FusionWeights(0.2, 1000.0))
    result = waldo(*asked, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert (report["queries"], report["objects"], report["changed"]) == (12, 6, True)
    assert report["default"]["class_evidence"] == 1000.0
    assert report["fitted"]["mAP"] > report["default"]["mAP"]
    fitted = {name: report["fitted"][name] for name in ("agreement", "class_evidence")}
    assert read_manifest(index).weights == fitted
    assert "the weights of the score fused were fitted" in waldo("info", "--index", index).out

    # Now the default finds them all, so nothing is clearly better, and what was stored goes.
    monkeypatch.setitem(fusion._MODEL_WEIGHTS, "tiny", FusionWeights(0.2, 0.0))
    result = waldo(*asked)
    assert result.code == 0, result.err
    assert "no weights are clearly better than the default" in result.out
    assert [line.split()[0] for line in result.out.splitlines()[:3]] == [
        *("weights", "default", "fitted"),
    ]
    assert read_manifest(index).weights is None
    kept = Path(os.environ["XDG_CACHE_HOME"]) / "waldo" / "evaluate"
    assert not list(kept.glob("folders-run-*"))
    assert len(list(kept.glob("folders-model-*"))) == 1


def test_fit_weights_refuses_what_it_cannot_use(
    waldo: CommandLine, collection: Path, tmp_path: Path
) -> None:
    asked = ("fit-weights", "folders", "--root", collection, "--index")
    assert "no index here" in waldo.refusal(*asked, tmp_path / "nowhere")
    index = tmp_path / "index"
    make_photos(tmp_path / "photos", 2)
    run(tmp_path / "photos", index)
    line = waldo.refusal("fit-weights", "perseg", "--root", collection, "--index", index)
    assert "no such protocol" in line
