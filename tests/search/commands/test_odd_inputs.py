"""Inputs as people have them: photos that are gone, odd names, lists of any encoding."""

import json
import os
from pathlib import Path

import pytest

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        save_photo(folder / f"photo {i}.jpg", 120, 90, seed=i)
    (folder / "broken.jpg").write_bytes((folder / "photo 0.jpg").read_bytes()[:500])
    (folder / "notes.pdf").write_bytes(b"%PDF-1.4 \0 not a picture")
    return folder


@pytest.fixture(scope="module")
def index(photos: Path, tiny: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read alone; copy it for anything else."""
    directory = tmp_path_factory.mktemp("store") / "index"
    index_photos([photos], directory, tiny)
    return directory


def test_a_photo_that_cannot_be_read_does_not_end_a_list(
    waldo: CommandLine, photos: Path, index: Path, tmp_path: Path
) -> None:
    """Nor does one that is wanted beside each photo of the list."""
    sound = photos / "photo 1.jpg"
    wrong = [tmp_path / "gone.jpg", tmp_path, photos / "broken.jpg", photos / "notes.pdf"]
    asked = [json.dumps({"photo": str(path), "point": [60, 45]}) for path in (*wrong, sound)]
    asked.append(json.dumps({"photo": str(sound), "mask": str(tmp_path / "gone.png")}))
    asked.append(json.dumps({"photo": str(sound), "mask": str(photos / "broken.jpg")}))
    (tmp_path / "list.txt").write_text("\n".join([*asked, str(sound)]) + "\n")
    ask = ("query", tmp_path / "list.txt", "--index", index, "--point", "50,40", "--json")

    result = waldo(*ask)

    assert result.code == 2
    answered = [json.loads(line)["query"] for line in result.out.splitlines()]
    assert [(q["photo"], q["point"]) for q in answered] == [
        (str(sound), [60, 45]),
        (str(sound), [50, 40]),
    ]
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 6
    for path, line in zip(wrong, errors, strict=False):
        assert str(path) in line

    for option in ("--also", "--not"):
        result = waldo(*ask, option, f"{tmp_path / 'gone.jpg'}@1,1")
        errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert (result.code, result.out, len(errors)) == (2, "", 8)


@pytest.fixture
def copied(tmp_path: Path, tiny: FeatureExtractor) -> Path:
    """Photos of which one has four copies, and their index beside them."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for i in range(3):
        save_photo(folder / f"photo {i}.jpg", 120, 90, seed=i)
    for i in range(4):
        (folder / f"photo 1 copy {i}.jpg").write_bytes((folder / "photo 1.jpg").read_bytes())
    index_photos([folder], tmp_path / "index", tiny)
    return folder


def test_copies_are_one_row(waldo: CommandLine, copied: Path) -> None:
    ask = ("query", copied / "photo 0.jpg", "--index", copied.parent / "index", "--point", "60,45")
    copies = sorted(copied.glob("photo 1*"))
    for top, filtered in ((20, ()), (2, ()), (20, ("--path", f"{copied}/*1 copy [23].jpg"))):
        answer = json.loads(waldo(*ask, "--json", "--top", top, *filtered).out)
        expected = [0] if filtered else [0, 1, 2][:top]
        assert len(answer["matches"]) == len(expected)
        stacked = [match for match in answer["matches"] if match["copies"]]
        if stacked:
            [match] = stacked
            assert sorted([match["path"], *match["copies"]]) == [str(path) for path in copies]
    assert stacked[0]["path"] == str(copied / "photo 1 copy 2.jpg")
    table = waldo(*ask).out
    assert table.count("(and 4 copies)") == 1
    assert len(table.splitlines()) == 1 + 3


def test_a_photo_that_was_changed_is_told(waldo: CommandLine, copied: Path, tmp_path: Path) -> None:
    """Its boxes are those of the earlier picture: neither drawn, nor is it cut out or copied."""
    touched, changed = copied / "photo 0.jpg", copied / "photo 2.jpg"
    os.utime(touched, ns=(1, 1))
    save_photo(changed, 120, 90, seed=9)
    ask = ("query", copied / "photo 1.jpg", "--index", copied.parent / "index", "--point", "60,45")
    result = waldo(
        *(*ask, "--json", "--html", tmp_path / "page.html"),
        *("--masks", tmp_path / "masks", "--export", tmp_path / "out"),
    )
    matches = json.loads(result.out)["matches"]
    assert {m["path"]: m["changed"] for m in matches} == {
        matches[0]["path"]: False,
        str(touched): False,
        str(changed): True,
    }
    assert [m["mask"] is None for m in matches] == [m["changed"] for m in matches]
    assert "1 of these photos changed since indexed" in result.err
    assert result.err.count("photo 2.jpg: was changed since it was indexed") == 2
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert waldo(*ask).out.count("(changed since it was indexed)") == 1
    page = (tmp_path / "page.html").read_text()
    assert page.count("changed since it was indexed") == 1
    changed.unlink()
    assert not any(m["changed"] for m in json.loads(waldo(*ask, "--json").out)["matches"])


def test_a_line_break_in_a_name_keeps_the_table_whole(
    waldo: CommandLine, tmp_path: Path, tiny: FeatureExtractor
) -> None:
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("a\nb.jpg", "tab\tc.jpg", "plain.jpg")):
        save_photo(tmp_path / "photos" / name, seed=number)
    index_photos([tmp_path / "photos"], tmp_path / "index", tiny)
    ask = ("query", tmp_path / "photos" / "plain.jpg", "--index", tmp_path / "index")
    lines = waldo(*ask, "--point", "50,40").out.splitlines()
    assert len(lines) == 1 + 3
    assert any("a\\nb.jpg'" in line for line in lines)
    assert any("tab\\tc.jpg'" in line for line in lines)


def test_what_a_run_skips_and_keeps_is_counted(waldo: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "drive").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "drive/b.jpg", "c.png")):
        save_photo(folder / name, seed=number)
    for name in ("film.MOV", "film.mp4", "raw.CR3", "notes.pdf"):
        (folder / name).write_bytes(b"\0\0\0\x18ftyp" + bytes(40))
    ask = ("index", folder, "--index", tmp_path / "index")
    report = json.loads(waldo(*ask, "--json", "--exclude", "*.png").out)
    counted = ("total", "new", "passed_over", "videos", "raw_files")
    assert [report[name] for name in counted] == [2, 2, 4, 2, 1]
    (folder / "drive" / "b.jpg").rename(tmp_path / "away.jpg")
    text = waldo(*ask).out
    assert f"3 photos in {tmp_path / 'index'}: 1 new, 1 failed, 1 kept" in text
    assert "skipped 2 videos and 1 raw file, in " in text
