"""Query expansion against plain loops in float64, and who may ask."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.clock import Clock
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.methods.methods import find_method
from search.evaluation.retrieval import run_methods
from search.index import Index
from search.query import Query, SearchOptions
from search.ranking.expansion import asking_matches, expand
from search.ranking.localise import distance_to_object, object_cells
from search.reference import Reference, make_reference
from search.scoring.candidates import ScoringReference, to_candidates
from search.scoring.confidence import confidences, probabilities
from search.scoring.rerank import combine, score_references
from search.scoring.scores import SCORES
from tests.helpers.pictures import save_photo

BOX = (10.0, 10.0, 60.0, 50.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 photos in each of two folders."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(24):
        one = root / f"object-{i // 12}"
        one.mkdir(exist_ok=True)
        save_photo(one / f"{i:02}.png", 96, 80, seed=i)
    return root


@pytest.fixture(scope="module")
def directory(
    folder: Path, small_tiny: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("store") / "index"
    index_photos([folder], directory, small_tiny, batch_size=4, quality="none")
    return directory


@pytest.fixture
def reader(directory: Path) -> Iterator[IndexReader]:
    with IndexReader.open(directory) as opened:
        yield opened


@pytest.fixture(scope="module")
def query(folder: Path) -> Query:
    return Query(folder / "object-0" / "00.png", box=BOX)


@pytest.fixture(scope="module")
def reference(query: Query, small_tiny: FeatureExtractor) -> Reference:
    return make_reference(query, small_tiny)


def test_a_match_asks_the_less_the_farther_it_is_behind_the_first() -> None:
    scores = np.full(21, 0.2, dtype=np.float32)
    scores[[7, 3, 11]] = 0.6, 0.5, 0.4
    asking = asking_matches(scores, [7, 3, 11])
    assert asking.rows.tolist() == [7, 3]
    np.testing.assert_allclose(asking.weights, [0.35, 0.35 * 0.75**4], rtol=1e-5)


@pytest.mark.parametrize(
    ("scores", "best_first"),
    [
        (np.linspace(1, 0, 19, dtype=np.float32), [0, 1]),
        (np.full(30, 0.4, dtype=np.float32), [0, 1]),
        (np.linspace(1, 0, 30, dtype=np.float32), []),
        (np.empty(0, np.float32), []),
    ],
    ids=["few photos", "no spread", "copies alone", "nothing"],
)
def test_nothing_asks_where_no_match_stands_out(scores: np.ndarray, best_first: list[int]) -> None:
    assert len(asking_matches(scores, best_first).rows) == 0


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def naive_late(tokens: np.ndarray, cells: np.ndarray, mean: np.ndarray) -> float:
    """The mean over tokens of the centred cosine with their best cell."""
    ours, theirs = unit(tokens - mean), unit(cells - mean)
    return float(np.mean([(theirs @ token).max() for token in ours]))


def naive_expansion(reader: IndexReader, reference: ScoringReference, own: set[str]) -> np.ndarray:
    """`expand` by the score `late`, (n,) float64, over all photos of an index."""
    maps = reader.read_maps(reader.ids)
    appearance = reader.decode(maps)[0].numpy().astype(np.float64)
    candidates = to_candidates(reader, maps, [reference])
    mean = candidates.appearance.mean.numpy().astype(np.float64)
    photos = [cells[valid] for cells, valid in zip(appearance, maps.valid, strict=True)]
    tokens = reference.tokens.numpy().astype(np.float64)
    scores = np.array([naive_late(tokens, photo, mean) for photo in photos])
    heat = SCORES["late"].heat(reference, candidates)
    found = object_cells(candidates, distance_to_object(reference, candidates), heat).numpy()
    records = reader.photos(maps.ids)
    others = [row for row in np.argsort(-scores) if records[row].content_hash not in own]
    total, weights = scores.copy(), 1.0
    for row in others[:2]:
        match = appearance[row][found[row]]
        median = np.median(scores)
        weight = 0.35 * ((scores[row] - median) / (scores[others[0]] - median)) ** 4
        for photo, cells in enumerate(photos):
            shown = tokens if photo == row else cells
            total[photo] += weight * naive_late(match, shown, mean)
        weights += weight
    return total / weights


@pytest.mark.parametrize("known", [True, False], ids=["own photos known", "none known"])
def test_the_score_is_the_weighted_mean_by_query_and_first_matches(
    reader: IndexReader, reference: Reference, known: bool
) -> None:
    own = {reference.maps.content_hash} if known else set()
    asked = reference.for_scoring(torch.device("cpu"))
    late = SCORES["late"]
    scored = score_references(reader, reader.ids, [asked], [late], Clock())
    wanted = scored.by_score["late"]
    expanded = expand(reader, scored.ids, wanted, wanted[0], [asked], own, late, Clock())
    np.testing.assert_allclose(expanded, naive_expansion(reader, asked, own), atol=1e-4)
    assert np.abs(expanded - wanted[0]).max() > 0.003


def test_means_over_the_map_stay_as_they_are(reader: IndexReader, reference: Reference) -> None:
    asked = reference.for_scoring(torch.device("cpu"))
    wanted = np.linspace(0, 1, 48, dtype=np.float32).reshape(2, 24)
    score = SCORES["pdm"]
    expanded = expand(reader, reader.ids, wanted, wanted[1], [asked] * 2, set(), score, Clock())
    np.testing.assert_array_equal(expanded, wanted.max(axis=0))


def test_matches_that_ask_do_not_make_themselves_or_others_surer(
    reader: IndexReader, small_tiny: FeatureExtractor, query: Query, reference: Reference
) -> None:
    answer = Index(reader, small_tiny).search(query, SearchOptions(top=25))
    asked = reference.for_scoring(torch.device("cpu"))
    score = [SCORES["consistent"]]
    own = score_references(reader, reader.ids, [asked], score, Clock()).by_score["consistent"]
    sure = confidences(own[0])
    assert sure is not None
    by_id = dict(zip(reader.ids.tolist(), sure.tolist(), strict=True))
    for match in answer.matches:
        assert match.confidence == pytest.approx(by_id[match.id], abs=1e-3)
    assert answer.best_confidence == max(
        match.confidence or 0.0 for match in answer.matches if not match.is_query
    )
    assert answer.timing["expand"] > 0
    assert answer.matches[0].is_query


def test_a_probability_is_that_of_the_final_score(
    reader: IndexReader, small_tiny: FeatureExtractor, query: Query, folder: Path
) -> None:
    index = Index(reader, small_tiny)
    matches = index.search(query, SearchOptions(top=25)).matches
    assert len(matches) == 24  # all photos
    scores = np.array([match.score for match in matches], dtype=np.float32)
    likely = probabilities(scores, 24, np.array([match.is_query for match in matches]))
    assert likely is not None
    assert [match.probability for match in matches] == pytest.approx(likely.tolist())
    some = SearchOptions(candidates=20, top=20)
    fewer = index.search(query, some).matches
    scores = np.array([match.score for match in fewer], dtype=np.float32)
    likely = probabilities(scores, 24, np.array([match.is_query for match in fewer]))
    assert likely is not None
    assert [match.probability for match in fewer] == pytest.approx(likely.tolist())
    mean = index.search(query, SearchOptions(score="pdm")).matches
    assert {match.probability for match in mean} == {None}
    assert None not in {match.confidence for match in mean}


def test_what_the_object_is_not_counts_after_the_expansion(
    reader: IndexReader, small_tiny: FeatureExtractor, query: Query, folder: Path
) -> None:
    other = Query(folder / "object-1" / "20.png", box=BOX)
    options = SearchOptions(top=25)
    index = Index(reader, small_tiny)
    plain = index.search(query, options)
    against = index.search(Query(query.photo, box=BOX, unlike=(other,)), options)
    asked = make_reference(other, small_tiny).for_scoring(torch.device("cpu"))
    unwanted = score_references(
        reader, reader.ids, [asked], [SCORES["consistent"]], Clock()
    ).by_score["consistent"]
    worse = dict(zip(reader.ids.tolist(), unwanted[0].tolist(), strict=True))
    before = {match.id: match.score for match in plain.matches}
    first = [match.id for match in plain.matches if not match.is_query][:1]
    # The other photo, at least, is more like the unwanted object, and it is no first match.
    [photo] = [match for match in against.matches if match.path.name == "20.png"]
    assert photo.id not in first
    row = np.float32([[before[photo.id]]]), np.float32([[worse[photo.id]]])
    assert photo.score == pytest.approx(float(combine(*row)[0]), abs=0.1)
    assert photo.score < before[photo.id] - 0.05


def test_an_evaluation_ranks_as_a_search_does(
    folder: Path, reader: IndexReader, small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    benchmark = read_folders(folder)
    ran = run_methods(
        benchmark,
        [find_method("consistent-expanded")],
        small_tiny,
        tmp_path / "work",
        quality="none",
    )
    asked = benchmark.queries[0].query
    answer = Index(reader, small_tiny).search(
        Query(asked.photo, box=asked.box), SearchOptions(top=25)
    )
    found = dict(zip(benchmark.gallery, ran.results[0].queries[0].by_place().tolist(), strict=True))
    assert len(answer.matches) == 24
    for match in answer.matches:
        assert match.score == pytest.approx(found[match.path], abs=1e-3)
