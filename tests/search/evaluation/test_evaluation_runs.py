"""Evaluations that are interrupted, run again, and asked for many queries at once."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from indexer.reader import IndexReader
from search.clock import Clock
from search.evaluation import run_store
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.methods.methods import METHODS, Method
from search.evaluation.metrics.measured import QueryResult
from search.evaluation.report import evaluation_json, write_searches_run
from search.evaluation.retrieval import Evaluation, MethodResult, run_methods
from search.evaluation.run_store import RunScores, gallery_folder, open_scores, run_folder
from search.query import Query
from search.reference import make_reference
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES, bind_score
from tests.helpers.benchmarks.query_results import kept, whole_scores
from tests.helpers.command_line import CommandLine
from tests.helpers.killed import kill_myself, run_forked, run_until_killed
from tests.helpers.pictures import save_photo
from tests.helpers.stores import make_photos

N_PHOTOS, N_QUERIES, BATCH = 6, 5, 2
N_BATCHES = 3
NAMES = ("consistent", "late-by-class", "words", "rgb-patches", "class-oracle")


def photos_benchmark(folder: Path) -> Benchmark:
    """Each of the first photos looks for the next one; the photos are made only once."""
    photos = sorted(folder.glob("*.png")) or make_photos(folder, N_PHOTOS)
    queries = []
    for i in range(N_QUERIES):
        query = Query(photos[i], ("dog", "cup")[i % 2], box=(2.0, 2.0, 18.0, 14.0))
        queries.append(BenchmarkQuery(query, np.array([i + 1]), np.array([i]), confusable=True))
    return Benchmark("folders", photos, [{"dog", "cup"}] * N_PHOTOS, queries, [])


def methods() -> list[Method]:
    return [METHODS[name] for name in NAMES]


def scores_of(evaluation: Evaluation) -> dict[str, NDArray[np.float32]]:
    return {result.method.name: whole_scores(result.queries) for result in evaluation.results}


def results(rows: NDArray[np.floating]) -> list[QueryResult]:
    """What is kept of the scores of queries that nothing answers, (n_queries, n_gallery)."""
    asked = BenchmarkQuery(Query(Path("q.png")), np.array([], int), np.array([], int), False)
    gallery = [Path("p.png")] * rows.shape[1]
    return kept(Benchmark("folders", gallery, None, [asked] * len(rows), []), rows.astype("f4"))


def assert_equal(
    found: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]
) -> None:
    assert list(found) == list(expected)
    for name, scores in expected.items():
        np.testing.assert_array_equal(found[name], scores, err_msg=name)


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    """Three batches of queries; one thread, as in the processes that are killed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_store, "QUERIES_PER_BATCH", BATCH)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small(tiny: FeatureExtractor) -> FeatureExtractor:
    """The bundled model with small maps."""
    return FeatureExtractor(tiny.model, replace(tiny.settings, image_size=96), batch_size=4)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@dataclass(frozen=True)
class WholeRun:
    """A run that nothing disturbed. photos: its photos, which nobody changes. work: its work
    folder, with the indexes of the gallery alone.
    """

    photos: Path
    work: Path
    scores: dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def whole(
    small: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory, small_batches: None
) -> WholeRun:
    folder = tmp_path_factory.mktemp("whole")
    benchmark, work = photos_benchmark(folder / "photos"), folder / "work"
    found = run_methods(benchmark, methods(), small, work)
    scores = scores_of(found)
    shutil.rmtree(found.folder)
    return WholeRun(folder / "photos", work, scores)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Every batch and method whose scores are stored from now on."""
    found: list[tuple[int, str]] = []
    keep = RunScores.keep

    def watched(self: RunScores, batch: int, method: str, results: list[QueryResult]) -> None:
        found.append((batch, method))
        keep(self, batch, method, results)

    monkeypatch.setattr(RunScores, "keep", watched)
    return found


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos each call of the model took, from now on."""
    found: list[int] = []
    begin = FeatureExtractor.begin  # `extract` calls it too

    def watched(self: FeatureExtractor, inputs: list) -> Callable[[], list]:
        found.append(len(inputs))
        return begin(self, inputs)

    monkeypatch.setattr(FeatureExtractor, "begin", watched)
    return found


# Interrupted


def test_other_answers_are_another_run(photos: Path, tmp_path: Path) -> None:
    """Metrics are kept, not scores: those of labels that were mended since are not used again."""
    benchmark = photos_benchmark(photos)
    first, *others = benchmark.queries
    mended = [
        replace(first, relevant=np.array([1, 2])),
        replace(first, ignored=np.array([0, 3])),
        replace(first, hard=np.array([1])),
        replace(first, missing=1),
        replace(first, boxes={1: ((0.0, 0.0, 4.0, 4.0),)}),
    ]
    other = [replace(benchmark, queries=[query, *others]) for query in mended]
    other.append(replace(benchmark, gallery_classes=[{"dog"}] * N_PHOTOS))
    other.append(replace(benchmark, metrics=("NDCG",)))
    other.append(replace(benchmark, parts={"small": [first] + [None] * len(others)}))
    gallery = FilesOnDisk(benchmark.gallery)
    folders = [run_folder(tmp_path, each, gallery, []) for each in (benchmark, *other)]
    assert len(set(folders)) == len(folders)
    assert run_folder(tmp_path, photos_benchmark(photos), gallery, []) == folders[0]


# Files are stored batch by batch: of the oracle, the model's three methods and patches.
@pytest.mark.parametrize(("number", "half", "n_done"), [(5, True, 4), (9, False, 8)])
def test_killed_run_continues_after_its_last_file(
    small: FeatureExtractor,
    whole: WholeRun,
    tmp_path: Path,
    stored: list[tuple[int, str]],
    extracted: list[int],
    number: int,
    half: bool,
    n_done: int,
) -> None:
    """Killed while it writes a file of scores, half written or not begun."""
    work = tmp_path / "work"
    shutil.copytree(whole.work, work)
    benchmark = photos_benchmark(whole.photos)
    write, files = run_store.write_bytes_atomically, 0

    def die(path: Path, content: bytes) -> None:
        nonlocal files
        files += path.suffix == ".npz"
        if files == number:
            if half:
                path.with_name(f"{path.name}.tmp").write_bytes(content[:150])
            kill_myself()
        write(path, content)

    def run_and_die() -> None:
        run_store.write_bytes_atomically = die
        run_methods(benchmark, methods(), small, work)

    run_until_killed(run_and_die)
    [folder] = work.glob("folders-run-*")
    done = {
        (int(batch), name)
        for path in folder.glob("*.npz")
        for batch, _, name in [path.stem.partition("-")]
    }
    assert len(done) == n_done
    found = run_methods(benchmark, methods(), small, work)
    assert_equal(scores_of(found), whole.scores)
    # Nothing that was done is done again, and nothing is left out.
    assert len(stored) == len(set(stored))
    assert set(stored) == {(batch, name) for batch in range(N_BATCHES) for name in NAMES} - done
    # The model sees each query that was left once, by box and by name, and the gallery not again.
    by_model = {batch for batch, name in stored if name in NAMES[:3]}
    assert sum(extracted) == sum(min(BATCH, N_QUERIES - BATCH * batch) for batch in by_model)
    assert not [*folder.glob("*.tmp")]


def test_scores_that_cannot_be_read_are_made_again(
    small: FeatureExtractor, whole: WholeRun, tmp_path: Path, stored: list[tuple[int, str]]
) -> None:
    benchmark = photos_benchmark(whole.photos)
    chosen = [METHODS["rgb-histogram"], METHODS["rgb-patches"], METHODS["class-oracle"]]
    first = run_methods(benchmark, chosen, small, tmp_path)
    expected = scores_of(first)
    stored.clear()
    damage = [(0, "rgb-patches", 0), (1, "class-oracle", 60), (2, "class-oracle", 130)]
    for batch, name, size in damage:
        path = first.folder / f"{batch:05}-{name}.npz"
        assert path.stat().st_size > size
        os.truncate(path, size)
    with (first.folder / "00001-rgb-patches.npz").open("wb") as file:
        np.save(file, np.zeros((BATCH, 3), dtype=np.float32))
    (first.folder / "00002-rgb-patches.npz").write_bytes(b"no array")
    shutil.copy(first.folder / "00002-rgb-histogram.npz", first.folder / "00001-rgb-histogram.npz")
    (first.folder / "seconds.json").write_text("{")
    assert_equal(scores_of(run_methods(benchmark, chosen, small, tmp_path)), expected)
    damaged = {(batch, name) for batch, name, _ in damage}
    assert set(stored) == damaged | {
        *((1, "rgb-patches"), (2, "rgb-patches"), (1, "rgb-histogram"))
    }


def test_one_process_per_run(tmp_path: Path) -> None:
    def open_too() -> None:
        with (
            pytest.raises(WaldoError, match="another process is running this evaluation"),
            open_scores(tmp_path / "run", 2, 2),
        ):
            pass

    with open_scores(tmp_path / "run", 2, 2) as scores:
        with scores.clock("late"):
            scores.keep(0, "late", results(np.ones((2, 2))))
        spent = scores.clock.seconds["late"]
        scores.keep(0, "pdm", results(np.ones((2, 2))))
        assert run_forked(open_too) == 0
    with open_scores(tmp_path / "run", 2, 2) as scores:
        assert scores.is_done("late", 0)
        assert not scores.is_done("words", 0)
        assert scores.clock.seconds == {"late": spent}


def test_a_full_disk_loses_no_more_than_a_batch(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = np.random.default_rng(0).random((4, 1000), dtype=np.float32)
    with open_scores(tmp_path, 4, 1000) as scores:
        scores.keep(0, "late", results(rows[:2]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                scores.keep(1, "late", results(rows[2:]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [scores.is_done("late", batch) for batch in range(2)] == [True, False]
        assert not [*tmp_path.glob("*.tmp")]
        scores.keep(1, "late", results(rows[2:]))
        np.testing.assert_array_equal(whole_scores(scores.of("late")), rows)


def test_any_method_gets_files_of_its_own(tmp_path: Path) -> None:
    long = "ä" * 100
    names = ["a", "a b", "a/b", "a%2Fb", "..", "\udcff", "00000-a", long, f"{long}b"]
    with open_scores(tmp_path, 1, 1) as scores:
        for number, name in enumerate(names):
            scores.keep(0, name, results(np.array([[number]])))
        assert [scores.of(name)[0].scores.item() for name in names] == [*range(len(names))]


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
    small: FeatureExtractor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = photos_benchmark(photos)

    def folders(asked: Benchmark, extractor: FeatureExtractor, codec: str) -> tuple[Path, Path]:
        settings = [extractor.fingerprint(), codec]
        on_disk = FilesOnDisk(asked.gallery)
        gallery = gallery_folder(tmp_path, asked.protocol, on_disk, "model", extractor, codec)
        return gallery, run_folder(tmp_path, asked, on_disk, settings)

    index, scores = folders(benchmark, small, "standard")
    assert folders(photos_benchmark(photos), small, "standard") == (index, scores)
    other_settings = FeatureExtractor(small.model, replace(small.settings, timestep=100), 4)
    short = replace(benchmark, gallery=benchmark.gallery[1:])
    for changed in (
        folders(benchmark, small, "high"),
        folders(benchmark, other_settings, "standard"),
        folders(short, small, "standard"),
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
        found = folders(replace(benchmark, queries=queries), small, "standard")
        assert found[0] == index
        assert found[1] != scores
    with monkeypatch.context() as patched:
        patched.setattr(run_store, "RESULTS_VERSION", run_store.RESULTS_VERSION + 1)
        found = folders(benchmark, small, "standard")
        assert found[0] == index
        assert found[1] != scores
    save_photo(photos / "photo-003.png", 40, 30, seed=99)
    found = folders(benchmark, small, "standard")
    assert index not in found
    assert scores not in found
    (photos / "photo-005.png").unlink()
    with pytest.raises(WaldoError, match=r"photo-005\.png: cannot be read"):
        folders(benchmark, small, "standard")


def test_changed_settings_score_everything_anew(
    small: FeatureExtractor, photos: Path, tmp_path: Path, stored: list[tuple[int, str]]
) -> None:
    benchmark = photos_benchmark(photos)
    chosen = [METHODS["rgb-patches"], METHODS["class-oracle"]]
    expected = scores_of(run_methods(benchmark, chosen, small, tmp_path))
    stored.clear()
    assert_equal(scores_of(run_methods(benchmark, chosen, small, tmp_path)), expected)
    assert stored == []
    # The codec is of the model's maps, but a run is one whole.
    found = run_methods(benchmark, chosen, small, tmp_path, quality="high")
    assert_equal(scores_of(found), expected)
    assert len(stored) == N_BATCHES * len(chosen)
    assert len([*tmp_path.glob("folders-run-*")]) == 2
    assert len([*tmp_path.glob("folders-rgb-patches-*")]) == 1


# Many queries at once


def test_many_queries_at_once_score_as_each_alone(
    small: FeatureExtractor, whole: WholeRun, tmp_path: Path
) -> None:
    shutil.copytree(whole.work, tmp_path / "work")
    benchmark = photos_benchmark(whole.photos)
    chosen = [METHODS[name] for name in SCORES]
    found = scores_of(run_methods(benchmark, chosen, small, tmp_path / "work"))
    [folder] = (tmp_path / "work").glob("folders-model-*")
    with IndexReader.open(folder / "index") as reader:
        ids = {record.path: record.id for record in reader.photos(reader.ids)}
        gallery = np.array([ids[path.resolve()] for path in benchmark.gallery])
        for row, asked in enumerate(benchmark.queries):
            reference = make_reference(asked.query, small).for_scoring(torch.device("cpu"))
            for name, score in SCORES.items():
                bound = bind_score(score, small, [reference])
                alone = score_references(reader, gallery, [reference], [bound], Clock())
                # Best cells are chosen in bfloat16, whose rounding depends on a product's shape.
                expected = alone.by_score[name][0]
                np.testing.assert_allclose(found[name][row], expected, atol=2e-3, rtol=1e-4)


# The run's file


def test_run_file_is_written_whole_or_not_at_all(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.evaluation.report.DEPTH", 5)
    benchmark = photos_benchmark(photos)
    scores = np.random.default_rng(0).random((N_QUERIES, N_PHOTOS), dtype=np.float32)
    found = Evaluation(
        [MethodResult(METHODS["late"], kept(benchmark, scores))],
        {"indexing": 1.5, "late": 0.5},
        photos,
    )
    report = evaluation_json(benchmark, {"model": "tiny"}, "standard", found, None)
    path = tmp_path / "run.json"
    write_searches_run(path, report, benchmark, found)
    content = json.loads(path.read_text())
    assert {key: content[key] for key in report} == report
    assert content["timings"] == {"indexing": 1.5, "methods": {"late": 0.5}}
    rankings = [asked["methods"]["late"]["ranking"] for asked in content["queries"]]
    np.testing.assert_array_equal(rankings, np.argsort(-scores, axis=1)[:, :5])

    def broken(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.evaluation.report._object_share", broken)
    with pytest.raises(KeyboardInterrupt):
        write_searches_run(path, report, benchmark, found)
    assert json.loads(path.read_text()) == content
    assert [*tmp_path.glob("run.json*")] == [path]
