"""One search over several indexes of the same photos, against a loop in float64."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from features.models import find_extractor
from indexer.ingest.build import index_photos
from indexer.upkeep.naming import name_object
from search import Answer, Index, Query, SearchOptions, open_index, search_indexes
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo

COUNT = 24
ALL = SearchOptions(top=COUNT)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for i in range(COUNT):
        save_photo(folder / f"{i:02}.png", 60 + 4 * i, 110 - 2 * i, seed=i)
    return folder


@pytest.fixture(scope="module")
def first(
    pipeline_folder: Callable[[str], Path], gallery: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Index]:
    extractor = FeatureExtractor.load(str(pipeline_folder("sd2")), device="cpu", batch_size=8)
    folder = tmp_path_factory.mktemp("first")
    index_photos([gallery], folder, extractor)
    with open_index(folder, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def second(
    vision_folder: Callable[[str], Path], gallery: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Index]:
    """Of a model that knows no words, without one photo of the gallery, and with one more."""
    photos = tmp_path_factory.mktemp("photos")
    for photo in sorted(gallery.iterdir())[1:]:
        (photos / photo.name).write_bytes(photo.read_bytes())
    save_photo(photos / "only-here.png", 80, 90, seed=99)
    folder = tmp_path_factory.mktemp("second")
    index_photos([photos], folder, find_extractor(str(vision_folder("dinov2")), "cpu", 8))
    with open_index(folder, device="cpu") as opened:
        yield opened


def naive_heights(answer: Answer) -> dict[str, float]:
    """Scores in standard deviations above their median, by the name of the photo's file."""
    scores = np.array([match.score for match in answer.matches], dtype=np.float64)
    median, high = np.quantile(scores, [0.5, 0.9])
    deviation = (high - median) / 1.2816
    return {match.path.name: (match.score - median) / deviation for match in answer.matches}


def together(heights: list[float]) -> float:
    p_values = scipy.stats.norm.sf(heights)
    return float(scipy.stats.norm.isf(scipy.stats.combine_pvalues(p_values).pvalue))


@pytest.mark.parametrize("also", [False, True])
def test_scores_are_heights_above_chance_by_fishers_method(
    first: Index, second: Index, gallery: Path, also: bool
) -> None:
    others = (Query(gallery / "09.png", point=(40, 50)),) if also else ()
    query = Query(gallery / "05.png", box=(10, 10, 60, 70), also=others)
    alone = [naive_heights(index.search(query, ALL)) for index in (first, second)]
    fused = search_indexes([first, second], query, ALL)
    # By all photos that the second index holds; the first one lacks one of them.
    assert [line for line in fused.damaged if "lacks 1 of the photos" in line]
    assert {m.path.name for m in fused.matches} == {f"{i:02}.png" for i in range(COUNT)}
    for match in fused.matches:
        name = match.path.name
        heights = [one[name] for one in alone if name in one]
        assert len(heights) == 1 + (name != "00.png")
        assert match.score == pytest.approx(together(heights), rel=1e-4, abs=1e-4)
        assert match.probability is None
    scores = [match.score for match in fused.matches]
    assert scores == sorted(scores, reverse=True)


def test_photos_are_shown_as_the_first_index_shows_them(
    first: Index, second: Index, gallery: Path
) -> None:
    query = Query(gallery / "05.png", box=(10, 10, 60, 70))
    alone = {match.path: match for match in first.search(query, ALL).matches}
    for match in search_indexes([first, second], query, ALL).matches:
        own = alone[match.path]
        assert (match.id, match.pairs) == (own.id, own.pairs)
        assert match.recall_score == pytest.approx(own.recall_score, rel=1e-6)
        np.testing.assert_array_equal(match.heatmap, own.heatmap)


def test_a_photo_that_one_index_recalls_is_compared_by_all(
    first: Index, second: Index, gallery: Path
) -> None:
    query = Query(gallery / "05.png", box=(10, 10, 60, 70))
    few = SearchOptions(top=4, candidates=4)
    recalled = {
        match.path.name
        for index in (first, second)
        for match in index.search(query, SearchOptions(top=4, rerank=False)).matches
    } - {"only-here.png"}
    options = SearchOptions(top=COUNT, candidates=4)
    assert len(recalled) > 4
    assert {m.path.name for m in search_indexes([first, second], query, few).matches} <= recalled
    assert len(search_indexes([first, second], query, options).matches) == COUNT


def test_a_class_name_asks_the_other_model_for_what_the_first_one_takes(
    first: Index, second: Index, gallery: Path
) -> None:
    by_class = Query(gallery / "05.png", "dog")
    with pytest.raises(WaldoError, match="knows no words"):
        second.search(by_class)
    taken = first.preview(by_class).box
    heights = naive_heights(second.search(Query(gallery / "05.png", "dog", box=taken), ALL))
    own = naive_heights(first.search(by_class, ALL))
    for match in search_indexes([first, second], by_class, ALL).matches:
        name = match.path.name
        values = [one[name] for one in (own, heights) if name in one]
        assert match.score == pytest.approx(together(values), rel=1e-4, abs=1e-4)


def test_a_name_is_known_to_the_first_index(first: Index, second: Index, gallery: Path) -> None:
    query = Query(gallery / "07.png", box=(5, 5, 50, 60))
    named = first.object_named("Rex", query)
    name_object(first.reader.index_dir, named, first.reader.fingerprint)
    with open_index(first.reader.index_dir, device="cpu") as renamed:
        answer = search_indexes([renamed, second], Query(Path("@Rex")), ALL)
    assert len(answer.matches) == COUNT
    assert answer.matches[0].path.name == "07.png"


def test_two_indexes_from_the_terminal(
    waldo: CommandLine, first: Index, second: Index, gallery: Path
) -> None:
    indexes = ("--index", first.reader.index_dir, "--index", second.reader.index_dir)
    ask = ("query", gallery / "05.png", "--box", "10,10,60,70", *indexes)
    printed = waldo(*ask, "--json", "--top", 3)
    expected = search_indexes([first, second], Query(gallery / "05.png", box=(10, 10, 60, 70)))
    found = json.loads(printed.out)["matches"]
    assert [match["id"] for match in found] == [match.id for match in expected.matches[:3]]
    assert "lacks 1 of the photos" in printed.err
    assert "leave out --no-rerank" in waldo.refusal(*ask, "--no-rerank")
    assert "no index here" in waldo.refusal(*ask, "--index", gallery)


def test_one_index_is_searched_as_ever(first: Index, gallery: Path) -> None:
    query = Query(gallery / "05.png", box=(10, 10, 60, 70))
    alone, answer = first.search(query), search_indexes([first], query)
    assert [m.score for m in answer.matches] == [m.score for m in alone.matches]


def test_several_indexes_need_re_ranking(first: Index, second: Index, gallery: Path) -> None:
    query = Query(gallery / "05.png", box=(10, 10, 60, 70))
    with pytest.raises(WaldoError, match="leave out --no-rerank"):
        search_indexes([first, second], query, SearchOptions(rerank=False))
