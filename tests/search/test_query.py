"""A query through a real model, a real store and FAISS."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from features.errors import RegionError, WaldoError
from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from search import Index, Query, SearchOptions, open_index
from tests.helpers.naive_pdm import exhaustive_pdm
from tests.helpers.pictures import save_photo


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for i in range(12):
        save_photo(folder / f"{i:02}.png", 60 + 9 * i, 100 - 5 * i, seed=i)
    return folder


@pytest.fixture(scope="module")
def index(
    pipeline_folder: Callable[[str], Path],
    gallery: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Index]:
    extractor = FeatureExtractor.load(str(pipeline_folder("sd2")), device="cpu", batch_size=4)
    directory = tmp_path_factory.mktemp("store") / "index"
    # maps as they are, so that answers can be compared with float64 to the last digit
    index_photos([gallery], directory, extractor, batch_size=4, quality="none")
    with open_index(directory, device="cpu") as opened:
        yield opened


@pytest.mark.parametrize("class_name", [None, "dog"])
def test_recall_is_the_papers_exhaustive_ranking(
    index: Index, gallery: Path, class_name: str | None
) -> None:
    query = Query(gallery / "03.png", class_name, box=(10, 10, 60, 70))
    expected = exhaustive_pdm(index, gallery, query)
    by_recall = index.search(query, SearchOptions(score="pdm", rerank=False)).matches
    assert [match.path.name for match in by_recall] == [name for _, name in expected]
    # Features made one by one here and four at once in the store differ by rounding.
    np.testing.assert_allclose(
        [match.score for match in by_recall], [-value for value, _ in expected], rtol=1e-2
    )
    by_pdm = index.search(query, SearchOptions(score="pdm")).matches
    assert [match.path.name for match in by_pdm] == [name for _, name in expected]
    np.testing.assert_allclose(
        [match.score for match in by_pdm], [match.recall_score for match in by_pdm], rtol=1e-4
    )


def test_the_query_photo_and_its_copies_are_marked(index: Index, gallery: Path) -> None:
    answer = index.search(Query(gallery / "05.png", box=(20, 20, 70, 60)))
    assert [match.path.name for match in answer.matches if match.is_query] == ["05.png"]
    # Every reference token finds itself: nothing can be nearer.
    assert answer.matches[0].is_query
    assert answer.matches[0].score == pytest.approx(1.0, abs=1e-3)


def test_boxes_lie_in_the_photos(index: Index, gallery: Path) -> None:
    answer = index.search(Query(gallery / "02.png", "dog"))
    assert [match.rank for match in answer.matches] == list(range(1, 13))
    for match in answer.matches:
        x0, y0, x1, y1 = match.box
        assert 0 <= x0 < x1 <= match.frame.width
        assert 0 <= y0 < y1 <= match.frame.height
    assert set(answer.timing) == {
        "extract",
        "recall",
        "fetch",
        "score",
        "expand",
        "localise",
        "total",
    }


def test_candidates_limit_what_is_re_ranked(index: Index, gallery: Path) -> None:
    query = Query(gallery / "04.png", box=(0, 0, 50, 50))
    recalled = index.search(query, SearchOptions(top=5, rerank=False)).matches
    re_ranked = index.search(query, SearchOptions(top=5, candidates=5)).matches
    assert {match.id for match in recalled} == {match.id for match in re_ranked}
    # --top is filled even where fewer candidates were asked for.
    assert len(index.search(query, SearchOptions(top=7, candidates=2)).matches) == 7


def test_what_a_query_must_say(index: Index, gallery: Path) -> None:
    photo = gallery / "00.png"
    with pytest.raises(RegionError, match="say which object"):
        index.search(Query(photo))
    with pytest.raises(RegionError, match="give one of"):
        index.search(Query(photo, box=(0, 0, 5, 5), point=(1, 1)))
    with pytest.raises(WaldoError, match="no such score"):
        index.search(Query(photo, "dog"), SearchOptions(score="best"))
    with pytest.raises(WaldoError, match="needs the object's class name"):
        index.search(Query(photo, point=(3, 3)), SearchOptions(score="semantic"))


def test_confidence_needs_photos_to_compare_with(index: Index, gallery: Path) -> None:
    query = Query(gallery / "04.png", box=(0, 0, 50, 50))
    assert {match.confidence for match in index.search(query).matches} == {None}
    assert index.search(query).found is None
    with pytest.raises(WaldoError, match="12 photos are too few"):
        index.search(query, SearchOptions(min_confidence=0.5))
    with pytest.raises(WaldoError, match="needs re-ranking"):
        index.search(query, SearchOptions(rerank=False, min_confidence=0.5))


def test_a_preview_is_what_a_search_takes_as_the_object(index: Index, gallery: Path) -> None:
    query = Query(gallery / "03.png", "dog", box=(10, 10, 60, 70))
    [searched] = index.search(query, SearchOptions(top=1)).references
    previewed = index.preview(query)
    np.testing.assert_array_equal(previewed.cells, searched.cells)
    assert previewed.box == searched.box
    with pytest.raises(RegionError, match="box"):
        index.preview(Query(gallery / "03.png", box=(500, 500, 600, 600)))


def test_a_photo_asked_about_again_is_not_extracted_again(
    index: Index, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.preview(Query(gallery / "05.png", point=(40, 40)))

    def fails(*_: object) -> None:
        raise AssertionError("extracted again")

    monkeypatch.setattr(type(index.extractor), "extract", fails)
    index.preview(Query(gallery / "05.png", point=(50, 30)))
    with pytest.raises(AssertionError, match="extracted again"):
        index.preview(Query(gallery / "06.png", point=(40, 40)))
