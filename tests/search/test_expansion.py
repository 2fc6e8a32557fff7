"""Query expansion against plain loops in float64, and who may ask."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.extractor import FeatureExtractor
from indexer.codec.tokens import TokenMap
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.candidates import CandidateMaps, ScoringReference, to_candidates
from search.clock import Clock
from search.confidence import confidences, probabilities
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.methods.methods import find_method
from search.evaluation.retrieval import run_methods
from search.expansion import asking_weights, expand, refined_reference
from search.index import Index
from search.localise import distance_to_object, object_cells
from search.query import Query, SearchOptions
from search.reference import Reference, make_reference
from search.rerank import combine, score_references
from search.scores import SCORES
from tests.helpers.pictures import save_photo

BOX = (10.0, 10.0, 60.0, 50.0)
CPU = torch.device("cpu")


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
    folder: Path, tiny: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("store") / "index"
    index_photos([folder], directory, tiny, batch_size=4, quality="none")
    return directory


@pytest.fixture
def reader(directory: Path) -> Iterator[IndexReader]:
    with IndexReader.open(directory) as opened:
        yield opened


@pytest.fixture(scope="module")
def query(folder: Path) -> Query:
    return Query(folder / "object-0" / "00.png", box=BOX)


@pytest.fixture(scope="module")
def reference(query: Query, tiny: FeatureExtractor) -> Reference:
    return make_reference(query, tiny)


def test_a_match_asks_the_less_the_farther_it_is_behind_the_first() -> None:
    scores = np.full(21, 0.2, dtype=np.float32)
    scores[[7, 3, 11]] = 0.6, 0.5, 0.1
    weights = asking_weights(scores, np.array([7, 3, 11]))
    np.testing.assert_allclose(weights, [0.35, 0.35 * 0.75**4, 0], rtol=1e-5)


def test_matches_do_not_ask_when_the_first_is_as_other_photos() -> None:
    assert asking_weights(np.full(21, 0.4, dtype=np.float32), np.array([7, 3])).tolist() == [0, 0]


@pytest.mark.parametrize("case", ["few photos", "no spread", "copies alone"])
def test_scores_stay_where_no_match_stands_out(
    reader: IndexReader, reference: Reference, case: str
) -> None:
    ids = reader.ids[: 19 if case == "few photos" else 24]
    scores = np.linspace(1, 0, len(ids), dtype=np.float32)
    if case == "no spread":
        scores[:] = 0.4
    hashes = [record.content_hash for record in reader.photos(ids)]
    asked = [reference]
    if case == "copies alone":
        asked = [with_hash(reference, content_hash) for content_hash in hashes]
    wanted = np.repeat(scores[None], len(asked), axis=0)
    found = expand(reader, ids, wanted, scores, asked, SCORES["late"], CPU, Clock())
    np.testing.assert_array_equal(found, scores)


def with_hash(reference: Reference, content_hash: str) -> Reference:
    """The same object in a photo of other content."""
    return replace(reference, maps=replace(reference.maps, content_hash=content_hash))


def own_scores(reader: IndexReader, references: list[Reference], score: str) -> np.ndarray:
    """Scores of all photos without expansion, (n_references, n) float32."""
    asked = [reference.for_scoring(CPU) for reference in references]
    scored = score_references(reader, reader.ids, asked, [SCORES[score]], Clock())
    return scored.by_score[score]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def naive_late(tokens: np.ndarray, cells: np.ndarray, mean: np.ndarray) -> float:
    """The mean over tokens of the centred cosine with their best cell."""
    ours, theirs = unit(tokens - mean), unit(cells - mean)
    return float(np.mean([max(token @ cell for cell in theirs) for token in ours]))


def naive_found(tokens: np.ndarray, positions: np.ndarray, photo: CandidateMaps) -> np.ndarray:
    """The cells of a photo at which an object is found, (cells,) bool; by the code of matches."""
    values = torch.from_numpy(tokens).float()
    places = torch.from_numpy(positions).float()
    asked = ScoringReference(values, values, None, places)
    heat = SCORES["late"].heat(asked, photo)
    return object_cells(photo, distance_to_object(asked, photo), heat)[0].numpy()


def naive_expansion(reader: IndexReader, reference: Reference) -> np.ndarray:
    """`expand` by the score `late`, (n,) float64, over all photos of an index."""
    maps = reader.read_maps(reader.ids)
    appearance = reader.decode(maps)[0].numpy().astype(np.float64)
    some = to_candidates(reader, maps, [reference.for_scoring(CPU)])
    mean = some.appearance.mean.numpy().astype(np.float64)
    everywhere = np.argwhere(np.ones((reader.grid, reader.grid)))

    def as_photo(cells: np.ndarray, valid: np.ndarray) -> CandidateMaps:
        tokens = TokenMap.plain(torch.from_numpy(cells).float()[None], some.appearance.mean)
        return CandidateMaps(tokens, tokens, torch.from_numpy(valid)[None])

    photos = [as_photo(*photo) for photo in zip(appearance, maps.valid, strict=True)]
    query = reference.maps.appearance.astype(np.float64).reshape(len(everywhere), -1)
    shown = as_photo(query, reference.maps.frame.valid().ravel())

    def by(tokens: np.ndarray) -> np.ndarray:
        each = zip(appearance, maps.valid, strict=True)
        return np.array([naive_late(tokens, cells[valid], mean) for cells, valid in each])

    own = reference.cells.ravel()
    scores = by(query[own])
    records = reader.photos(maps.ids)
    known = reference.maps.content_hash
    others = [r for r in np.argsort(-scores)[:20] if records[r].content_hash != known]
    shared, by_shared = own, scores
    if not reference.exact:
        shared = np.zeros_like(own)
        for row in others[:2]:
            found = naive_found(query[own], everywhere[own], photos[row])
            shared |= own & naive_found(appearance[row][found], everywhere[found], shown)
        by_shared = by(query[shared])
        others.sort(key=lambda row: -by_shared[row])
    total, weights = (scores + 2 * by_shared) / 3, 1.0
    above = total - np.median(total)
    for row in others[:2]:
        found = naive_found(query[shared], everywhere[shared], photos[row])
        weight = 0.35 * np.clip(above[row] / above[others[0]], 0, 1) ** 4
        by_match = by(appearance[row][found])
        by_match[row] = naive_late(appearance[row][found], query[shared], mean)
        total = total + weight * by_match
        weights += weight
    return total / weights


@pytest.mark.parametrize("known", [True, False], ids=["own photo known", "not known"])
@pytest.mark.parametrize("exact", [False, True], ids=["box", "mask"])
def test_the_score_is_the_weighted_mean_by_query_and_first_matches(
    reader: IndexReader, reference: Reference, known: bool, exact: bool
) -> None:
    asked = replace(reference if known else with_hash(reference, "another"), exact=exact)
    wanted = own_scores(reader, [asked], "late")
    expanded = expand(reader, reader.ids, wanted, wanted[0], [asked], SCORES["late"], CPU, Clock())
    np.testing.assert_allclose(expanded, naive_expansion(reader, asked), atol=1e-4)
    assert np.abs(expanded - wanted[0]).max() > 0.003


def test_only_cells_that_matches_show_ask_again(reader: IndexReader, reference: Reference) -> None:
    """Its own photo as the match of a query finds the object, and nothing else, in the query."""
    everything = with_hash(replace(reference, cells=reference.maps.frame.valid()), "another")
    match = reference.for_scoring(CPU)
    like = to_candidates(reader, reader.read_maps(reader.ids[:1]), [match])
    refined = refined_reference(everything, [match], like, SCORES["late"])
    kept = {tuple(place) for place in refined.positions.int().tolist()}
    inside = {tuple(place) for place in np.argwhere(reference.cells).tolist()}
    assert len(kept) < 0.6 * everything.cells.sum()
    assert len(kept & inside) > 0.6 * len(inside)


def test_a_mask_keeps_its_cells_beside_a_box(reader: IndexReader, reference: Reference) -> None:
    """Of several photos of the object, the best by each counts."""
    photos = [reference, replace(reference, exact=True)]
    wanted = own_scores(reader, photos, "late")
    late = SCORES["late"]
    both = expand(reader, reader.ids, wanted, wanted.max(axis=0), photos, late, CPU, Clock())
    mask = expand(reader, reader.ids, wanted[1:], wanted[1], photos[1:], late, CPU, Clock())
    assert np.abs(both - mask).max() > 0.001
    assert np.corrcoef(both, mask)[0, 1] > 0.9


def test_means_over_the_map_stay_as_they_are(reader: IndexReader, reference: Reference) -> None:
    wanted = np.linspace(0, 1, 48, dtype=np.float32).reshape(2, 24)
    expanded = expand(
        *(reader, reader.ids, wanted, wanted[1], [reference] * 2, SCORES["pdm"], CPU, Clock())
    )
    np.testing.assert_array_equal(expanded, wanted.max(axis=0))


def test_matches_that_ask_do_not_make_themselves_or_others_surer(
    reader: IndexReader, tiny: FeatureExtractor, query: Query, reference: Reference
) -> None:
    answer = Index(reader, tiny).search(query, SearchOptions(top=25))
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
    reader: IndexReader, tiny: FeatureExtractor, query: Query, folder: Path
) -> None:
    index = Index(reader, tiny)
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
    reader: IndexReader, tiny: FeatureExtractor, query: Query, folder: Path
) -> None:
    other = Query(folder / "object-1" / "20.png", box=BOX)
    options = SearchOptions(top=25)
    index = Index(reader, tiny)
    plain = index.search(query, options)
    against = index.search(Query(query.photo, box=BOX, unlike=(other,)), options)
    asked = make_reference(other, tiny).for_scoring(torch.device("cpu"))
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
    folder: Path, reader: IndexReader, tiny: FeatureExtractor, tmp_path: Path
) -> None:
    benchmark = read_folders(folder)
    ran = run_methods(
        benchmark, [find_method("consistent-expanded")], tiny, tmp_path / "work", quality="none"
    )
    asked = benchmark.queries[0].query
    answer = Index(reader, tiny).search(Query(asked.photo, box=asked.box), SearchOptions(top=25))
    found = dict(zip(benchmark.gallery, ran.results[0].scores[0].tolist(), strict=True))
    assert len(answer.matches) == 24
    for match in answer.matches:
        assert match.score == pytest.approx(found[match.path], abs=1e-3)
