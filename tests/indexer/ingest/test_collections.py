"""Collections as people have them: drives that are away, links, thumbnails, raw files and films."""

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin

from indexer.errors import SourceError
from indexer.ingest.progress import IndexReport
from indexer.ingest.sources import Exclusion, Found, list_photos, open_sources
from indexer.reader import IndexReader
from indexer.store.failures import read_failures
from tests.helpers.pictures import save_photo, smooth_pixels
from tests.helpers.stores import PixelExtractor, make_photos, run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    make_photos(folder, 3)
    return folder


def ids(index: Path) -> dict[str, int]:
    """The id of each photo by its path below its source."""
    with IndexReader.open(index) as reader:
        return {record.relative_path: record.id for record in reader.photos(reader.ids)}


def counts(report: IndexReport) -> dict[str, int]:
    """What is not 0 in a report, but for the total and what is new or unchanged."""
    names = ("changed", "moved", "removed", "kept", "failed", "passed_over", "videos", "raw_files")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


class TestDrivesThatAreAway:
    @pytest.fixture
    def drive(self, tmp_path: Path, photos: Path) -> Path:
        """A folder elsewhere, which `photos/drive` links to."""
        make_photos(tmp_path / "drive" / "2024", 3, first=10)
        (photos / "drive").symlink_to(tmp_path / "drive")
        return tmp_path / "drive"

    def test_photos_behind_a_link_to_nowhere_stay(
        self, drive: Path, photos: Path, index: Path
    ) -> None:
        run(photos, index)
        before = ids(index)
        away = drive.rename(drive.with_name("away"))
        for _ in range(2):
            report = run(photos, index)
            assert counts(report) == {"kept": 3, "failed": 1}
            assert ids(index) == before
        [failure] = read_failures(index)
        assert failure.path == str(photos / "drive")
        assert "links to what is not there" in failure.reason
        away.rename(drive)
        assert counts(run(photos, index)) == {}
        assert ids(index) == before
        assert read_failures(index) == []

    @pytest.mark.parametrize("kind", ["link", "folder"])
    def test_photos_of_a_mount_point_that_is_empty_stay(
        self, drive: Path, photos: Path, index: Path, kind: str
    ) -> None:
        if kind == "folder":
            (photos / "drive").unlink()
            drive = drive.rename(photos / "drive")
        run(photos, index)
        before = ids(index)
        away = drive.rename(photos.parent / "away")
        drive.mkdir()
        assert counts(run(photos, index)) == {"kept": 3, "failed": 1}
        [failure] = read_failures(index)
        assert failure.path == str(photos / "drive")
        assert "is empty, but 3 of its photos are in the index" in failure.reason
        drive.rmdir()
        away.rename(drive)
        assert counts(run(photos, index)) == {}
        assert ids(index) == before

    def test_a_folder_that_is_deleted_is_gone(self, photos: Path, index: Path) -> None:
        inside = make_photos(photos / "sub", 2, first=20)
        run(photos, index)
        for path in inside:
            path.unlink()
        assert counts(run(photos, index)) == {"kept": 2, "failed": 1}
        (photos / "sub").rmdir()
        assert counts(run(photos, index)) == {"removed": 2}

    def test_listed_photos_whose_folder_is_away_stay(
        self, drive: Path, photos: Path, index: Path
    ) -> None:
        names = [*drive.rglob("*.png"), *photos.glob("*.png")]
        (photos.parent / "list").write_text("\n".join(map(str, names)))
        run(photos.parent / "list", index)
        drive.rename(drive.with_name("away"))
        (photos / "photo-000.png").unlink()
        report = run(photos.parent / "list", index)
        assert counts(report) == {"removed": 1, "kept": 3, "failed": 4}

    def test_a_disk_that_fails_does_not_make_a_photo_broken(
        self, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(photos, index)
        os.utime(photos / "photo-001.png", ns=(1, 1))
        read = Path.open

        def fail(path: Path, *how: object, **given: object) -> object:
            if path.name == "photo-001.png":
                raise OSError(5, "Input/output error")
            return read(path, *how, **given)  # type: ignore[call-overload]

        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", fail)
            assert counts(run(photos, index)) == {"failed": 1}
        assert len(ids(index)) == 3


class TestLinks:
    def test_real_folders_win_and_ids_stay(self, photos: Path, index: Path) -> None:
        make_photos(photos / "z", 3, first=10)
        run(photos, index)
        before = ids(index)
        (photos / "a").symlink_to("z")
        (photos / "b.png").symlink_to("z/photo-010.png")
        (photos / "loop").symlink_to("loop")
        (photos / "up").symlink_to("../photos")
        extractor = PixelExtractor()
        report = run(photos, index, extractor)
        assert (report.new, counts(report)) == (1, {"failed": 1})
        assert extractor.batches == []
        assert ids(index) == {**before, "b.png": 6}

    def test_across_sources(self, photos: Path, tmp_path: Path) -> None:
        make_photos(tmp_path / "other", 1, first=10)
        (photos / "a").symlink_to(tmp_path / "other")
        sources = open_sources([photos, tmp_path / "other"], tmp_path / "i")
        last = list(list_photos(sources, tmp_path / "i"))[-1]
        assert isinstance(last, Found)
        assert last.path == str(tmp_path / "other" / "photo-010.png")

    def test_photos_that_were_indexed_by_a_links_name_keep_their_ids(
        self, photos: Path, index: Path, tmp_path: Path
    ) -> None:
        """As an earlier Waldo has them, or where the link was there before its folder was named."""
        make_photos(tmp_path / "other", 3, first=10)
        (photos / "a").symlink_to(tmp_path / "other")
        run(photos, index)
        before = {Path(name).name: number for name, number in ids(index).items()}
        report = run([photos, tmp_path / "other"], index)
        assert (report.new, counts(report)) == (0, {"moved": 3})
        assert {Path(name).name: number for name, number in ids(index).items()} == before

    def test_a_list_may_give_a_photo_two_names(self, photos: Path, index: Path) -> None:
        (photos / "a").symlink_to(".")
        (photos / "list").write_text("a/photo-000.png\n")
        run(photos / "list", index)
        (photos / "list").write_text("photo-000.png\na/photo-000.png\n")
        run(photos / "list", index)
        assert ids(index) == {"a/photo-000.png": 0, "photo-000.png": 1}


class TestWhatIsLeftOut:
    @pytest.fixture
    def storage(self, photos: Path) -> Path:
        for folder in ("@eaDir/photo-000.png", "#recycle", "$RECYCLE.BIN", "deep/@Recycle", ".t"):
            make_photos(photos / folder, 1, first=20)
        return photos

    def test_thumbnails_and_deleted_files_are(self, storage: Path, index: Path) -> None:
        run(storage, index)
        assert sorted(ids(index)) == ["photo-000.png", "photo-001.png", "photo-002.png"]

    def test_unless_they_are_named(self, storage: Path, index: Path) -> None:
        run(storage / "#recycle", index)
        assert counts(run(storage, index)) == {}
        assert len(ids(index)) == 4

    def test_an_earlier_index_loses_them(
        self, storage: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("indexer.ingest.sources._LEFT_OUT", frozenset())
            assert run(storage, index).total == 7
        assert counts(run(storage, index)) == {"removed": 4}

    @pytest.mark.parametrize(
        ("globs", "left"),
        [
            (["*.jpg"], ["a.png", "café/a.png", "sub/deep/a.png"]),
            (["sub"], ["a.jpg", "a.png", "café/a.png"]),
            (["**/photos/sub/*"], ["a.jpg", "a.png", "café/a.png"]),
            (["**/a.png"], ["a.jpg", "sub/a.jpg"]),
            (["./photos/sub/", "cafe\N{COMBINING ACUTE ACCENT}"], ["a.jpg", "a.png"]),
        ],
    )
    @pytest.mark.parametrize("source", ["photos", "list"])
    def test_globs(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        source: str,
        globs: list[str],
        left: list[str],
    ) -> None:
        """By name at any depth, below the SOURCE, and from the working directory."""
        names = ["a.jpg", "a.png", "café/a.png", "sub/a.jpg", "sub/deep/a.png"]
        folder = tmp_path / "photos"
        (tmp_path / "list").write_text("\n".join(f"photos/{name}" for name in names))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            save_photo(folder / name, 8, 8)
        monkeypatch.chdir(tmp_path)
        opened = open_sources([Path(source)], tmp_path / "i")
        found = list_photos(opened, tmp_path / "i", Exclusion(globs))
        assert [Path(one.path).relative_to(folder).as_posix() for one in found] == left

    def test_photos_that_are_excluded_leave_the_index(self, photos: Path, index: Path) -> None:
        run(photos, index)
        report = run(photos, index, exclude=["*-00[12].png"])
        assert (report.total, counts(report)) == (1, {"removed": 2})
        with pytest.raises(SourceError, match="no picture"):
            run(photos, index, exclude=["*.png"])
        with pytest.raises(SourceError, match=r"exclude \[z-a\]: not a valid glob"):
            run(photos, index, exclude=["[z-a]"])


def test_folders_deeper_than_pythons_calls(photos: Path, index: Path) -> None:
    depth = 1100
    here = Path.cwd()
    try:
        os.chdir(photos)
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        save_photo(Path("deep.png"))
    finally:
        os.chdir(here)
    assert run(photos, index).total == 4
    assert "d/" * depth + "deep.png" in ids(index)
    subprocess.run(["rm", "-r", photos / "d"], check=True)  # pytest would remove it recursively


def save_raw(path: Path, tag: int, value: object) -> Path:
    """A TIFF in whose first directory one more tag says that it is a raw file."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag] = value
    if tag == 254:  # a reduced copy; 330 says where the full picture is
        tags[330] = 8
    Image.fromarray(smooth_pixels(16, 12)).save(path, format="TIFF", tiffinfo=tags)
    return path


class TestRawFilesAndVideos:
    @pytest.mark.parametrize("name", ["a.NEF", "a.tif"])
    def test_a_thumbnail_is_never_taken_for_the_photo(
        self, photos: Path, index: Path, name: str
    ) -> None:
        save_raw(photos / name, 254, 1)
        save_raw(photos / f"dng-{name}", 50706, b"\1\4\0\0")
        report = run(photos, index)
        assert (report.total, counts(report)) == (3, {"passed_over": 2, "raw_files": 2})

    def test_a_picture_of_an_earlier_index_leaves_it(
        self, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_raw(photos / "a.nef", 254, 1)
        with monkeypatch.context() as patched:
            patched.setattr("features.photo.is_reduced", lambda image: False)
            patched.setattr("features.photo.is_raw_name", lambda name: False)
            assert run(photos, index).total == 4
        assert counts(run(photos, index)) == {"removed": 1, "passed_over": 1, "raw_files": 1}

    def test_they_are_counted_by_their_kind(self, photos: Path, index: Path) -> None:
        for name in ("a.MOV", "b.mp4", "c.cr3", "notes.pdf", "d.xmp"):
            (photos / name).write_bytes(b"\0\0\0\x18ftyp" + bytes(40))
        expected = {"passed_over": 5, "videos": 2, "raw_files": 1}
        for _ in range(2):
            assert counts(run(photos, index)) == expected

    def test_a_picture_by_content_counts_whatever_its_name(self, photos: Path, index: Path) -> None:
        for name in ("a.mov", "b.dng"):
            save_photo(photos / "new.jpg", seed=len(name) + ord(name[0])).rename(photos / name)
        pages = [Image.fromarray(smooth_pixels(16, 12, seed)) for seed in (50, 51)]
        pages[0].save(photos / "pages.tif", save_all=True, append_images=pages[1:])
        report = run(photos, index)
        assert (report.total, counts(report)) == (6, {})
