"""Searches for objects that the index knows by name."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.errors import RegionError, WaldoError
from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.upkeep.naming import name_object
from search import Index, Query, SearchOptions, open_index
from tests.conftest import DEMO

CAT = Query(DEMO / "query" / "cat.jpg", box=(172.0, 31.0, 333.0, 164.0))


@pytest.fixture(scope="module")
def directory(sample_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sample index that knows the cat, by a photo that is gone since."""
    copy = tmp_path_factory.mktemp("named") / "index"
    shutil.copytree(sample_index, copy)
    photo = copy.with_name("cat.jpg")
    shutil.copy(CAT.photo, photo)
    with open_index(copy, device="cpu") as index:
        asked = replace(CAT, photo=photo, unlike=(other(index, 5),))
        named = index.object_named("Tom", asked)
        name_object(copy, named, index.reader.fingerprint)
        second = index.object_named("the second", other(index, 9))
        name_object(copy, second, index.reader.fingerprint)
    photo.unlink()
    return copy


def other(index: Index, number: int) -> Query:
    [record] = index.reader.photos([number])
    return Query(record.path, box=(20.0, 20.0, 180.0, 180.0))


@pytest.fixture
def index(directory: Path) -> Iterator[Index]:
    with open_index(directory, device="cpu") as opened:
        yield opened


def told(index: Index, query: Query) -> list[tuple[int, float]]:
    answer = index.search(query, SearchOptions(top=10))
    return [(match.id, match.score) for match in answer.matches]


def test_a_name_answers_as_its_photos_do(index: Index) -> None:
    by_name = told(index, Query(Path("@Tom")))
    by_photos = told(index, replace(CAT, unlike=(other(index, 5),)))
    assert [number for number, _ in by_name] == [number for number, _ in by_photos]
    np.testing.assert_allclose(
        [score for _, score in by_name], [score for _, score in by_photos], rtol=1e-5
    )


def test_no_model_is_needed(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(FeatureExtractor, "extract", fails)
    monkeypatch.setattr(FeatureExtractor, "class_vector", fails)
    answer = index.search(Query(Path("@Tom")))
    assert answer.query.of_name == "Tom"
    assert answer.query.photo.name == "cat.jpg"
    assert [view.of_name for view in answer.query.unlike] == ["Tom"]
    assert len(answer.references) == len(answer.query.views) == 1


def test_names_stand_wherever_photos_do(index: Index) -> None:
    """As another view, and as what the object is not; what that is not counts for nothing."""
    second = other(index, 9)
    also = told(index, replace(second, also=(Query(Path("@Tom")),)))
    plain = replace(second, also=(CAT,), unlike=(other(index, 5),))
    assert [n for n, _ in also] == [n for n, _ in told(index, plain)]
    unlike = told(index, replace(second, unlike=(Query(Path("@Tom")),)))
    plain = replace(second, unlike=(CAT,))
    assert [n for n, _ in unlike] == [n for n, _ in told(index, plain)]


def test_two_names_are_merged(index: Index, directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(directory, copy)
    second = index.object_named("Tom", Query(Path("@the second")))
    kept = name_object(copy, second, index.reader.fingerprint)
    assert [view.photo.name for view in kept.views] == ["cat.jpg", "010.jpg"]
    with open_index(copy, device="cpu") as merged:
        answer = merged.search(Query(Path("@Tom")), SearchOptions(top=3))
    assert len(answer.references) == 2


def test_a_class_name_is_kept_and_may_be_replaced(index: Index) -> None:
    named = index.object_named("x", replace(CAT, class_name="cat"))
    [view] = named.views
    assert view.class_name == "cat"
    np.testing.assert_array_equal(view.class_vector, index.extractor.class_vector("cat"))
    asked = SearchOptions(score="semantic")
    with pytest.raises(WaldoError, match="needs the object's class name"):
        index.search(Query(Path("@Tom")), asked)
    assert index.search(Query(Path("@Tom"), "cat"), asked).query.class_name == "cat"


def test_what_is_wrong_with_a_name_is_said(index: Index) -> None:
    with pytest.raises(WaldoError, match=r"@Tam: .* did you mean Tom\?"):
        index.search(Query(Path("@Tam")))
    with pytest.raises(RegionError, match="@Tom: the name says where the object is"):
        index.search(Query(Path("@Tom"), box=(0.0, 0.0, 9.0, 9.0)))


def test_an_index_that_knows_no_name_says_how_to_add_one(
    small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(CAT.photo, tmp_path / "photos")
    index_photos([tmp_path / "photos"], tmp_path / "index", small_tiny, batch_size=4)
    with (
        open_index(tmp_path / "index", device="cpu") as index,
        pytest.raises(WaldoError, match="knows no object of this name; it knows none; `waldo name"),
    ):
        index.search(Query(Path("@Tom")))
