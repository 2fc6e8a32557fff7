"""Objects with a name on the command line."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import DEMO
from tests.helpers.command_line import CommandLine

CAT = DEMO / "query" / "cat.jpg"
BOX = "172,31,333,164"


@pytest.fixture
def index(sample_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_index, tmp_path / "index"))


def test_a_name_is_given_asked_for_changed_and_forgotten(
    waldo: CommandLine, index: Path, tmp_path: Path
) -> None:
    at = ("--index", index)
    photo = shutil.copy(CAT, tmp_path / "cat.jpg")
    kept = waldo("name", "Tom", photo, "--box", BOX, *at)
    assert kept.code == 0, kept.err
    assert kept.err.splitlines()[-2].startswith("kept as Tom: ")
    assert kept.err.splitlines()[-2].endswith("of cat.jpg; 1 photo in all")
    Path(photo).unlink()

    by_name = json.loads(waldo("query", "@Tom", "--json", *at).out)
    by_photo = json.loads(waldo("query", CAT, "--box", BOX, "--json", *at).out)
    assert [m["id"] for m in by_name["matches"]] == [m["id"] for m in by_photo["matches"]]
    assert by_name["query"]["name"] == "Tom"
    assert "name" not in by_photo["query"]
    table = waldo("query", "@Tom", *at)
    assert "taken as Tom: " in table.err

    assert "Tom" in waldo("named", *at).out
    assert waldo("rename", "Tom", "Thomas", *at).code == 0
    [named] = json.loads(waldo("named", "--json", *at).out)["named"]
    assert (named["name"], named["class"], named["not"]) == ("Thomas", None, [])
    assert [view["photo"] for view in named["photos"]] == [str(photo)]
    assert waldo.refusal("query", "@Tom", *at).endswith("did you mean Thomas?")
    assert waldo("forget", "Thomas", *at).code == 0
    assert json.loads(waldo("named", "--json", *at).out) == {"named": []}


def test_names_are_answered_on_pages_and_in_lists(
    waldo: CommandLine, index: Path, tmp_path: Path
) -> None:
    at = ("--index", index)
    waldo("name", "Tom", CAT, "--box", BOX, "--not", f"{DEMO / 'photos' / '010.jpg'}@60,60", *at)
    page = tmp_path / "answer.html"
    assert waldo("query", "@Tom", "--html", page, "--top", "3", *at).code == 0
    assert "Looking for Tom" in page.read_text(encoding="utf-8")
    searches = tmp_path / "searches.txt"
    searches.write_text(f'@Tom\n{{"photo": "{CAT}", "box": [172, 31, 333, 164]}}\n')
    lines = waldo("query", searches, "--json", *at).out.splitlines()
    assert [json.loads(line)["query"].get("name") for line in lines] == ["Tom", None]


def test_a_file_that_begins_with_the_mark_is_still_a_photo(
    waldo: CommandLine, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(CAT, tmp_path / "@Tom")
    monkeypatch.chdir(tmp_path)
    at = ("--index", index, "--json", "--top", "3")
    expected = json.loads(waldo("query", CAT, "--box", BOX, *at).out)["matches"]
    searches = tmp_path / "searches.txt"
    searches.write_text('{"photo": "./@Tom", "box": [172, 31, 333, 164]}\n')
    for arguments in (
        ("./@Tom", "--box", BOX),
        ("@Tom", "--box", BOX),
        (tmp_path / "@Tom", "--box", BOX),
        (searches,),
    ):
        found = json.loads(waldo("query", *arguments, *at).out)["matches"]
        assert [m["id"] for m in found] == [m["id"] for m in expected]
    also = waldo("query", CAT, "--box", BOX, "--also", f"./@Tom@{BOX}", *at)
    assert json.loads(also.out)["query"]["also"][0]["photo"] == str(tmp_path / "@Tom")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("name", "@Tom", CAT, "--box", BOX), "leave out the @"),
        (("name", "a/b", CAT, "--box", BOX), "must be 1 to 100 printable characters"),
        (("name", "Tom", CAT), "say which object in the photo is meant"),
        (("name", "Tom", "@Tim"), "knows no object of this name"),
        (("query", "@Tom"), "it knows none; `waldo name Tom PHOTO` adds one"),
        (("rename", "Tom", "Tim"), "@Tom: "),
        (("forget", "Tom"), "@Tom: "),
        (("forget", "@Tom"), "error: @Tom: "),
        (
            ("show", "@Tom", "--box", BOX, "--out", "x.png"),
            "known to `waldo query` and `waldo name` alone",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    waldo: CommandLine, sample_index: Path, arguments: tuple[object, ...], line: str
) -> None:
    assert line in waldo.refusal(*arguments, "--index", sample_index)
