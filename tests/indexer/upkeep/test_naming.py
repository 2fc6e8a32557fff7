"""Objects that an index knows by name: kept, added to, renamed, forgotten, and checked."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.errors import WaldoError
from indexer.errors import FingerprintError, IndexDamagedError
from indexer.ingest.build import index_photos
from indexer.named_objects import NamedObject, NamedView, Verdict
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from indexer.upkeep.naming import (
    MOST_SAID_VIEWS,
    forget_object,
    merge_objects,
    name_object,
    record_verdicts,
    rename_object,
)
from indexer.upkeep.remove import remove
from tests.helpers.names import keep_name, named_view
from tests.helpers.pictures import save_photo
from tests.helpers.stores import PixelExtractor, make_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        save_photo(folder / f"{number}.png", 40, 30, seed=number)
    return folder


@pytest.fixture
def index(photos: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "index"
    index_photos([photos], directory, PixelExtractor(), batch_size=2)
    return directory


def assert_same(one: NamedView, other: NamedView) -> None:
    assert (one.photo, one.class_name) == (other.photo, other.class_name)
    assert (one.maps.frame, one.maps.content_hash) == (other.maps.frame, other.maps.content_hash)
    np.testing.assert_array_equal(one.maps.appearance, other.maps.appearance)
    np.testing.assert_array_equal(one.maps.semantic, other.maps.semantic)
    np.testing.assert_array_equal(one.cells, other.cells)
    np.testing.assert_array_equal(one.class_vector, other.class_vector)


def read(index: Path, name: str) -> NamedObject:
    with IndexReader.open(index) as reader:
        return reader.named(name)


@pytest.mark.parametrize("name", ["Rex", "Zoë's cup: 2", "狗", "a" * 100, "...", "-x"])
def test_a_name_keeps_the_features_of_its_photos(index: Path, photos: Path, name: str) -> None:
    own, other = named_view(photos / "0.png", class_name="dog"), named_view(photos / "1.png", row=0)
    keep_name(index, NamedObject(name, (own,), (other,)))
    (photos / "0.png").unlink()
    found = read(index, name)
    assert found.name == name
    assert_same(found.views[0], own)
    assert_same(found.unlike[0], other)
    with IndexReader.open(index) as reader:
        assert reader.names == {name: 1}
    assert verify(index) == []
    assert {path.parent for path in index.rglob("*.safetensors")} <= {index, index / "names"}


def test_photos_are_added_to_a_name_that_is_known(index: Path, photos: Path) -> None:
    keep_name(index, NamedObject("Rex", (named_view(photos / "0.png"),)))
    kept = keep_name(
        index, NamedObject("Rex", (named_view(photos / "1.png"),), (named_view(photos / "2.png"),))
    )
    found = read(index, "Rex")
    assert [one.photo.name for one in found.views] == ["0.png", "1.png"]
    assert [one.photo.name for one in found.unlike] == ["2.png"]
    assert len(kept.views) == 2
    again = NamedObject("Rex", (named_view(photos / "0.png"), named_view(photos / "0.png", row=2)))
    kept = keep_name(index, again)
    assert [(one.photo.name, one.cells[2].any()) for one in kept.views] == [
        ("0.png", False),
        ("1.png", False),
        ("0.png", True),
    ]
    assert len(list((index / "names").iterdir())) == 1


def test_names_stay_through_whatever_happens_to_the_photos(index: Path, photos: Path) -> None:
    own = named_view(photos / "0.png")
    keep_name(index, NamedObject("Rex", (own,)))
    save_photo(photos / "9.png", 50, 40, seed=9)
    index_photos([photos], index, PixelExtractor(), batch_size=2)
    remove(index, [photos / "0.png"])
    compact(index)
    assert_same(read(index, "Rex").views[0], own)
    moved = index.with_name("moved")
    index.rename(moved)
    assert_same(read(moved, "Rex").views[0], own)
    assert verify(moved) == []


def test_features_of_another_model_get_no_name(index: Path, photos: Path) -> None:
    named = NamedObject("Rex", (named_view(photos / "0.png"),))
    before = read_manifest(index)
    with pytest.raises(FingerprintError, match="model pixels, but model other"):
        name_object(index, named, PixelExtractor(model="other").fingerprint())
    assert read_manifest(index) == before


def test_a_name_is_changed_and_forgotten(index: Path, photos: Path) -> None:
    keep_name(index, NamedObject("Rex", (named_view(photos / "0.png"),)))
    keep_name(index, NamedObject("Max", (named_view(photos / "1.png"),)))
    rename_object(index, "Rex", "Roy")
    assert read(index, "Roy").name == "Roy"
    with pytest.raises(WaldoError, match="Max: is a name already; `waldo merge Max Roy` makes one"):
        rename_object(index, "Roy", "Max")
    with pytest.raises(WaldoError, match="Roy: is its name already"):
        rename_object(index, "Roy", "Roy")
    with pytest.raises(WaldoError, match=r"@Rey: .* no object of this name; did you mean Roy\?"):
        forget_object(index, "Rey")
    forget_object(index, "Roy")
    with IndexReader.open(index) as reader:
        assert reader.names == {"Max": 1}
    forget_object(index, "Max")
    assert "names" not in (index / "manifest.json").read_text()
    assert list((index / "names").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", " ", " Rex", "Rex ", "a\nb", "a/b", "@Rex", ".", "..", "a@1,2", "a" * 101]
)
def test_what_cannot_be_a_name_is_refused(index: Path, photos: Path, name: str) -> None:
    before = read_manifest(index)
    with pytest.raises(WaldoError, match="name"):
        keep_name(index, NamedObject(name, (named_view(photos / "0.png"),)))
    assert read_manifest(index) == before


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x")])
def test_a_lost_name_is_told_and_spoils_nothing_else(
    index: Path, photos: Path, harm: Callable[[Path], object]
) -> None:
    keep_name(index, NamedObject("Rex", (named_view(photos / "0.png"),)))
    keep_name(index, NamedObject("Max", (named_view(photos / "1.png"),)))
    record = read_manifest(index).named("Rex")
    assert record is not None
    harm(index / record.file.name)
    [problem] = verify(index)
    assert problem.endswith("forget this name (`waldo forget`), and name the object again")
    with pytest.raises(IndexDamagedError, match="name the object again"):
        read(index, "Rex")
    assert read(index, "Max").name == "Max"
    index_photos([photos], index, PixelExtractor(), batch_size=2)
    forget_object(index, "Rex")
    assert verify(index) == []


def test_a_reader_keeps_the_names_that_it_opened(index: Path, photos: Path) -> None:
    keep_name(index, NamedObject("Rex", (named_view(photos / "0.png"),)))
    with IndexReader.open(index) as reader:
        forget_object(index, "Rex")
        assert reader.named("Rex").name == "Rex"


def said(photo: Path, shows: bool, row: int = 1) -> Verdict:
    view = named_view(photo, row)
    return Verdict(photo, view.maps.content_hash, shows, view)


def say(index: Path, name: str, *verdicts: Verdict) -> None:
    record_verdicts(index, name, verdicts, PixelExtractor().fingerprint())


def test_a_merge_keeps_the_places_confirmed_for_the_name_that_stays(
    index: Path, tmp_path: Path
) -> None:
    """There is room for twelve of either kind; the other name fills what the first leaves."""
    make_photos(tmp_path / "more", 30)
    more = sorted((tmp_path / "more").iterdir())
    for name, start in (("Rex", 0), ("Max", 15)):
        keep_name(index, NamedObject(name, (named_view(more[start], row=0),)))
        count = MOST_SAID_VIEWS if name == "Max" else MOST_SAID_VIEWS - 2
        say(index, name, *(said(photo, True, 0) for photo in more[start + 1 : start + 1 + count]))
    kept = merge_objects(index, "Rex", "Max")
    places = [view.photo for view in kept.references]
    assert places == [more[0], more[15], *more[1:11], *more[16:18]]
    assert len(kept.verdicts) == 22


def test_a_photo_that_names_an_object_is_not_refused_any_more(index: Path, photos: Path) -> None:
    keep_name(index, NamedObject("Rex", (named_view(photos / "0.png"),)))
    say(index, "Rex", said(photos / "1.png", False), said(photos / "2.png", False))
    kept = keep_name(index, NamedObject("Rex", (named_view(photos / "1.png", row=2),)))
    assert [one.photo.name for one in kept.verdicts] == ["2.png"]
    assert [one.photo.name for one in kept.others] == ["2.png"]
    unlike = NamedObject(
        "Rex", (named_view(photos / "2.png"),), (named_view(photos / "1.png", row=2),)
    )
    kept = keep_name(index, unlike)
    assert [one.photo.name for one in kept.views] == ["0.png", "2.png"]
    assert [one.photo.name for one in kept.others] == ["1.png"]
    kept = keep_name(index, NamedObject("Rex", (named_view(photos / "1.png", row=2),)))
    assert [one.photo.name for one in kept.views] == ["0.png", "2.png", "1.png"]
    assert kept.others == ()


def test_where_merged_names_contradict_each_other_the_first_holds(
    index: Path, photos: Path
) -> None:
    zero, one, two = (photos / f"{number}.png" for number in range(3))
    keep_name(index, NamedObject("Rex", (named_view(zero),)))
    say(index, "Rex", said(one, False), said(two, True))
    keep_name(index, NamedObject("Max", (named_view(one), named_view(two)), (named_view(zero),)))
    say(index, "Max", said(zero, False))
    kept = merge_objects(index, "Rex", "Max")
    assert [view.photo for view in kept.views] == [zero, two]
    assert [(each.photo, each.shows) for each in kept.verdicts] == [(one, False)]
    assert [view.photo for view in kept.others] == [one]
