"""The recall index: exact, deterministic, and never an answer that is deleted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.manifest import read_manifest
from indexer.reader import IndexReader
from indexer.recall import RecallIndex, load_recall
from tests.indexer_helpers import PixelExtractor, make_photos, maps_of, run

DIM = 20


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def naive(
    ids: Sequence[int], rows: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> list[int]:
    """Ids by falling inner product in float64, equal ones by id."""
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


def test_ids_that_are_stored_already_are_left() -> None:
    recall = RecallIndex(DIM)
    rows = vectors(4)
    recall.add(np.array([5, 6, 6]), rows[:3])
    recall.add(np.array([6, 7]), rows[2:])
    assert recall.ids.tolist() == [5, 6, 7]
    _, scores = recall.search(rows[1], 3)
    assert scores.max() == pytest.approx(float(rows[1] @ rows[1]), rel=1e-5)


def test_the_mean_is_of_the_live_vectors() -> None:
    rows = vectors(50)
    recall = RecallIndex(DIM, [3, 40])
    recall.add(np.arange(50), rows)
    np.testing.assert_allclose(
        recall.mean(), np.delete(rows, [3, 40], axis=0).mean(axis=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("room", [True, False])
def test_a_gpu_gives_the_same_answer(monkeypatch: pytest.MonkeyPatch, room: bool) -> None:
    """With a stand-in for the GPU's index, which like it knows rows only and takes no selector."""
    import faiss

    rows, ids = vectors(90), np.arange(90)[::-1] * 3
    plain = RecallIndex(DIM, [6, 9])
    plain.add(ids, rows)
    expected = {k: plain.search(rows[0], k)[0].tolist() for k in (3, 88, 100)}
    copies = []

    def gpu_index(resources: object, dim: int) -> object:
        if not room:
            raise RuntimeError("out of GPU memory")
        copies.append(faiss.IndexFlatIP(dim))
        return copies[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexFlatIP", gpu_index, raising=False)
    recall = RecallIndex(DIM, [6, 9])
    recall.add(ids[:50], rows[:50])
    recall.search(rows[0], 5)
    recall.add(ids[50:], rows[50:])
    for k, found in expected.items():
        assert recall.search(rows[0], k)[0].tolist() == found
    # A copy for each state, of the live vectors alone: 6 and 9 came with the second part.
    assert [copy.ntotal for copy in copies] == ([50, 88] if room else [])


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length 3"):
        RecallIndex(DIM).search(np.zeros(3, np.float32), 1)


def test_an_empty_index_finds_nothing() -> None:
    ids, scores = RecallIndex(DIM).search(np.zeros(DIM, np.float32), 5)
    assert (len(ids), len(scores)) == (0, 0)


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
        np.testing.assert_allclose(reader.mean_pooled, pooled.mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damage", ["gone", "cut", "garbage", "older"])
def test_recall_is_whole_whatever_became_of_its_file(tmp_path: Path, damage: str) -> None:
    make_photos(tmp_path / "photos", 5)
    index = tmp_path / "index"
    run(tmp_path / "photos", index)
    older = (index / read_manifest(index).recall.file.name).read_bytes()
    make_photos(tmp_path / "photos", 9)
    run(tmp_path / "photos", index)
    path = index / read_manifest(index).recall.file.name
    before = load_recall(index, read_manifest(index)).search(np.ones(12, np.float32), 9)
    content = {"cut": path.read_bytes()[:100], "garbage": b"x" * 500, "older": older}
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[damage])
    after = load_recall(index, read_manifest(index)).search(np.ones(12, np.float32), 9)
    assert after[0].tolist() == before[0].tolist()
    assert after[1].tolist() == before[1].tolist()
    assert len(after[0]) == 9
