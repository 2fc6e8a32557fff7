"""What a SOURCE is, which files it names, and in which order."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexer.errors import SourceError
from indexer.ingest.sources import Found, Unreadable, count_files, list_photos, open_sources
from tests.helpers.pictures import save_photo


def listed(sources: Path | list[Path], index_dir: Path) -> list[str]:
    """Absolute paths in order of listing."""
    chosen = [sources] if isinstance(sources, Path) else sources
    opened = open_sources(chosen, index_dir)
    entries = list(list_photos(opened, index_dir))
    assert count_files(opened, index_dir) == len(entries)
    assert all(isinstance(entry, Found) for entry in entries)
    return [entry.path for entry in entries]


def below(folder: Path, *names: str) -> list[str]:
    return [str(folder / name) for name in names]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with photos at several depths, hidden things, and an index in it."""
    folder = tmp_path / "photos"
    for name in ("b.png", "a/2.png", "a/10.png", "c.png", ".hidden.png", ".git/x.png", "i/y.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_photo(folder / name, 8, 8)
    return folder


def test_folders_are_walked_in_the_order_of_names(photos: Path) -> None:
    expected = below(photos, "a/10.png", "a/2.png", "b.png", "c.png")
    assert listed(photos, photos / "i") == expected


def test_found_files_have_their_size_and_time(photos: Path) -> None:
    [*_, last] = list_photos(open_sources([photos], photos / "i"), photos / "i")
    assert isinstance(last, Found)
    status = (photos / "c.png").stat()
    assert (last.relative, last.size, last.mtime_ns) == (
        "c.png",
        status.st_size,
        status.st_mtime_ns,
    )
    assert last.source.root.root == str(photos)


def test_loops_of_links_end_and_links_to_other_folders_are_followed(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "a" / "up").symlink_to(photos)
    (photos / "z").symlink_to(tmp_path / "other")
    (tmp_path / "other").mkdir()
    save_photo(tmp_path / "other" / "far.png", 8, 8)
    found = listed(photos, photos / "i")
    assert found == below(photos, "a/10.png", "a/2.png", "b.png", "c.png", "z/far.png")


@pytest.mark.parametrize("order", [0, 1])
def test_overlapping_sources_name_a_photo_once(photos: Path, order: int) -> None:
    sources = [photos, photos / "a", photos / "b.png", photos / "b.png"]
    found = listed(sources[::-1] if order else sources, photos / "i")
    assert sorted(found) == below(photos, "a/10.png", "a/2.png", "b.png", "c.png")


def test_a_source_is_relative_to_the_working_directory(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    assert listed(Path("a"), photos / "i") == below(photos, "a/10.png", "a/2.png")


def test_a_hidden_photo_is_found_when_it_is_named(photos: Path) -> None:
    assert listed(photos / ".hidden.png", photos / "i") == below(photos, ".hidden.png")


class TestLists:
    def test_lines_are_relative_to_the_list(self, photos: Path, tmp_path: Path) -> None:
        text = f"../b.png\n\n2.png\r\n./10.png\n2.png\n{photos}/c.png\n"
        (photos / "a" / "list").write_bytes(b"\xef\xbb\xbf" + text.encode())
        found = listed(photos / "a" / "list", tmp_path / "i")
        assert found == below(photos, "b.png", "a/2.png", "a/10.png", "c.png")

    def test_photos_beside_the_list_keep_short_paths(self, photos: Path, tmp_path: Path) -> None:
        (photos / "list.txt").write_text("a/2.png\n")
        [found] = list_photos(open_sources([photos / "list.txt"], tmp_path), tmp_path)
        assert isinstance(found, Found)
        assert found.relative == "a/2.png"
        assert (found.source.root.root, found.source.root.list_name) == (str(photos), "list.txt")

    def test_the_kind_of_a_file_is_detected_from_its_content(
        self, photos: Path, tmp_path: Path
    ) -> None:
        (photos / "b.png").rename(photos / "b.txt")
        assert listed(photos / "b.txt", tmp_path / "i") == below(photos, "b.txt")

    def test_searches_name_their_photos(self, photos: Path, tmp_path: Path) -> None:
        lines = ['{"photo": "b.png", "box": [1, 2, 3, 4]}', "{broken", '{"class": "dog"}']
        (photos / "list.jsonl").write_text("\n".join(lines))
        first, second, third = list_photos(
            open_sources([photos / "list.jsonl"], tmp_path), tmp_path
        )
        assert isinstance(first, Found)
        assert first.path == str(photos / "b.png")
        for entry, name in ((second, lines[1]), (third, lines[2])):
            assert isinstance(entry, Unreadable)
            assert entry.path == str(photos / name)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
    def test_every_encoding(self, photos: Path, tmp_path: Path, encoding: str) -> None:
        (photos / "b.png").rename(photos / "bé.png")
        text = "bé.png\r\nthé.png\r\nc.png\r\n"
        (photos / "list").write_bytes(text.encode(encoding))
        first, second, third = list_photos(open_sources([photos / "list"], tmp_path), tmp_path)
        assert isinstance(second, Unreadable)
        assert second.path == str(photos / "thé.png")
        named = " (the list is read as Windows-1252)"
        assert second.reason == "no such file" + (named if encoding == "cp1252" else "")
        assert [f.path for f in (first, third)] == below(photos, "bé.png", "c.png")

    def test_a_pipe_is_read_once_and_starts_here(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos / "a")
        os.mkfifo(tmp_path / "pipe")
        with ThreadPoolExecutor(1) as writer:
            writer.submit((tmp_path / "pipe").write_text, f"2.png\n{photos}/c.png\n")
            opened = open_sources([tmp_path / "pipe"], photos / "i")
        for _ in range(2):
            again = open_sources(opened, photos / "i")
            found = list(list_photos(again, photos / "i"))
            assert [one.path for one in found] == below(photos, "a/2.png", "c.png")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"10.png\n")))
        assert listed(Path("-"), photos / "i") == below(photos, "a/10.png")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"gone.png\n")))
        with pytest.raises(SourceError, match="standard input: names no file"):
            open_sources([Path("-")], photos / "i")

    def test_a_line_without_a_file_is_reported(self, photos: Path, tmp_path: Path) -> None:
        (photos / "list.txt").write_text("gone.png\nb.png\na\n")
        opened = open_sources([photos / "list.txt"], tmp_path)
        gone, found, folder = list_photos(opened, tmp_path)
        assert count_files(opened, tmp_path) == 3
        assert isinstance(found, Found)
        assert isinstance(gone, Unreadable)
        assert isinstance(folder, Unreadable)
        assert (gone.path, gone.may_exist) == (str(photos / "gone.png"), False)
        assert "SOURCE" in folder.reason


class TestRefusals:
    def test_a_missing_source(self, photos: Path) -> None:
        with pytest.raises(SourceError, match=r"nowhere: cannot be read \(No such file"):
            open_sources([photos, photos / "nowhere"], photos / "i")

    def test_a_folder_without_pictures(self, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "texts").mkdir()
        with pytest.raises(SourceError, match="no picture"):
            open_sources([photos, tmp_path / "texts"], photos / "i")
        (tmp_path / "texts" / "notes.txt").write_text("no list: it is in a folder")
        with pytest.raises(SourceError, match="no picture"):
            open_sources([photos, tmp_path / "texts"], photos / "i")

    def test_a_folder_whose_only_pictures_are_the_index(self, photos: Path) -> None:
        with pytest.raises(SourceError, match="no picture"):
            open_sources([photos / "i"], photos / "i")

    def test_a_list_that_names_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("milk\nbread\n")
        with pytest.raises(SourceError, match="names no file that exists; check"):
            open_sources([tmp_path / "notes.txt"], tmp_path / "i")
        (tmp_path / "notes.txt").write_bytes(
            "th\N{LATIN SMALL LETTER E WITH ACUTE}".encode("cp1252")
        )
        with pytest.raises(SourceError, match=r"exists \(the list is read as Windows-1252\)"):
            open_sources([tmp_path / "notes.txt"], tmp_path / "i")

    def test_a_file_that_is_neither_picture_nor_list(self, tmp_path: Path) -> None:
        (tmp_path / "film.bin").write_bytes(bytes(range(256)) * 20)
        with pytest.raises(SourceError, match="neither a picture nor a list"):
            open_sources([tmp_path / "film.bin"], tmp_path / "i")

    def test_errors_are_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError) as caught:
            open_sources([tmp_path / "nowhere"], tmp_path / "i")
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_listed_is_reported(photos: Path) -> None:
    (photos / "a").chmod(0)
    try:
        entries = list(list_photos(open_sources([photos], photos / "i"), photos / "i"))
    finally:
        (photos / "a").chmod(0o755)
    assert isinstance(entries[0], Unreadable)
    assert entries[0].may_exist
