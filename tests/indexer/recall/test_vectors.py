"""Recall by vectors: it is exact and deterministic, and never finds a deleted photo."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.errors import IndexDamagedError
from indexer.reader import IndexReader
from indexer.recall.base_rule import RecallRule
from indexer.recall.faiss_base import build_base
from indexer.recall.vectors import RecallIndex, load_recall, recall_kind, refresh_recall
from indexer.store.files import describe_file
from indexer.store.manifest import Derived, Manifest
from indexer.store.mapstore import Place
from indexer.store.photos import photos_name, write_photos
from tests.helpers.stores import PixelExtractor, make_photos, maps_of, photo_row, run

DIM = 20
IVF = RecallRule(flat_bytes=0)


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def naive(
    ids: Sequence[int], rows: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> list[int]:
    """Ids by falling inner product in float64; equal ones by id."""
    scores = rows.astype(np.float64) @ query.astype(np.float64)
    return [ids[i] for i in sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))][:k]


@pytest.mark.parametrize("k", [1, 7, 200, 500])
@pytest.mark.parametrize("deleted", [0, 1, 60])
def test_it_ranks_as_an_exhaustive_float64_scan(k: int, deleted: int) -> None:
    rows = vectors(200)
    ids = np.random.default_rng(1).permutation(10_000)[:200].astype(np.int64)
    dead = set(ids[:deleted].tolist())
    recall = RecallIndex(DIM, sorted(dead))
    recall.add(ids[:150], rows[:150])
    recall.add(ids[150:], rows[150:])
    live = np.array([i not in dead for i in ids])
    for query in vectors(5, seed=2):
        found, scores = recall.search(query, k)
        assert found.tolist() == naive(ids[live].tolist(), rows[live], query, k)
        assert np.all(np.diff(scores) <= 0)
        expected = {int(i): float(r @ query) for i, r in zip(ids, rows, strict=True)}
        np.testing.assert_allclose(scores, [expected[int(i)] for i in found], rtol=1e-4, atol=1e-5)
    assert len(recall) == 200 - deleted


def test_equal_scores_are_cut_by_id() -> None:
    rows = np.repeat(vectors(3), 40, axis=0)
    ids = np.random.default_rng(4).permutation(120).astype(np.int64)
    recall = RecallIndex(DIM)
    recall.add(ids, rows)
    query = rows[0]
    for k in (1, 5, 39, 41, 119):
        found, _ = recall.search(query, k)
        assert found.tolist() == naive(ids.tolist(), rows, query, k)


def test_ids_that_are_there_already_are_skipped() -> None:
    recall = RecallIndex(DIM)
    rows = vectors(4)
    recall.add(np.array([5, 6, 6]), rows[:3])
    recall.add(np.array([6, 7]), rows[2:])
    assert recall.ids.tolist() == [5, 6, 7]
    _, scores = recall.search(rows[1], 3)
    assert scores.max() == pytest.approx(float(rows[1] @ rows[1]), rel=1e-5)


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length 3"):
        RecallIndex(DIM).search(np.zeros(3, np.float32), 1)
    with pytest.raises(ValueError, match="length 3"):
        RecallIndex(DIM).score_all(np.zeros(3, np.float32))


def test_an_empty_index_finds_nothing() -> None:
    ids, scores = RecallIndex(DIM).search(np.zeros(DIM, np.float32), 5)
    assert (len(ids), len(scores)) == (0, 0)
    ids, scores = RecallIndex(DIM).score_all(np.zeros(DIM, np.float32))
    assert (len(ids), len(scores)) == (0, 0)


def clustered(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Vectors around 30 centres with a large common mean, as pooled features have."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(30, DIM)) + 3
    own = 0.3 * random.normal(size=(count, DIM))
    return (centres[random.integers(0, 30, count)] + own).astype(np.float32)


@pytest.fixture(scope="module", params=["flat", "ivf256,fp16"])
def large(request: pytest.FixtureRequest) -> tuple[RecallIndex, NDArray, NDArray]:
    """An index of either kind, with a delta and deleted photos; its live ids and their vectors."""
    rows, ids = clustered(4000), np.random.default_rng(1).permutation(9000)[:4000]
    rule = IVF if request.param != "flat" else RecallRule()
    parts = [(ids[:2000], rows[:2000]), (ids[2000:3900], rows[2000:3900])]
    recall = RecallIndex(DIM, ids[::7].tolist(), build_base(lambda: parts, DIM, rule))
    recall.add(ids[3900:], rows[3900:])
    assert recall.kind == request.param
    assert recall.ids.tolist() == ids.tolist()
    live = np.arange(4000) % 7 != 0
    return recall, ids[live], rows[live]


def found_of(expected: Sequence[int], found: NDArray[np.int64]) -> float:
    assert len(set(found.tolist())) == len(found) == len(expected)
    return len({*expected} & {*found.tolist()}) / len(expected)


def test_a_large_index_finds_the_best(large: tuple[RecallIndex, NDArray, NDArray]) -> None:
    recall, ids, rows = large
    shares = []
    for query in vectors(10, seed=3):
        for k in (1, 50, 400):
            found, scores = recall.search(query, k)
            assert set(found.tolist()) <= set(ids.tolist())
            assert np.all(np.diff(scores) <= 0)
            shares.append(found_of(naive(ids.tolist(), rows, query, k), found))
        # All are found, in order, when all are asked for.
        found, scores = recall.search(query, 5000)
        assert sorted(found.tolist()) == sorted(ids.tolist())
        exact = dict(zip(ids.tolist(), (rows.astype(np.float64) @ query).tolist(), strict=True))
        np.testing.assert_allclose(scores, [exact[i] for i in found.tolist()], atol=0.02)
        every, products = recall.score_all(query)
        assert every.tolist() == sorted(ids.tolist())
        assert dict(zip(every, products, strict=True)) == dict(zip(found, scores, strict=True))
    assert np.mean(shares) == 1.0 if recall.kind == "flat" else np.mean(shares) > 0.97


@pytest.mark.parametrize("count", [0, 1, 30, 300, 2500])
def test_only_allowed_photos_are_found_and_k_of_them(
    large: tuple[RecallIndex, NDArray, NDArray], count: int
) -> None:
    recall, ids, rows = large
    # Deleted ids among the allowed ones, and unknown ids, make no difference.
    some = np.sort(np.random.default_rng(5).choice(recall.ids, count, replace=False))
    inside = np.isin(ids, some)
    shares = []
    for query in vectors(5, seed=6):
        for k in (1, 20, 400):
            found, _ = recall.search(query, k, np.append(some, 10_000))
            expected = naive(ids[inside].tolist(), rows[inside], query, k)
            if expected:
                shares.append(found_of(expected, found))
            assert len(found) == len(expected)
            if recall.kind == "flat":
                assert found.tolist() == expected
    assert count == 0 or np.mean(shares) > 0.97


def test_a_few_allowed_photos_are_all_compared(
    large: tuple[RecallIndex, NDArray, NDArray],
) -> None:
    recall, ids, rows = large
    for query in vectors(10, seed=8):
        # The worst of all: a query would compare their lists last.
        worst = naive(ids.tolist(), rows, -query, 40)
        found, _ = recall.search(query, 10, np.sort(worst))
        assert found_of(worst[-10:], found) == 1.0


def test_copies_of_a_photo_are_cut_by_id_in_every_kind() -> None:
    rows = np.concatenate([clustered(600), np.repeat(clustered(1, 5), 60, axis=0)])
    ids = np.random.default_rng(4).permutation(660).astype(np.int64)
    for rule in (RecallRule(), IVF):
        recall = RecallIndex(DIM, (), build_base(lambda: [(ids, rows)], DIM, rule))
        for k in (1, 30, 59):
            found, scores = recall.search(rows[-1], 660)
            best = found[scores == recall.search(rows[-1], 1, ids[-1:])[1][0]]
            assert best.tolist() == sorted(ids[600:].tolist())
            first = int(np.flatnonzero(found == best[0])[0])
            assert recall.search(rows[-1], first + k)[0].tolist() == found[: first + k].tolist()


def test_a_base_keeps_a_photos_first_row_and_is_the_same_again(tmp_path: Path) -> None:
    rows, ids = clustered(1500), np.arange(1500) * 2
    parts = [(ids[:1000], rows[:1000]), (ids[990:], np.concatenate([rows[:10], rows[1000:]]))]
    for rule in (RecallRule(), IVF):
        one = build_base(lambda: parts, DIM, rule)
        recall = RecallIndex(DIM, (), one)
        assert recall.ids.tolist() == ids.tolist()
        _, scores = recall.search(rows[995], 1, ids[995:996])
        assert scores[0] == pytest.approx(float(rows[995] @ rows[995]), rel=1e-3)
        again = RecallIndex(DIM, (), build_base(lambda: [(ids, rows)], DIM, rule))
        for query in vectors(3):
            for mine, other in zip(
                recall.search(query, 300), again.search(query, 300), strict=True
            ):
                assert mine.tolist() == other.tolist()


class Table:
    """The photo table as a writer leaves it, without maps."""

    def __init__(self, index_dir: Path) -> None:
        (index_dir / "photos").mkdir(parents=True)
        self.folder = index_dir
        self.manifest = Manifest({}, 32, 4, DIM // 2, "none")
        self.rows = clustered(5000)

    def add(self, count: int, first: int | None = None) -> None:
        """Add a shard of the next photos, or with `first` of some that have moved."""
        number = self.manifest.last_photos + 1
        start = self.manifest.next_id if first is None else first
        rows = [
            photo_row(i, Place(number, i, i), pooled=self.rows[i])
            for i in range(start, start + count)
        ]
        name = photos_name(number)
        write_photos(self.folder / name, rows, DIM // 2)
        self.manifest = replace(
            self.manifest,
            photos=(*self.manifest.photos, describe_file(self.folder, name, number, count)),
            next_id=max(self.manifest.next_id, start + count),
        )

    def refresh(self, rule: RecallRule, *, rebuild: bool = False) -> Derived | None:
        number = self.manifest.last_photos
        recall = refresh_recall(self.folder, self.manifest, number, rebuild=rebuild, rule=rule)
        self.manifest = replace(self.manifest, recall=recall)
        return recall

    def load(self) -> RecallIndex:
        return load_recall(self.folder, self.manifest)

    def bases(self) -> dict[str, tuple[bytes, int]]:
        files = sorted(self.folder.glob("recall-*"))
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("flat", [True, False])
def test_additions_and_deletions_leave_the_base_alone_until_it_is_due(
    tmp_path: Path, flat: bool
) -> None:
    rule = RecallRule(flat_bytes=2**30 if flat else 0, delta_rows=100, delta_share=0.25)
    table = Table(tmp_path)
    assert table.refresh(rule) is None
    assert recall_kind(tmp_path, table.manifest) == "flat"
    table.add(600)
    table.add(400)
    base = table.refresh(rule)
    assert base is not None
    assert (base.covers, base.file.rows) == (2, 1000)
    kind = "flat" if flat else "ivf128,fp16"
    assert recall_kind(tmp_path, table.manifest) == table.load().kind == kind
    before = table.bases()
    for _ in range(5):
        table.add(40)
        assert table.refresh(rule) == base
    table.add(50, first=10)  # these moved
    table.manifest = replace(table.manifest, tombstones=(3, 1005, 1190))
    assert table.refresh(rule) == base
    assert table.bases() == before

    rows = table.rows[:1200]
    live = np.delete(np.arange(1200), [3, 1005, 1190])
    recall = table.load()
    assert recall.ids.tolist() == list(range(1200))
    assert len(recall) == 1197
    for query in vectors(5):
        found, _ = recall.search(query, 1197)
        assert sorted(found.tolist()) == live.tolist()
        if flat:
            assert found.tolist() == naive(live.tolist(), rows[live], query, 1197)
    partly = [recall.search(query, 60) for query in vectors(5)]

    table.add(1)
    renewed = table.refresh(rule)
    assert renewed is not None
    assert (renewed.covers, renewed.file.rows) == (9, 1201)
    assert len(table.bases()) == 2
    table.manifest = replace(table.manifest, tombstones=(3, 1005, 1190, 1200))
    for query, (ids, scores) in zip(vectors(5), partly, strict=True):
        # Base and delta together give what a base of all photos gives.
        found, values = table.load().search(query, 60)
        if flat:
            assert (found.tolist(), values.tolist()) == (ids.tolist(), scores.tolist())
        else:
            assert found_of(ids.tolist(), found) > 0.9
    rebuilt = table.refresh(rule, rebuild=True)
    assert rebuilt is not None
    assert rebuilt.file.sha256 == renewed.file.sha256


def test_many_small_additions_wait_for_a_small_base(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.add(10)
    base = table.refresh(RecallRule())
    for _ in range(20):
        table.add(100)
        assert table.refresh(RecallRule()) == base
    query = vectors(1)[0]
    found, _ = table.load().search(query, 50)
    assert found.tolist() == naive(range(2010), table.rows[:2010], query, 50)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("damage", ["gone", "cut", "garbage", "older"])
def test_recall_is_complete_whatever_happened_to_its_file(
    tmp_path: Path, damage: str, flat: bool
) -> None:
    rule = RecallRule() if flat else IVF
    table = Table(tmp_path)
    table.add(500)
    table.refresh(rule)
    table.add(400)
    older = next(iter(table.bases().values()))[0]
    base = table.refresh(rule, rebuild=True)
    assert base is not None
    table.add(30)
    path = tmp_path / base.file.name
    content = path.read_bytes()
    path.unlink()
    other = {"cut": content[:-1], "garbage": b"x" * len(content), "older": older}
    if damage != "gone":
        path.write_bytes(other[damage])
    recall = table.load()
    assert recall_kind(tmp_path, table.manifest) == recall.kind == "flat"
    for query in vectors(3):
        found, _ = recall.search(query, 930)
        assert found.tolist() == naive(range(930), table.rows[:930], query, 930)


def test_a_reader_keeps_a_base_that_a_writer_deletes(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.add(900)
    for rule in (RecallRule(), IVF):
        base = table.refresh(rule, rebuild=True)
        assert base is not None
        recall = table.load()
        before = recall.search(table.rows[3], 100)
        (tmp_path / base.file.name).unlink()
        after = recall.search(table.rows[3], 100)
        assert (after[0].tolist(), after[1].tolist()) == (before[0].tolist(), before[1].tolist())


def test_a_photo_table_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.add(5)
    (tmp_path / photos_name(1)).write_bytes(b"nothing")
    with pytest.raises(IndexDamagedError, match="photos/000001"):
        table.load()
    with pytest.raises(IndexDamagedError, match="photos/000001"):
        table.refresh(RecallRule())


def test_pooled_vectors_are_those_of_the_photos(tmp_path: Path) -> None:
    paths, extractor = make_photos(tmp_path / "photos", 12), PixelExtractor()
    run(tmp_path / "photos", tmp_path / "index", extractor)
    pooled = np.stack([maps_of(path, extractor).pooled() for path in paths])
    query = np.random.default_rng(0).normal(size=2 * extractor.dim).astype(np.float32)
    with IndexReader.open(tmp_path / "index") as reader:
        ids, _ = reader.recall.search(query, 12)
        found = [record.path for record in reader.photos(ids)]
        order = naive(range(12), pooled, query, 12)
        assert found == [paths[i] for i in order]
