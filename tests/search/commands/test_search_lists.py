"""Searches as people and programs write them down."""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from features.errors import WaldoError
from search.commands.terminal.search_lists import is_one_search, read_queries, view_of
from search.query import Query
from search.scoring.rerank import combine
from tests.helpers.pictures import save_photo


def test_each_photo_is_a_search_of_its_own() -> None:
    pattern = Query(Path(), "dog", box=(1, 2, 3, 4))
    asked = list(read_queries(["a.jpg", "b c.jpg"], pattern))
    assert asked == [
        Query(Path("a.jpg"), "dog", box=(1, 2, 3, 4)),
        Query(Path("b c.jpg"), "dog", box=(1, 2, 3, 4)),
    ]


def test_a_list_file_has_paths_and_objects(tmp_path: Path) -> None:
    lines = [
        "with space.jpg",
        "",
        json.dumps({"photo": "b.jpg", "class": "cat", "box": [1, 2, 30, 40.5]}),
        json.dumps({"photo": "c.jpg", "point": [5, 6]}),
        json.dumps({"photo": "d.jpg", "mask": "m.png"}),
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    pattern = Query(Path(), "dog", point=(7, 8))
    assert list(read_queries([str(tmp_path / "list.txt")], pattern)) == [
        Query(Path("with space.jpg"), "dog", point=(7, 8)),
        Query(Path("b.jpg"), "cat", box=(1, 2, 30, 40.5)),
        Query(Path("c.jpg"), "dog", point=(5, 6)),
        Query(Path("d.jpg"), "dog", mask=Path("m.png")),
    ]


def test_standard_input_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\nb.jpg\n")))
    asked = read_queries(["-"], Query(Path(), "dog"))
    assert next(asked) == Query(Path("a.jpg"), "dog")
    assert next(asked) == Query(Path("b.jpg"), "dog")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{no json", "not JSON"),
        ('{"class": "dog"}', 'must hold "photo"'),
        ('{"photo": "a.jpg", "size": 3}', "may hold"),
        ('{"photo": "a.jpg", "class": 3}', '"class" must be text'),
        ('{"photo": "a.jpg", "box": [1, 2, 3]}', "list of 4 numbers"),
        ('{"photo": "a.jpg", "box": [1, 2, 3, "x"]}', "must be numbers"),
        ('{"photo": "a.jpg", "point": "5,6"}', "list of 2 numbers"),
    ],
)
def test_a_bad_line_is_told_and_does_not_end_the_list(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "list.txt"
    file.write_text(f"first.jpg\n{line}\nlast.jpg\n")
    first, bad, last = read_queries([str(file)], Query(Path(), "dog"))
    assert isinstance(bad, WaldoError)
    assert str(bad).startswith(f"{file}, line 2: ")
    assert why in str(bad)
    assert (first, last) == (Query(Path("first.jpg"), "dog"), Query(Path("last.jpg"), "dog"))


def test_lists_are_told_by_their_content(tmp_path: Path) -> None:
    """Not by their names; what is not there may be a photo."""
    line = json.dumps({"photo": "a.jpg", "point": [5, 6]})
    expected = Query(Path("a.jpg"), point=(5, 6))
    for name in ("list.TXT", "list.jsonl", "list"):
        (tmp_path / name).write_text(f"{line}\n")
        assert not is_one_search([str(tmp_path / name)])
        assert list(read_queries([str(tmp_path / name)], Query(Path()))) == [expected]
    photo = save_photo(tmp_path / "photo.png").rename(tmp_path / "photo.txt")
    for path in (photo, tmp_path / "missing.txt", tmp_path):
        assert is_one_search([str(path)])
        assert list(read_queries([str(path)], Query(Path()))) == [Query(path)]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "converted"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_of_every_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str
) -> None:
    names = ["café.jpg", "東京.jpg", "plain.jpg"]
    text = end.join(names)
    content = f"\ufeff{text}".encode("utf-16") if encoding == "converted" else text.encode(encoding)
    (tmp_path / "list").write_bytes(content)
    expected = [Query(Path(name)) for name in names]
    assert list(read_queries([str(tmp_path / "list")], Query(Path()))) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert list(read_queries(["-"], Query(Path()))) == expected


def test_a_list_that_is_not_unicode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as Windows writes it, and whatever is then not there is told with the encoding."""
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "café.jpg")
    (tmp_path / "list").write_bytes("café.jpg\nthé.jpg\nplain.jpg".encode("cp1252"))
    known, missing, plain = read_queries(["list"], Query(Path()))
    assert (known, plain) == (Query(Path("café.jpg")), Query(Path("plain.jpg")))
    assert str(missing) == (
        "list, line 2: thé.jpg: no such file (the list is read as Windows-1252)"
    )


def test_a_list_that_breaks_off_does_not_end_the_others(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes("a.jpg\n".encode("utf-16") + b"x")
    broken, other = read_queries([str(tmp_path / "list"), "b.jpg"], Query(Path()))
    assert "not UTF-16-LE, as it begins" in str(broken)
    assert other == Query(Path("b.jpg"))


def test_a_pipe_is_a_list(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as writer:
        writer.submit(pipe.write_text, "a.jpg\nb.jpg\n")
        assert not is_one_search([str(pipe)])
        asked = list(read_queries([str(pipe)], Query(Path())))
    assert asked == [Query(Path("a.jpg")), Query(Path("b.jpg"))]


def test_views(tmp_path: Path) -> None:
    (tmp_path / "me@1,2.jpg").touch()
    (tmp_path / "mask.png").touch()
    whole = str(tmp_path / "me@1,2.jpg")
    assert view_of(whole, "dog") == Query(Path(whole), "dog")
    assert view_of("a.jpg@1,2,3,4", None) == Query(Path("a.jpg"), box=(1, 2, 3, 4))
    assert view_of("a@b.jpg@1.5,2", None) == Query(Path("a@b.jpg"), point=(1.5, 2))
    mask = tmp_path / "mask.png"
    assert view_of(f"a.jpg@{mask}", "dog") == Query(Path("a.jpg"), "dog", mask=mask)
    with pytest.raises(WaldoError, match="neither"):
        view_of("a.jpg@nowhere.png", None)
    with pytest.raises(WaldoError, match="must be X0"):
        view_of("a.jpg@1,2,3", None)


def test_several_references_and_what_is_not_looked_for() -> None:
    wanted = np.array([[0.5, 0.2, 0.4], [0.1, 0.6, 0.4]], dtype=np.float32)
    unwanted = np.array([[0.3, 0.1, 0.8], [0.0, 0.7, 0.1]], dtype=np.float32)
    np.testing.assert_allclose(combine(wanted, unwanted[:0]), [0.5, 0.6, 0.4])
    np.testing.assert_allclose(combine(wanted, unwanted), [0.5, 0.55, 0.2], atol=1e-6)
