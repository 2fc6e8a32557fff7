"""What is kept of a query's scores, against plain loops over all of them."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from features.errors import WaldoError
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.store.failures import read_failures
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.benchmarks.published.photo_files import FilesOnDisk
from search.evaluation.galleries import gallery_ids
from search.evaluation.methods.baselines import EXTRACTORS
from search.evaluation.metrics.measured import Measured, query_result
from search.evaluation.metrics.summary import summary
from search.evaluation.run_store import RunScores
from search.query import Query
from tests.helpers.benchmarks.query_results import kept, measured
from tests.helpers.pictures import save_photo

N_CASES = 100


def random_benchmark(random: np.random.Generator) -> tuple[Benchmark, NDArray[np.float32]]:
    """A benchmark without files, and scores of which many are equal in every other case."""
    n_gallery, n_queries = int(random.integers(2, 60)), int(random.integers(1, 9))
    classes = [{"cup"} if random.random() < 0.7 else {"toy"} for _ in range(n_gallery)]
    queries = []
    for _ in range(n_queries):
        order = random.permutation(n_gallery)
        first = int(random.integers(1, max(2, n_gallery // 3)))
        last = first + int(random.integers(0, max(1, n_gallery // 3)))
        relevant, ignored = np.sort(order[:first]), np.sort(order[first:last])
        query = Query(Path("query.jpg"), "cup")
        queries.append(BenchmarkQuery(query, relevant, ignored, bool(random.integers(2))))
    shape = n_queries, n_gallery
    equal = random.integers(-2, 4, shape) if random.integers(2) else random.normal(size=shape)
    gallery = [Path(f"{place}.jpg") for place in range(n_gallery)]
    metrics = ("NDCG", "mAP@100", "Recall@20")
    made = Benchmark("folders", gallery, classes, queries, [], metrics=metrics)
    return made, equal.astype(np.float32)


def naive_ranks(asked: BenchmarkQuery, row: NDArray[np.float32]) -> list[int]:
    """Equal scores count against the method, ignored photos do not count."""
    own, ignored = set(asked.relevant.tolist()), set(asked.ignored.tolist())
    ranked = sorted((-row[n], n in own) for n in range(len(row)) if n not in ignored)
    return [rank for rank, (_, hit) in enumerate(ranked, start=1) if hit]


def naive_precision(asked: BenchmarkQuery, row: NDArray[np.float32], places: list[int]) -> float:
    ranked = [place for place in places if place not in asked.ignored]
    return float(average_precision_score(np.isin(ranked, asked.relevant), row[ranked]))


def test_a_report_is_that_of_plain_loops_over_all_scores() -> None:
    random = np.random.default_rng(11)
    for _ in range(N_CASES):
        benchmark, scores = random_benchmark(random)
        found = summary(benchmark, measured(benchmark, scores))
        pairs = list(zip(benchmark.queries, scores, strict=True))
        every = list(range(len(benchmark.gallery)))
        precisions = [naive_precision(*pair, every) for pair in pairs]
        assert found["mAP"] == pytest.approx(np.mean(precisions), abs=1e-12)
        ranks = [naive_ranks(*pair) for pair in pairs]
        for k in (1, 5, 10, 50):
            assert found[f"Recall@{k}"] == np.mean([own[0] <= k for own in ranks])
        gains = [
            sum(1 / np.log2(rank + 1) for rank in own)
            / sum(1 / np.log2(rank + 2) for rank in range(len(own)))
            for own in ranks
        ]
        assert found["NDCG"] == pytest.approx(np.mean(gains), abs=1e-12)
        sums = [
            sum(n / rank for n, rank in enumerate(own, start=1) if rank <= 100) / len(own)
            for own in ranks
        ]
        assert found["mAP@100"] == pytest.approx(np.mean(sums), abs=1e-12)
        confusable = [p for p, q in zip(precisions, benchmark.queries, strict=True) if q.confusable]
        wanted = pytest.approx(np.mean(confusable), abs=1e-12) if confusable else None
        assert found["mAP_confusable"] == wanted
        shown = [n for n in every if "cup" in (benchmark.gallery_classes or [])[n]]
        of_class = [
            naive_precision(asked, row, shown)
            for asked, row in pairs
            if set(asked.relevant) & set(shown)
        ]
        wanted = pytest.approx(np.mean(of_class), abs=1e-12) if of_class else None
        assert found["mAP_same_class"] == wanted


@pytest.mark.parametrize("depth", [1, 7, 1000])
def test_the_best_photos_and_all_ranks_are_kept(depth: int, tmp_path: Path) -> None:
    """As they were given, also when they are read from the disk again."""
    random = np.random.default_rng(depth)
    for case in range(N_CASES // 10):
        benchmark, scores = random_benchmark(random)
        store = RunScores(tmp_path / str(case), *scores.shape, depth)
        (tmp_path / str(case)).mkdir()
        store.keep(0, "late", kept(benchmark, scores, depth))
        assert store.is_done("late", 0)
        for asked, row, found in zip(benchmark.queries, scores, store.of("late"), strict=True):
            best = sorted(range(len(row)), key=lambda place: (-row[place], place))[:depth]
            assert found.best.tolist() == best
            np.testing.assert_array_equal(found.scores, row[best])
            assert found.measured.relevant_ranks == naive_ranks(asked, row)
        assert [each.measured for each in store.of("late")] == measured(benchmark, scores)


def test_nothing_is_lost_in_json() -> None:
    benchmark, scores = random_benchmark(np.random.default_rng(0))
    for query, row in enumerate(scores):
        found = query_result(benchmark, query, row, depth=3).measured
        assert Measured.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_files_do_not_grow_with_the_gallery(tmp_path: Path) -> None:
    random, sizes = np.random.default_rng(0), []
    for n_gallery in (2_000, 200_000):
        nothing = np.empty(0, dtype=np.int64)
        asked = BenchmarkQuery(Query(Path("query.jpg")), np.array([5]), nothing, False)
        gallery = [Path("photo.jpg")] * n_gallery
        benchmark = Benchmark("folders", gallery, None, [asked] * 3, [])
        folder = tmp_path / str(n_gallery)
        folder.mkdir()
        scores = random.random((3, n_gallery), dtype=np.float32)
        RunScores(folder, *scores.shape).keep(0, "late", kept(benchmark, scores))
        sizes.append((folder / "00000-late.npz").stat().st_size)
    assert sizes[0] == pytest.approx(sizes[1], abs=200)  # digits of numbers in JSON
    assert sizes[1] < 3 * 9_000


def test_large_galleries_are_scored_for_fewer_queries_at_once(tmp_path: Path) -> None:
    batches = [RunScores(tmp_path, 100, n).queries(0).stop for n in (1, 2**18, 2**20, 2**25)]
    assert batches == [64, 64, 16, 1]
    store = RunScores(tmp_path, 100, 2**20)
    places = [
        place for batch in range(store.n_batches) for place in range(100)[store.queries(batch)]
    ]
    assert places == list(range(100))


def test_paths_are_resolved_as_pathlib_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "0.png").touch()
    (tmp_path / "a" / "link.png").symlink_to("b/0.png")
    (tmp_path / "linked").symlink_to("a/b")
    monkeypatch.chdir(tmp_path)
    names = ["a/b/0.png", "a/link.png", "linked/0.png", "a/../linked/../b/0.png", "."]
    paths = [*map(Path, names), *(tmp_path / name for name in names)]
    files = FilesOnDisk(paths)
    assert list(files.resolved()) == [str(path.resolve()) for path in paths]
    same = FilesOnDisk([path.resolve() for path in paths])
    assert files.digest([1]) == same.digest([1]) != files.digest([2])
    os.utime(tmp_path / "a" / "b" / "0.png", (1, 1))
    assert FilesOnDisk(paths).digest([1]) != files.digest([1])
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    for gone in ("none/1.png", "gone.png"):
        with pytest.raises(WaldoError, match=f"{gone}: cannot be read"):
            FilesOnDisk([*paths, Path(gone)])


def test_a_gallery_is_found_in_its_index(tmp_path: Path) -> None:
    photos = [save_photo(tmp_path / f"{number}.png", 20, 20, seed=number) for number in range(5)]
    index_photos(photos, tmp_path / "index", EXTRACTORS["rgb-patches"](), quality="none")
    (tmp_path / "again.png").symlink_to(photos[3])
    gallery = [photos[4], photos[1], tmp_path / "again.png"]
    with IndexReader.open(tmp_path / "index") as reader:
        found = gallery_ids(reader, FilesOnDisk(gallery))
        paths = [record.path for record in reader.photos(found)]
        assert paths == [photos[4], photos[1], photos[3]]
        added = save_photo(tmp_path / "added.png", 20, 20, seed=9)
        with pytest.raises(WaldoError, match=r"added\.png: cannot be read; a benchmark"):
            gallery_ids(reader, FilesOnDisk([*photos, added]))
    added.write_bytes(added.read_bytes()[:60])
    index_photos([*photos, added], tmp_path / "index", EXTRACTORS["rgb-patches"]())
    with IndexReader.open(tmp_path / "index") as reader:
        [failure] = read_failures(tmp_path / "index")
        with pytest.raises(WaldoError, match=re.escape(f"added.png: {failure.reason}; a bench")):
            gallery_ids(reader, FilesOnDisk([*photos, added]))
