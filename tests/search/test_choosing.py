"""Which object a class name means: the choice against plain loops in float64."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.extractor import FeatureExtractor
from features.regions import named_cells
from indexer.reader import IndexReader
from search.choosing import choose_object, regions_of
from search.clock import Clock
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.methods.methods import find_method
from search.evaluation.retrieval import run_methods
from search.index import Index
from search.query import Query, SearchOptions
from search.reference import Reference, make_reference
from search.scoring.candidates import to_candidates
from search.scoring.confidence import probabilities
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES
from tests.helpers.benchmarks.query_results import whole_scores

PHOTOS = Path(__file__).parents[2] / "data" / "demo" / "photos"

# Photos of the sample collection, names of things in them, and the place of the region that is
# chosen: 0 is the one under the peak of the class map.
ASKED = [("003.jpg", "car", 0), ("024.jpg", "ice cream", 1), ("020.jpg", "cat", 1)]


@pytest.fixture
def reader(demo_index: Path) -> Iterator[IndexReader]:
    with IndexReader.open(demo_index) as opened:
        yield opened


def proposals(reference: Reference, extractor: FeatureExtractor, name: str) -> list[Reference]:
    vector = extractor.evidence_vector(name)
    assert vector is not None
    regions = regions_of(reference.maps, vector, reference.cells)
    return [replace(reference, cells=cells) for cells in regions]


def naive_worths(
    reader: IndexReader,
    ids: NDArray[np.int64],
    regions: list[Reference],
    extractor: FeatureExtractor,
    name: str,
) -> list[float]:
    """e sqrt(n) p of each region, over some photos, by loops in float64; the first's is higher."""
    maps = reader.read_maps(ids)
    appearance, semantic = (values.numpy().astype(np.float64) for values in reader.decode(maps))
    asked = [region.for_scoring(torch.device("cpu")) for region in regions]
    mean = to_candidates(reader, maps, asked).appearance.mean.numpy().astype(np.float64)
    score = SCORES["consistent"]
    scores = score_references(reader, maps.ids, asked, [score], Clock()).by_score["consistent"]
    background = extractor.background_vector()
    assert background is not None
    vector = extractor.class_vector(name).astype(np.float64) - background.astype(np.float64)
    photo = regions[0].maps
    usual = np.mean([cell @ vector for cell in photo.semantic[photo.frame.valid()].astype(float)])
    own = np.array([r.content_hash == photo.content_hash for r in reader.photos(maps.ids)])
    worths = []
    for place, (region, of_region) in enumerate(zip(asked, scores, strict=True)):
        likely = probabilities(of_region, len(ids), own)
        assert likely is not None
        first = [row for row in np.argsort(-of_region) if not own[row]][:3]
        evidence = []
        for row in first:
            cells = np.flatnonzero(maps.valid[row])
            theirs = appearance[row][cells] - mean
            theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
            for token in region.tokens.numpy().astype(np.float64):
                match = cells[np.argmax(theirs @ (token - mean))]
                evidence.append(semantic[row][match] @ vector)
        above = max(np.mean(evidence) - usual, 0)
        worth = above * len(region.tokens) ** 0.5 * np.mean(likely[first])
        worths.append(worth * 1.2 if place == 0 else worth)
    return worths


@pytest.mark.parametrize("step", [1, 2], ids=["all photos", "half of them"])
@pytest.mark.parametrize(("file", "name", "expected"), ASKED)
def test_the_region_whose_first_matches_agree_best_is_chosen(
    reader: IndexReader, tiny: FeatureExtractor, file: str, name: str, expected: int, step: int
) -> None:
    query = Query(PHOTOS / file, name)
    reference = make_reference(query, tiny)
    regions = proposals(reference, tiny, name)
    worths = naive_worths(reader, reader.ids[::step], regions, tiny, name)
    best, second = np.sort(worths)[::-1][:2]
    assert best > 1.05 * second  # so that another kernel chooses no other region
    assert int(np.argmax(worths)) == expected
    allowed = None if step == 1 else reader.ids[::step]
    chosen = choose_object(reader, query, reference, tiny, allowed, Clock())
    np.testing.assert_array_equal(chosen.cells, regions[expected].cells)


def test_regions_are_apart_until_nothing_is_left(tiny: FeatureExtractor) -> None:
    reference = make_reference(Query(PHOTOS / "024.jpg", "ice cream"), tiny)
    vector = tiny.evidence_vector("ice cream")
    assert vector is not None
    first, second, third = regions_of(reference.maps, vector, reference.cells)
    np.testing.assert_array_equal(first, reference.cells)
    np.testing.assert_array_equal(second, named_cells(reference.maps, vector, [first]))
    np.testing.assert_array_equal(third, named_cells(reference.maps, vector, [first, second]))
    assert len({cells.tobytes() for cells in (first, second, third)}) == 3
    everything = reference.maps.frame.valid()
    assert len(regions_of(reference.maps, vector, everything)) == 1


def test_what_a_name_alone_cannot_decide_stays(
    reader: IndexReader, tiny: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, name = PHOTOS / "024.jpg", "ice cream"
    reference = make_reference(Query(photo, name), tiny)
    shown = Query(photo, name, point=(50.0, 50.0))
    assert choose_object(reader, shown, reference, tiny, None, Clock()) is reference
    few = reader.ids[:19]
    assert choose_object(reader, Query(photo, name), reference, tiny, few, Clock()) is reference
    monkeypatch.setattr(tiny, "background_vector", lambda: None)
    by_eq_3 = make_reference(Query(photo, name), tiny)
    assert choose_object(reader, Query(photo, name), by_eq_3, tiny, None, Clock()) is by_eq_3
    assert (by_eq_3.cells != reference.cells).any()


def test_a_search_takes_the_chosen_object_of_each_photo(
    reader: IndexReader, tiny: FeatureExtractor
) -> None:
    also = Query(PHOTOS / "020.jpg", "cat")
    query = Query(PHOTOS / "024.jpg", "ice cream", also=(also,))
    index = Index(reader, tiny)
    answer = index.search(query)
    assert answer.timing["choose"] > 0
    unranked = index.search(query, SearchOptions(rerank=False))
    for view, found, first in zip(query.views, answer.references, unranked.references, strict=True):
        reference = make_reference(view, tiny)
        chosen = choose_object(reader, view, reference, tiny, None, Clock())
        np.testing.assert_array_equal(found.cells, chosen.cells)
        np.testing.assert_array_equal(index.preview(view).cells, chosen.cells)
        # Without re-ranking, nothing is compared that could choose.
        np.testing.assert_array_equal(first.cells, reference.cells)
        assert found.box != first.box


def test_an_evaluation_takes_the_object_that_a_search_takes(
    tiny: FeatureExtractor, tmp_path: Path
) -> None:
    root, work = tmp_path / "photos", tmp_path / "work"
    for number in range(7, 31):
        folder = root / ("treat" if number >= 20 else "other")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHOTOS / f"{number:03}.jpg", folder)
    classes = {"treat": "ice cream", "other": "car"}
    (root / "classes.json").write_text(json.dumps(classes))
    benchmark = read_folders(root)
    asked = [query for query in benchmark.queries if query.query.photo.stem in ("007", "024")]
    method = find_method("consistent-expanded-by-class")
    ran = run_methods(replace(benchmark, queries=asked), [method], tiny, work, quality="none")
    [place] = work.glob("*/index")
    with IndexReader.open(place) as reader:
        index = Index(reader, tiny)
        for query, scores in zip(asked, whole_scores(ran.results[0].queries), strict=True):
            by_name = replace(query.query, box=None)
            chosen = index.preview(by_name)
            assert (chosen.cells != make_reference(by_name, tiny).cells).any()
            found = dict(zip(benchmark.gallery, scores.tolist(), strict=True))
            answer = index.search(by_name, SearchOptions(top=25))
            assert len(answer.matches) == 24
            for match in answer.matches:
                assert match.score == pytest.approx(found[match.path], abs=1e-3)
