"""What people say of photos: it is kept, it counts more than scores, and it sharpens names."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

import search.albums.comparing as comparing
from features.errors import RegionError, WaldoError
from indexer.ingest.build import index_photos
from indexer.named_objects import NamedObject, NameSummary
from indexer.reader import IndexReader
from indexer.store.album_rows import AlbumRows
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from indexer.upkeep.naming import MOST_SAID_VIEWS, merge_objects
from indexer.upkeep.remove import remove
from search.albums.album import (
    Album,
    AlbumPhoto,
    _scores_of_all,
    fitted_threshold,
    read_album,
    read_albums,
)
from search.albums.album import _without_contests as without_contests
from search.albums.comparing import ComparedName
from search.albums.filling import fill_albums
from search.albums.verdicts import Said, find_photo, say_of_photos
from tests.helpers.names import keep_name, named_view
from tests.helpers.stores import PixelExtractor, make_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", 40)
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(comparing, "_NEAR", 0.1)
    directory = tmp_path / "index"
    index_photos([photos], directory, PixelExtractor(), batch_size=8)
    keep_name(directory, NamedObject("Rex", (named_view(photos / "photo-000.png"),)))
    fill_albums(directory)
    return directory


def album_of(index: Path, name: str = "Rex") -> Album:
    with IndexReader.open(index) as reader:
        return read_album(reader, name)


def named(index: Path, name: str = "Rex") -> NamedObject:
    with IndexReader.open(index) as reader:
        return reader.named(name)


def test_what_is_said_holds_and_is_kept_through_everything(index: Path, photos: Path) -> None:
    unlikely, likely = 33, next(p.id for p in album_of(index).photos if p.said is None)
    say_of_photos(index, "Rex", [Said(unlikely, True), Said(likely, False)])
    fill_albums(index)

    def assert_said(yes: int | None, no: int) -> None:
        told = {photo.id: photo for photo in album_of(index).photos}
        if yes is not None:
            assert (told[yes].said, told[yes].shown, told[yes].probability) == (True, True, 1.0)
        assert (told[no].said, told[no].shown, told[no].probability) == (False, False, 0.0)
        kept = named(index)
        assert {one.photo.name: one.shows for one in kept.verdicts} == {
            f"photo-{unlikely:03}.png": True,
            f"photo-{likely:03}.png": False,
        }
        assert len(kept.references) == len(kept.views) + 1
        assert len(kept.others) == 1

    assert_said(unlikely, likely)
    (photos / f"photo-{unlikely:03}.png").rename(photos / "moved.png")
    index_photos([photos], index, PixelExtractor(), batch_size=8)
    fill_albums(index)
    assert_said(unlikely, likely)
    remove(index, [photos / "moved.png"])
    compact(index)
    fill_albums(index)
    assert_said(None, likely)
    index_photos([photos], index, PixelExtractor(), batch_size=8)
    fill_albums(index)
    with IndexReader.open(index) as reader:
        again = find_photo(reader, str(photos / "moved.png")).id
    assert_said(again, likely)
    assert verify(index) == []


def test_the_last_word_on_a_photo_holds(index: Path) -> None:
    say_of_photos(index, "Rex", [Said(5, True), Said(7, True)])
    say_of_photos(index, "Rex", [Said(5, False, (0.0, 0.0, 20.0, 20.0))])
    kept = named(index)
    assert [(one.photo.name, one.shows) for one in kept.verdicts] == [
        ("photo-005.png", False),
        ("photo-007.png", True),
    ]
    [refused] = kept.others
    assert refused.maps.frame.box_of(refused.cells)[2:] <= (20, 20)


def test_names_are_compared_by_so_many_photos_and_no_more(index: Path) -> None:
    say_of_photos(index, "Rex", [Said(number, True) for number in range(1, 20)])
    kept = named(index)
    assert len(kept.verdicts) == 19
    assert len(kept.references) == 1 + MOST_SAID_VIEWS
    fill_albums(index)
    assert len(album_of(index).shown) >= 20


def test_a_photo_does_not_vouch_for_itself(index: Path) -> None:
    before = {photo.id: photo.score for photo in album_of(index).photos}
    say_of_photos(index, "Rex", [Said(12, True), Said(13, False)])
    with IndexReader.open(index) as reader:
        name = ComparedName.of(reader.named("Rex"), PixelExtractor().device)
        contents = reader.table.hashes[[0, 12, 13, 14]]
    by_reference = np.array(
        [[0.9, 0.2, 0.3, 0.1], [0.4, 1.0, 0.35, 0.15], [0.1, 0.1, 1.0, 0.45]], np.float32
    )
    scores, likest = name.combined(by_reference, contents)
    np.testing.assert_allclose(scores, [0.4, 0.2, 0.35, 0.15 - 0.5 * 0.3], atol=1e-6)
    assert likest.tolist() == [1, 0, 1, 1]
    assert before[0] == pytest.approx(1.0, abs=0.05)  # it is the only reference there is


@pytest.mark.parametrize("seed", range(4))
def test_a_threshold_errs_least(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shows = np.repeat([True, False], [11, 14])
    scores = np.round(np.where(shows, 0.6, 0.5) + 0.1 * rng.normal(size=25), 2)

    def errors(threshold: float) -> int:
        return int(((scores >= threshold) != shows).sum())

    found = fitted_threshold(scores.tolist(), shows.tolist())
    assert found is not None
    assert errors(found) == min(errors(one) for one in np.arange(0, 1.2, 0.0005))
    assert fitted_threshold(scores[:20].tolist(), shows[:20].tolist()) is None  # nine do not show


def test_a_threshold_is_fitted_when_ten_of_each_were_said(index: Path) -> None:
    say_of_photos(index, "Rex", [Said(number, number < 11) for number in range(1, 20)])
    fill_albums(index)
    assert album_of(index).threshold is None  # ten show it, nine do not
    say_of_photos(index, "Rex", [Said(25, False)])
    fill_albums(index)
    album = album_of(index)
    assert album.threshold is not None
    for photo in album.photos:
        if photo.said is None:
            assert photo.shown == (photo.score >= album.threshold)


def test_chance_is_told_by_few_photos_as_by_all() -> None:
    """Of 5,000 photos 200 are known, and 96 others stand for the rest."""
    rng = np.random.default_rng(1)
    every = rng.normal(0.5, 0.05, 5000)
    near = every + rng.normal(0, 0.03, 5000)
    listed = near >= np.sort(near)[-200]
    sampled = rng.choice(np.flatnonzero(~listed), 96, replace=False)
    some = _scores_of_all(every[listed].astype(np.float32), every[sampled].astype(np.float32), 5000)
    known, told = np.quantile(every, [0.5, 0.9]), np.quantile(some, [0.5, 0.9])
    np.testing.assert_allclose(told, known, atol=0.015)
    whole = _scores_of_all(every[:60].astype(np.float32), every[60:100].astype(np.float32), 100)
    np.testing.assert_allclose(
        np.quantile(whole, [0.5, 0.9]), np.quantile(every[:100], [0.5, 0.9]), atol=0.003
    )


def photo(box: tuple[int, int, int, int], probability: float, said: bool | None = None) -> Album:
    shown = AlbumPhoto(3, probability, 0.5, box, said, shown=True)
    return Album("", (shown,), 0, None)


def test_of_two_names_that_want_one_region_the_likelier_has_it() -> None:
    box, near, far = (10, 10, 60, 60), (14, 10, 64, 60), (60, 60, 99, 99)

    def decide(**albums: Album) -> dict[str, AlbumPhoto]:
        named = {name: Album(name, one.photos, 0, None) for name, one in albums.items()}
        return {name: album.photos[0] for name, album in without_contests(named).items()}

    told = decide(Rex=photo(box, 0.7), Max=photo(near, 0.9), Tom=photo(far, 0.6))
    assert (told["Rex"].shown, told["Rex"].lost_to, told["Rex"].rivals) == (False, "Max", ("Max",))
    assert (told["Max"].shown, told["Max"].lost_to, told["Max"].rivals) == (True, None, ("Rex",))
    assert (told["Tom"].shown, told["Tom"].rivals) == (True, ())
    told = decide(Rex=photo(box, 1.0, said=True), Max=photo(near, 1.0))
    assert (told["Rex"].shown, told["Max"].shown) == (True, False)
    told = decide(Rex=photo(box, 1.0, said=True), Max=photo(near, 1.0, said=True))
    assert (told["Rex"].shown, told["Max"].shown) == (True, True)
    told = decide(Rex=photo(box, 0.8), Max=photo(box, 0.8))
    assert [one.shown for one in told.values()] == [False, True]  # by name, so never neither


def test_two_names_become_one_with_all_that_was_said(index: Path, photos: Path) -> None:
    keep_name(index, NamedObject("Max", (named_view(photos / "photo-001.png"),)))
    say_of_photos(index, "Rex", [Said(5, True), Said(6, True)])
    say_of_photos(index, "Max", [Said(5, False), Said(7, False)])
    kept = merge_objects(index, "Rex", "Max")
    assert [view.photo.name for view in kept.views] == ["photo-000.png", "photo-001.png"]
    said = {one.photo.name[6:9]: one.shows for one in kept.verdicts}
    assert said == {"005": True, "006": True, "007": False}
    fill_albums(index)
    with IndexReader.open(index) as reader:
        assert list(read_albums(reader)) == ["Rex"]
    with pytest.raises(WaldoError, match="Rex: is one name already"):
        merge_objects(index, "Rex", "Rex")


def test_what_cannot_be_said_is_refused_whole(index: Path) -> None:
    for said, line in (
        ([Said(1, True), Said(0, False)], "Rex was named by this photo"),
        ([Said(1, True), Said(999, True)], "no photo has the id 999"),
    ):
        with pytest.raises(WaldoError, match=line):
            say_of_photos(index, "Rex", said)
    with pytest.raises(RegionError, match=r"photo-001.png: .*reaches beyond"):
        say_of_photos(index, "Rex", [Said(1, True, (500.0, 500.0, 600.0, 600.0))])
    with pytest.raises(WaldoError, match=r"@Tom: .* knows no object of this name"):
        say_of_photos(index, "Tom", [Said(1, True)])
    say_of_photos(index, "Rex", [Said(0, True)])  # as it was named
    assert named(index).verdicts == ()


def test_photos_are_found_by_path_and_by_id(
    index: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    with IndexReader.open(index) as reader:
        for text in ("photo-003.png", str(photos / "photo-003.png"), "3"):
            assert find_photo(reader, text).id == 3
        for text in ("photo-999.png", "999"):
            with pytest.raises(WaldoError, match="neither its path nor its id"):
                find_photo(reader, text)


def test_a_summary_of_nothing_said_says_nothing() -> None:
    from search.albums.album import said_of

    assert said_of(AlbumRows.none(), NameSummary(frozenset(), {}, {})).tolist() == []


def test_the_place_that_was_said_is_the_place_of_the_album(index: Path) -> None:
    """Also where enough photos are known, and before the photo is compared anew."""
    box, wider = (3.0, 4.0, 20.0, 15.0), (3, 4, 20, 15)
    say_of_photos(index, "Rex", [Said(30, False, box)])
    say_of_photos(index, "Rex", [Said(number, True, box) for number in range(1, 20)])
    assert named(index).verdicts[-1].view is None
    for _ in range(2):
        boxes = {photo.id: photo.box for photo in album_of(index).photos}
        assert [boxes[number] for number in (1, 19, 30)] == [wider] * 3
        fill_albums(index)
    by_itself = named(index).views[0]
    assert boxes[0] == by_itself.maps.frame.box_of(by_itself.cells)


def test_an_album_shows_what_was_said_before_it_is_filled(index: Path) -> None:
    likely = [photo.id for photo in album_of(index).shown if photo.said is None]
    say_of_photos(index, "Rex", [Said(33, True), Said(5, False)])
    album = album_of(index)
    assert [(photo.id, photo.shown) for photo in album.photos] == [
        (0, True),
        (33, True),
        (5, False),
    ]
    assert (album.waiting, {photo.score for photo in album.photos}) == (40, {None})
    fill_albums(index)
    album = album_of(index)
    assert (album.waiting, len(album.shown)) == (0, pytest.approx(2 + len(likely), abs=2))
    assert all(photo.score is not None for photo in album.photos)


def test_without_probabilities_albums_show_what_was_said_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer than 20 photos do not tell how chance scores."""
    monkeypatch.setattr(comparing, "_NEAR", 0.0)
    for photo in sorted(photos.iterdir())[19:]:
        photo.unlink()
    directory = tmp_path / "few"
    index_photos([photos], directory, PixelExtractor(), batch_size=8)
    keep_name(directory, NamedObject("Rex", (named_view(photos / "photo-000.png"),)))
    say_of_photos(directory, "Rex", [Said(7, True), Said(8, False)])
    fill_albums(directory)
    with IndexReader.open(directory) as reader:
        for least in (None, 0.05, 1.0):
            album = read_album(reader, "Rex", least)
            assert sorted(photo.id for photo in album.shown) == [0, 7]
            assert len(album.photos) == 19
            assert not album.estimated


def test_what_is_said_of_a_changed_photo_is_refused(index: Path, photos: Path) -> None:
    say_of_photos(index, "Rex", [Said(5, True)])
    (photos / "photo-005.png").write_bytes((photos / "photo-006.png").read_bytes())
    with pytest.raises(WaldoError, match=r"photo-005.png: was changed since it was indexed"):
        say_of_photos(index, "Rex", [Said(7, True), Said(5, False)])
    assert [(one.photo.name, one.shows) for one in named(index).verdicts] == [
        ("photo-005.png", True)
    ]


def test_yes_and_no_to_one_photo_are_refused(index: Path) -> None:
    with pytest.raises(WaldoError, match=r"photo-005.png: both yes and no were said of it"):
        say_of_photos(index, "Rex", [Said(5, True), Said(6, True), Said(5, False)])


def test_paths_are_known_however_their_accents_are_spelled(photos: Path, tmp_path: Path) -> None:
    for number, form in enumerate(("NFC", "NFD")):
        (photos / f"photo-{number:03}.png").rename(
            photos / unicodedata.normalize(form, f"é{'' if number else 'e'}.png")
        )
    directory = tmp_path / "accents"
    index_photos([photos], directory, PixelExtractor(), batch_size=8)
    with IndexReader.open(directory) as reader:
        for name in ("ée.png", "é.png"):
            found = {
                find_photo(reader, str(photos / unicodedata.normalize(form, name))).path.name
                for form in ("NFC", "NFD")
            }
            assert {unicodedata.normalize("NFC", each) for each in found} == {name}
            assert len(found) == 1
