"""Albums of named objects on the command line."""

import json
import shutil
import unicodedata
from pathlib import Path

import pytest

import search.albums.filling as filling
from features.extractor import FeatureExtractor
from indexer.store.locks import writer_lock
from tests.conftest import DEMO
from tests.helpers.command_line import CommandLine

pytestmark = pytest.mark.usefixtures("small_maps")

CAT = DEMO / "query" / "cat.jpg"
BOX = "172,31,333,164"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs it puts an index that knows Tom."""
    return tmp_path_factory.mktemp("named") / "index"


@pytest.fixture
def index(sample_index: Path, named: Path, tmp_path: Path, waldo: CommandLine) -> Path:
    """An index that knows Tom."""
    if not named.exists():
        unfinished = Path(shutil.copytree(sample_index, tmp_path / "unfinished"))
        assert waldo("name", "Tom", CAT, "--box", BOX, "--index", unfinished).code == 0
        unfinished.rename(named)
    return Path(shutil.copytree(named, tmp_path / "index"))


def test_an_album_is_told_shown_and_copied_without_the_model(
    waldo: CommandLine, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureExtractor, "extract", None)
    at = ("--index", index)
    told = json.loads(waldo("album", "Tom", "--json", *at).out)
    query = json.loads(waldo("query", "@Tom", "--json", *at).out)["matches"]
    shown = [photo for photo in told["photos"] if photo["shown"]]
    assert 0 < len(shown) < 10
    assert [photo["id"] for photo in shown] == [match["id"] for match in query[: len(shown)]]
    assert all(len(photo["box"]) == 4 for photo in shown)
    assert (told["name"], told["threshold"], told["waiting"]) == ("Tom", None, 0)

    page, copies = tmp_path / "tom.html", tmp_path / "tom"
    listed = waldo("album", "@Tom", "--html", page, "--export", copies, *at)
    assert [line.split()[-1] for line in listed.out.splitlines()[1:]] == [
        photo["path"] for photo in shown
    ]
    assert len(list(copies.iterdir())) == len(shown)
    assert page.read_text(encoding="utf-8").count("<figure>") == len(shown)
    answer = tmp_path / "answer.html"
    assert waldo("query", "@Tom", "--html", answer, "--top", "20", *at).code == 0
    assert answer.read_text(encoding="utf-8").count("in the album of Tom") == len(shown)
    more = json.loads(waldo("album", "Tom", "--min-probability", "0.05", "--json", *at).out)
    assert all(photo["shown"] for photo in more["photos"])
    assert more["photos"][: len(shown)] == shown
    assert len(more["photos"]) > len(shown)
    [named] = json.loads(waldo("named", "--json", *at).out)["named"]
    assert (named["shown_by"], named["yes"], named["no"]) == (len(shown), 0, 0)


def test_photos_are_confirmed_and_refused(waldo: CommandLine, index: Path) -> None:
    at = ("--index", index)
    first = json.loads(waldo("album", "Tom", "--json", *at).out)["photos"][0]
    said = waldo("refuse", "Tom", first["path"], *at)
    assert said.err.startswith("kept: 1 photo does not show Tom\nthe album of Tom has ")
    assert (
        waldo("confirm", "Tom", "70", f"{DEMO / 'photos' / '031.jpg'}@20,20,90,90", *at).code == 0
    )
    photos = json.loads(waldo("album", "Tom", "--json", *at).out)["photos"]
    [refused] = [photo for photo in photos if photo["id"] == first["id"]]
    assert (refused["said"], refused["shown"], refused["probability"]) == (False, False, 0)
    assert [photo["said"] for photo in photos[:2]] == [True, True]
    assert "yes" in waldo("album", "Tom", *at).out


def test_two_names_become_one(waldo: CommandLine, index: Path) -> None:
    at = ("--index", index)
    waldo("name", "Tim", DEMO / "photos" / "010.jpg", "--box", "20,20,180,180", *at)
    assert waldo("merge", "Tom", "@Tim", *at).code == 0
    [named] = json.loads(waldo("named", "--json", *at).out)["named"]
    assert (named["name"], len(named["photos"])) == ("Tom", 2)


def test_indexing_brings_albums_up_to_date(waldo: CommandLine, index: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    shutil.copy(CAT, tmp_path / "more" / "tom.jpg")
    run = waldo("index", tmp_path / "more", "--index", index)
    assert "albums brought up to date: 1" in run.err
    photos = json.loads(waldo("album", "Tom", "--json", "--index", index).out)["photos"]
    assert (Path(photos[0]["path"]).name, photos[0]["said"]) == ("tom.jpg", True)
    assert "albums" not in waldo("index", tmp_path / "more", "--index", index).err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("album", "Tam"), "did you mean Tom?"),
        (("album", "Tom", "--min-probability", "0.01"), "must be from 0.05 to 1"),
        (("confirm", "Tom", "nowhere.jpg"), "neither its path nor its id"),
        (("confirm", "Tom", ""), "'': no photo of"),
        (("confirm", "Tom", "²"), "²: no photo of"),
        (("confirm", "Tom", "9" * 23), "neither its path nor its id"),
        (("confirm", "Tom", "9" * 5000), "neither its path nor its id"),
        (("refuse", "Tom", "fünf @ ü/a@b.jpg"), "fünf @ ü/a@b.jpg: no photo of"),
        (("refuse", "Tom", "nowhere.jpg@1,2,30,40"), "nowhere.jpg: no photo of"),
        (("confirm", "Tom", "12@5,5"), "must be a box"),
        (("confirm", "Tom", "12@b.jpg"), "must be a box"),
        (("refuse", "Tom", "12@0,0,9000,9000"), "reaches beyond the photo"),
        (("confirm", "Tam", "12"), "did you mean Tom?"),
        (("merge", "Tom", "Tom"), "is one name already"),
    ],
)
def test_what_is_wrong_is_one_line(
    waldo: CommandLine, index: Path, arguments: tuple[object, ...], line: str
) -> None:
    assert line in waldo.refusal(*arguments, "--index", index)


def test_what_was_said_is_kept_though_another_run_writes(
    waldo: CommandLine, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run begins after the commit of what was said, before that of the album."""
    at = ("--index", index)
    fill = filling.fill_albums

    def fill_beside_another(index_dir: Path, device: str = "cpu") -> int:
        with writer_lock(index_dir):
            return fill(index_dir, device)

    monkeypatch.setattr(filling, "fill_albums", fill_beside_another)
    said = waldo("confirm", "Tom", "70", "70", *at)
    assert (said.code, said.err.splitlines()[:2]) == (
        0,
        ["kept: 1 photo shows Tom", "the album of Tom has 1 photo"],
    )
    assert "not compared yet; the album follows with the next run of `waldo index`" in said.err
    [photo] = json.loads(waldo("album", "Tom", "--json", *at).out)["photos"]
    assert (photo["id"], photo["said"], photo["shown"], photo["score"]) == (70, True, True, None)
    assert len(photo["box"]) == 4
    assert "follows with" in waldo("name", "Tim", CAT, "--box", BOX, *at).err
    assert waldo("merge", "Tom", "Tim", *at).code == 0
    monkeypatch.setattr(filling, "fill_albums", fill)
    more = waldo("refuse", "Tom", "12", *at).err
    assert "not compared yet" not in more


def test_photos_that_were_changed_or_are_gone_are_marked(
    waldo: CommandLine, tmp_path: Path
) -> None:
    """What is said of a photo is said of what it was when it was indexed."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in ("001.jpg", "002.jpg", "010.jpg", "012.jpg", "026.jpg", "031.jpg"):
        shutil.copy(DEMO / "photos" / photo, folder)
    path = folder / "fünf @ ü" / "a@b.jpg"
    path.parent.mkdir()
    shutil.copy(CAT, path)
    accents = folder / unicodedata.normalize("NFD", "été.jpg")
    (folder / "031.jpg").rename(accents)
    at = ("--index", tmp_path / "index")
    assert waldo("index", folder, *at).code == 0
    assert waldo("name", "Tom", folder / "010.jpg", "--box", "20,20,180,180", *at).code == 0
    typed = unicodedata.normalize("NFC", str(accents))
    assert waldo("confirm", "Tom", path, typed, folder / "012.jpg", *at).code == 0
    path.unlink()
    shutil.copy(CAT, folder / "012.jpg")
    assert "was changed since it was indexed; run `waldo index`" in waldo.refusal(
        "refuse", "Tom", "2", folder / "012.jpg", *at
    )
    told = {
        Path(photo["path"]).name: (photo["said"], photo["changed"], photo["gone"])
        for photo in json.loads(waldo("album", "Tom", "--json", *at).out)["photos"]
    }
    assert told["a@b.jpg"] == (True, False, True)
    assert told["012.jpg"] == (True, True, False)
    assert told[accents.name] == told["010.jpg"] == (True, False, False)
    lines = [line.rstrip() for line in waldo("album", "Tom", *at).out.splitlines()]
    assert [line for line in lines if line.endswith("a@b.jpg (gone)")]
    assert [line for line in lines if line.endswith("012.jpg (changed since it was indexed)")]
    assert waldo("refuse", "Tom", path, *at).code == 0  # what was there then
