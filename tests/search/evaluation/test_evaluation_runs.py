"""Evaluations that are interrupted, run again, and asked for many queries at once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from indexer.reader import IndexReader
from search.clock import Clock
from search.evaluation import retrieval as run
from search.evaluation import run_store as kept
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.methods.methods import METHODS, Method
from search.evaluation.report import evaluation_json, write_run
from search.evaluation.retrieval import Evaluation, MethodResult, run_methods
from search.evaluation.run_store import RunScores, gallery_folder, open_scores, run_folder
from search.query import Query
from search.reference import make_reference
from search.rerank import score_references
from search.scores import SCORES, bind_score
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo
from tests.helpers.stores import make_photos

ROOT = Path(__file__).parents[3]
N_PHOTOS, N_QUERIES = 14, 11
NAMES = ("consistent", "late-by-class", "words", "rgb-patches", "class-oracle")


def photos_benchmark(folder: Path) -> Benchmark:
    """Each of the first photos looks for the one behind it; the photos are made but once."""
    photos = sorted(folder.glob("*.png")) or make_photos(folder, N_PHOTOS)
    places = np.arange(N_PHOTOS)
    queries = []
    for i in range(N_QUERIES):
        query = Query(photos[i], ("dog", "cup")[i % 2], box=(2.0, 2.0, 18.0, 14.0))
        queries.append(BenchmarkQuery(query, places == i + 1, places == i, confusable=True))
    return Benchmark("folders", photos, [{"dog", "cup"}] * N_PHOTOS, queries, [])


def methods() -> list[Method]:
    return [METHODS[name] for name in NAMES]


def scores_of(evaluation: Evaluation) -> dict[str, NDArray[np.float32]]:
    return {result.method.name: np.array(result.scores) for result in evaluation.results}


def assert_equal(
    found: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]
) -> None:
    assert list(found) == list(expected)
    for name, scores in expected.items():
        np.testing.assert_array_equal(found[name], scores, err_msg=name)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    """Three batches of queries, each in two groups."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept, "QUERIES_A_BATCH", 4)
        patched.setattr(run, "_TOGETHER", 3)
        yield


@pytest.fixture(scope="module")
def whole(
    tiny: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory, small_batches: None
) -> dict[str, NDArray[np.float32]]:
    """The scores of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    benchmark = photos_benchmark(folder / "photos")
    return scores_of(run_methods(benchmark, methods(), tiny, folder / "work"))


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Every batch and method whose scores are kept from now on."""
    found: list[tuple[int, str]] = []
    keep = RunScores.keep

    def told(self: RunScores, batch: int, scores: dict[str, NDArray[np.float32]]) -> None:
        found.extend((batch, name) for name in scores)
        keep(self, batch, scores)

    monkeypatch.setattr(RunScores, "keep", told)
    return found


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos each call of the model took, from now on."""
    found: list[int] = []
    extract = FeatureExtractor.extract

    def told(self: FeatureExtractor, inputs: list) -> list:
        found.append(len(inputs))
        return extract(self, inputs)

    monkeypatch.setattr(FeatureExtractor, "extract", told)
    return found


# Interrupted


def evaluate_and_die(number: int, where: str, photos: Path, work: Path) -> None:
    """In a process of its own: be killed at the given commit of a batch, "before" its scores are
    written, or "within": when they are, but the state that says so is not.
    """
    kept.QUERIES_A_BATCH, run._TOGETHER = 4, 3
    keep, write_state = RunScores.keep, kept.write_text_atomically
    commits = 0

    def counted(self: RunScores, batch: int, scores: dict[str, NDArray[np.float32]]) -> None:
        nonlocal commits
        commits += 1
        if commits == number and where == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        keep(self, batch, scores)

    def written(path: Path, text: str) -> None:
        if commits == number:
            os.kill(os.getpid(), signal.SIGKILL)
        write_state(path, text)

    RunScores.keep = counted  # type: ignore[method-assign]
    kept.write_text_atomically = written
    extractor = FeatureExtractor.load("tiny", device="cpu", batch_size=4)
    run_methods(photos_benchmark(photos), methods(), extractor, work)


def kill_run(number: int, where: str, photos: Path, work: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from tests.search.evaluation.test_evaluation_runs import evaluate_and_die; "
        "evaluate_and_die(int(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:]))"
    )
    arguments = [sys.executable, "-c", code, str(number), where, photos, work]
    killed = subprocess.run(arguments, cwd=ROOT, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL


def done_in(work: Path) -> set[tuple[int, str]]:
    """Batches and methods that an interrupted run has done."""
    [folder] = work.glob("folders-run-*")
    state = json.loads((folder / "state.json").read_text())
    return {(batch, name) for name, batches in state["done"].items() for batch in batches}


# Commits come in this order: three of the oracle, three of the model's methods, three of patches.
@pytest.mark.parametrize(
    ("number", "where", "n_done"), [(5, "within", 3 + 3), (8, "before", 3 + 10)]
)
def test_killed_run_goes_on_behind_its_last_batch(
    tiny: FeatureExtractor,
    photos: Path,
    tmp_path: Path,
    whole: dict[str, NDArray[np.float32]],
    committed: list[tuple[int, str]],
    extracted: list[int],
    number: int,
    where: str,
    n_done: int,
) -> None:
    benchmark, work = photos_benchmark(photos), tmp_path / "work"
    kill_run(number, where, photos, work)
    done = done_in(work)
    assert len(done) == n_done
    found = run_methods(benchmark, methods(), tiny, work)
    assert_equal(scores_of(found), whole)
    # Nothing that was done is done again, and nothing is left out.
    assert len(committed) == len(set(committed))
    assert set(committed) == {(batch, name) for batch in range(3) for name in NAMES} - done
    # The model sees the queries that were left, by box and by name, and the gallery not again.
    left = {batch for batch, name in committed if name == "consistent"}
    queries = sum(min(4, N_QUERIES - 4 * batch) for batch in left)
    assert sum(extracted) == 2 * queries


def test_scores_cut_short_are_made_again(
    tiny: FeatureExtractor, photos: Path, tmp_path: Path, committed: list[tuple[int, str]]
) -> None:
    benchmark = photos_benchmark(photos)
    chosen = [METHODS["rgb-histogram"], METHODS["rgb-patches"], METHODS["class-oracle"]]
    first = run_methods(benchmark, chosen, tiny, tmp_path)
    expected = scores_of(first)
    committed.clear()
    for name, size in (("rgb-patches", 0), ("class-oracle", 200)):
        os.truncate(first.folder / f"{name}.npy", size)
    assert_equal(scores_of(run_methods(benchmark, chosen, tiny, tmp_path)), expected)
    assert {name for _, name in committed} == {"rgb-patches", "class-oracle"}
    committed.clear()
    (first.folder / "state.json").write_text("{")
    assert_equal(scores_of(run_methods(benchmark, chosen, tiny, tmp_path)), expected)
    assert len(committed) == 3 * len(chosen)


def test_one_process_a_run(tmp_path: Path) -> None:
    with open_scores(tmp_path / "run", 3, 2) as scores:
        scores.keep(0, {"late": np.ones((3, 2), dtype=np.float32)})
        with (
            pytest.raises(WaldoError, match="under way in another process"),
            open_scores(tmp_path / "run", 3, 2),
        ):
            pass
    with open_scores(tmp_path / "run", 3, 2) as scores:
        assert scores.is_done("late", 0)
        assert not scores.is_done("words", 0)


# What is used again, and what is not


def test_index_is_used_again_and_scores_are_not(
    waldo: CommandLine, photos: Path, tmp_path: Path, extracted: list[int]
) -> None:
    for i in range(4):
        folder = photos / ("mug", "cup")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        save_photo(folder / f"{i}.png", 60, 40, seed=i)
    command = ("evaluate", "folders", "--root", photos, "--method", "late", "--json")
    first = waldo(*command)
    assert first.code == 0, first.err
    assert sum(extracted) == 4 + 4
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "waldo" / "evaluate"
    [folder] = cache.iterdir()
    assert folder.name.startswith("folders-model-")
    assert waldo("info", "--index", folder / "index").code == 0
    extracted.clear()
    again = waldo(*command)
    assert extracted == [1] * 4  # the queries
    reports = [json.loads(result.out) for result in (first, again)]
    for report in reports:
        timings = report.pop("timings")
        assert set(timings) == {"indexing", "query features", "fetch", "methods"}
        assert set(timings["methods"]) == {"late"}
        assert timings["methods"]["late"] > 0
    assert reports[0] == reports[1]
    assert [*cache.iterdir()] == [folder]
    elsewhere = tmp_path / "elsewhere"
    assert waldo(*command, "--work", elsewhere).code == 0
    assert [path.name for path in elsewhere.iterdir()] == [folder.name]
    assert [*cache.iterdir()] == [folder]


def test_what_changes_scores_is_another_run(
    tiny: FeatureExtractor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = photos_benchmark(photos)

    def folders(asked: Benchmark, extractor: FeatureExtractor, codec: str) -> tuple[Path, Path]:
        settings = [extractor.fingerprint(), codec]
        gallery = gallery_folder(tmp_path, asked, "model", extractor, codec)
        return gallery, run_folder(tmp_path, asked, settings)

    index, scores = folders(benchmark, tiny, "standard")
    assert folders(photos_benchmark(photos), tiny, "standard") == (index, scores)
    other_settings = FeatureExtractor(tiny.model, replace(tiny.settings, timestep=100), 4)
    short = replace(benchmark, gallery=benchmark.gallery[1:])
    for changed in (
        folders(benchmark, tiny, "high"),
        folders(benchmark, other_settings, "standard"),
        folders(short, tiny, "standard"),
    ):
        assert index not in changed
        assert scores not in changed
    asked = benchmark.queries[0]
    for query in (
        replace(asked.query, box=(2.0, 2.0, 18.0, 15.0)),
        replace(asked.query, class_name="bowl"),
        replace(asked.query, mask=photos / "photo-000.png", box=None),
    ):
        queries = [replace(asked, query=query), *benchmark.queries[1:]]
        found = folders(replace(benchmark, queries=queries), tiny, "standard")
        assert found[0] == index
        assert found[1] != scores
    with monkeypatch.context() as patched:
        patched.setattr(kept, "_source_digest", lambda: "another waldo")
        found = folders(benchmark, tiny, "standard")
        assert found[0] == index
        assert found[1] != scores
    save_photo(photos / "photo-003.png", 40, 30, seed=99)
    found = folders(benchmark, tiny, "standard")
    assert index not in found
    assert scores not in found
    (photos / "photo-005.png").unlink()
    with pytest.raises(WaldoError, match=r"photo-005\.png: cannot be read"):
        folders(benchmark, tiny, "standard")


def test_changed_settings_score_everything_anew(
    tiny: FeatureExtractor, photos: Path, tmp_path: Path, committed: list[tuple[int, str]]
) -> None:
    benchmark = photos_benchmark(photos)
    chosen = [METHODS["rgb-patches"], METHODS["class-oracle"]]
    expected = scores_of(run_methods(benchmark, chosen, tiny, tmp_path))
    committed.clear()
    assert_equal(scores_of(run_methods(benchmark, chosen, tiny, tmp_path)), expected)
    assert committed == []
    # The codec is of the model's maps, but a run is one whole.
    found = run_methods(benchmark, chosen, tiny, tmp_path, quality="high")
    assert_equal(scores_of(found), expected)
    assert len(committed) == 3 * len(chosen)
    assert len([*tmp_path.glob("folders-run-*")]) == 2
    assert len([*tmp_path.glob("folders-rgb-patches-*")]) == 1


# Many queries at once


def test_many_queries_at_once_score_as_each_alone(
    tiny: FeatureExtractor, photos: Path, tmp_path: Path
) -> None:
    benchmark = photos_benchmark(photos)
    chosen = [METHODS[name] for name in SCORES]
    found = scores_of(run_methods(benchmark, chosen, tiny, tmp_path))
    [folder] = tmp_path.glob("folders-model-*")
    with IndexReader.open(folder / "index") as reader:
        ids = {record.path: record.id for record in reader.photos(reader.ids)}
        gallery = np.array([ids[path.resolve()] for path in benchmark.gallery])
        for row, asked in enumerate(benchmark.queries[:5]):
            reference = make_reference(asked.query, tiny).for_scoring(torch.device("cpu"))
            for name, score in SCORES.items():
                bound = bind_score(score, tiny, [reference])
                alone = score_references(reader, gallery, [reference], [bound], Clock())
                # Best cells are chosen in bfloat16, whose rounding depends on a product's shape.
                expected = alone.by_score[name][0]
                np.testing.assert_allclose(found[name][row], expected, atol=2e-3, rtol=1e-4)


# The run's file


def test_run_file_is_written_whole_or_not_at_all(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.evaluation.report._RANKED", 5)
    benchmark = photos_benchmark(photos)
    scores = np.random.default_rng(0).random((N_QUERIES, N_PHOTOS), dtype=np.float32)
    found = Evaluation(
        [MethodResult(METHODS["late"], scores)], {"indexing": 1.5, "late": 0.5}, photos
    )
    report = evaluation_json(benchmark, {"model": "tiny"}, "standard", found, None)
    path = tmp_path / "run.json"
    write_run(path, report, benchmark, found)
    content = json.loads(path.read_text())
    assert {key: content[key] for key in report} == report
    assert content["timings"] == {"indexing": 1.5, "methods": {"late": 0.5}}
    rankings = [asked["methods"]["late"]["ranking"] for asked in content["queries"]]
    np.testing.assert_array_equal(rankings, np.argsort(-scores, axis=1)[:, :5])

    def broken(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.evaluation.report.query_precision", broken)
    with pytest.raises(KeyboardInterrupt):
        write_run(path, report, benchmark, found)
    assert json.loads(path.read_text()) == content
    assert [*tmp_path.glob("run.json*")] == [path]
