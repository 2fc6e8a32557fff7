"""The date taken, from the EXIF data of a file."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from features.errors import UnreadableError
from features.photo import date_taken, load_model_input, load_photo
from indexer.store.manifest import read_manifest
from indexer.store.photos import read_photo_table
from tests.helpers.pictures import smooth_pixels
from tests.helpers.stores import make_photos, run

TAKEN = "2024:05:31 18:00:30"
NOON = datetime(2024, 5, 31, 18, 0, 30, tzinfo=UTC)


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def save(path: Path, main: dict[int, object], details: dict[int, object]) -> Path:
    exif = Image.Exif()
    exif.update({ExifTags.Base.Make: "a camera", **main})
    exif.get_ifd(ExifTags.IFD.Exif).update(details)
    Image.fromarray(smooth_pixels(24, 16)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_it_is_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    # Pillow writes no details into a TIFF.
    main = {ExifTags.Base.DateTime: TAKEN} if suffix == "tiff" else {}
    path = save(tmp_path / f"a.{suffix}", main, {ExifTags.Base.DateTimeOriginal: TAKEN})
    assert load_photo(path).taken_ns == ns(NOON)
    assert load_model_input(path, 16, 2).taken_ns == ns(NOON)
    assert date_taken(path) == ns(NOON)


@pytest.mark.parametrize("offset", ["+02:00", "-05:30", "   :  ", "", "Z", "summer"])
def test_the_cameras_clock_counts_whatever_its_zone(tmp_path: Path, offset: str) -> None:
    details = {ExifTags.Base.DateTimeOriginal: TAKEN, ExifTags.Base.OffsetTimeOriginal: offset}
    assert date_taken(save(tmp_path / "a.jpg", {}, details)) == ns(NOON)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-31 18:00:30", NOON),
        ("2024/05/31 18:00:30", NOON),
        ("2024.05.31 18.00.30", NOON),
        ("2024:5:31 18:0:30", NOON),
        ("2024-05-31T18:00:30+02:00", NOON),
        ("2024:05:31 18:00:30Z", NOON),
        ("2024:05:31 18:00:30.125", NOON),
        (" 2024:05:31  18:00:30\0\0", NOON),
        ("2024:05:31 18:00", datetime(2024, 5, 31, 18, tzinfo=UTC)),
        ("2024:05:31", datetime(2024, 5, 31, tzinfo=UTC)),
        ("2024:05:31 24:00:00", datetime(2024, 6, 1, tzinfo=UTC)),
        ("2023:12:31 24:10:00", datetime(2024, 1, 1, 0, 10, tzinfo=UTC)),
        ("2024:05:31 23:59:60", datetime(2024, 5, 31, 23, 59, 59, tzinfo=UTC)),
        ("2024:05:31 25:00:00", None),
        ("2024:05:311", None),
        ("2024:13:01 00:00:00", None),
        ("31.05.2024", None),
    ],
)
def test_dates_as_programs_write_them(tmp_path: Path, text: str, expected: datetime | None) -> None:
    path = save(tmp_path / "a.jpg", {}, {ExifTags.Base.DateTimeOriginal: text})
    assert date_taken(path) == (None if expected is None else ns(expected))


def test_the_best_date_that_makes_sense_counts(tmp_path: Path) -> None:
    base = ExifTags.Base
    main, details = {base.DateTime: "2022:01:01 00:00:00"}, {}
    assert date_taken(save(tmp_path / "a.jpg", main, details)) == ns(
        datetime(2022, 1, 1, tzinfo=UTC)
    )
    details[base.DateTimeDigitized] = "2023:01:01 00:00:00\0"
    assert date_taken(save(tmp_path / "b.jpg", main, details)) == ns(
        datetime(2023, 1, 1, tzinfo=UTC)
    )
    for nonsense in (
        "0000:00:00 00:00:00",
        "    :  :     :  :  ",
        "yesterday",
        "9999:01:01 00:00:00",
    ):
        details[base.DateTimeOriginal] = nonsense
        path = save(tmp_path / "c.jpg", main, details)
        assert date_taken(path) == ns(datetime(2023, 1, 1, tzinfo=UTC))


def test_a_date_before_1970_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", {}, {ExifTags.Base.DateTimeOriginal: "1969:12:31 23:59:59"})
    assert date_taken(path) == -(10**9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_is_no_date_and_no_error(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", {}, {ExifTags.Base.DateTimeOriginal: TAKEN})
    whole = path.read_bytes()
    start = whole.index(b"Exif\0\0") + 6
    for place in range(start, start + 60):
        for value in (0x00, 0xFF):
            data = bytearray(whole)
            data[place] = value
            path.write_bytes(data)
            assert date_taken(path) in (None, ns(NOON))
    path.write_bytes(b"no picture")
    assert date_taken(path) is None
    with pytest.raises(UnreadableError, match="gone"):
        date_taken(tmp_path / "gone.jpg")


def test_no_picture_is_decoded_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"a.{suffix}" for suffix in ("png", "jpg", "webp", "gif", "bmp")]
    for path in paths:
        Image.fromarray(smooth_pixels(24, 16)).save(path)

    def load(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert [date_taken(path) for path in paths] == [None] * 5


def test_the_index_keeps_it_for_a_photo_that_moved(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    make_photos(photos, 3)
    dated = save(photos / "dated.jpg", {}, {ExifTags.Base.DateTimeOriginal: TAKEN})
    for _ in range(2):
        run(photos, index)
        table = read_photo_table(index, read_manifest(index))
        known = dict(zip(table.paths.to_pylist(), table.taken_ns.to_pylist(), strict=True))
        assert known[dated.name] == ns(NOON)
        assert sum(taken is not None for taken in known.values()) == 1
        dated = dated.rename(photos / "moved.jpg")
