"""A filter passes the photos that a plain loop over all of them passes."""

import fnmatch
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest

from features.errors import WaldoError
from indexer.store.filters import PhotoFilter
from indexer.store.manifest import SourceRoot
from indexer.store.mapstore import Place
from indexer.store.photos import PhotoRow, PhotoTable, write_photos
from tests.helpers.stores import photo_row, photo_table

SOURCES = (SourceRoot("/home/ann/Pictures"), SourceRoot("/", None), SourceRoot("/lists", "a.txt"))
PATHS = [
    (0, "2019/dog.jpg"),
    (0, "2019/May/dog.jpg"),
    (0, "2019/May/cat.png"),
    (0, "2019x/dog.jpg"),
    (0, "dog.jpg"),
    (0, "räd [1]+(2).jpg"),
    (0, "a.b/c d.JPG"),
    (1, "mnt/2019/dog.jpg"),
    (1, "home/ann/Pictures/extra.jpg"),
    (2, "sub/cow.jpg"),
    (2, "/mnt/far/dog.jpg"),
]
DAY = 86_400 * 10**9


def row(number: int, source: int, path: str) -> PhotoRow:
    taken = None if number % 3 == 0 else number * DAY
    times = {"mtime_ns": (100 + number) * DAY, "taken_ns": taken}
    return photo_row(number, Place(1, 0, 0), source=source, path=path, **times)


@pytest.fixture
def table(tmp_path: Path) -> PhotoTable:
    rows = [row(i, source, path) for i, (source, path) in enumerate(PATHS)]
    write_photos(tmp_path / "a.parquet", rows[:6], 1)
    write_photos(tmp_path / "b.parquet", rows[6:], 1)
    return photo_table(tmp_path, "a.parquet", "b.parquet", deleted=(4,))


def lies_in(place: str, source: int, relative: str) -> bool:
    """By pathlib for files and folders; globs by fnmatch, a name at a time."""
    absolute = PurePosixPath(SOURCES[source].root) / relative
    for path in (PurePosixPath(relative), absolute):
        if PurePosixPath(place) in (path, *path.parents):
            return True
        if any(c in place for c in "*?[") and matches(place.split("/"), str(path).split("/")):
            return True
    return False


def matches(glob: list[str], names: list[str]) -> bool:
    if not glob:
        return not names
    if glob[0] == "**":
        if len(glob) == 1:
            return bool(names)
        return any(matches(glob[1:], names[i:]) for i in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], glob[0]) and matches(glob[1:], names[1:])


@pytest.mark.parametrize(
    "place",
    [
        *("2019", "2019/", "./2019", "2019/May", "2019/dog.jpg", "/home/ann/Pictures", "/", "/mnt"),
        *("*.jpg", "**/*.jpg", "*/*.jpg", "**/dog.jpg", "2019/**", "2019/**/dog.jpg", "2019*/*"),
        *(
            "**",
            "/home/**/extra.jpg",
            "/mnt/**",
            "**/May/*",
            "d?g.jpg",
            "[cd]o[!w].jpg",
            "2019?/**",
        ),
        *("räd [1]+(2).jpg", "räd*", "a.b/c d.JPG", "a?b/*", "a*b", "nothing", "a.b/c", "sub"),
        *("mnt/far", "/lists/sub/*", "201", "og.jpg", "[!2]*", "[]a]*", "[]", "x[", "[a-c]*/*"),
    ],
)
def test_paths_folders_and_globs(table: PhotoTable, place: str) -> None:
    found = PhotoFilter((place,)).matching(table, SOURCES)
    assert found.tolist() == [lies_in(place, *photo) for photo in PATHS]


def test_a_photo_passes_that_lies_at_any_of_several_paths(table: PhotoTable) -> None:
    places = ("2019/May", "*.jpg", "/mnt/far")
    found = PhotoFilter(places).matching(table, SOURCES)
    assert found.tolist() == [any(lies_in(p, *photo) for p in places) for photo in PATHS]


def lying_at(folder: Path, *relative: str) -> PhotoTable:
    """The table of photos below one source."""
    rows = [row(number, 0, path) for number, path in enumerate(relative)]
    write_photos(folder / "a.parquet", rows, 1)
    return photo_table(folder, "a.parquet")


def test_links_and_real_folders_are_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of photos that the index has by a link's name, and of photos that a link leads to."""
    for name in ("drive/2024", "photos/real", "here"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "photos" / "nas").symlink_to("../drive")
    (tmp_path / "photos" / "favourites").symlink_to("real")
    (tmp_path / "here" / "link").symlink_to("../photos")
    paths = ["nas/a.jpg", "nas/2024/b.jpg", "real/c.jpg", "d.jpg"]
    table, sources = lying_at(tmp_path, *paths), (SourceRoot(str(tmp_path / "photos")),)
    monkeypatch.chdir(tmp_path / "here")
    for glob, expected in (
        (f"{tmp_path}/drive", [0, 1]),
        ("../drive/2024", [1]),
        ("../photos/nas", [0, 1]),
        ("../drive/*.jpg", [0]),
        ("../photos/favourites", [2]),
        ("../photos/favourites/*", [2]),
        ("../photos/n*/a.jpg", [0]),
        ("link/real/*.jpg", [2]),
        ("link/*", [3]),
        ("**/drive/**", [0, 1]),
        ("nowhere/*", []),
    ):
        found = PhotoFilter((glob,)).matching(table, sources)
        assert found.nonzero()[0].tolist() == expected, glob


def test_unicode_is_compared_in_one_normal_form(tmp_path: Path) -> None:
    composed, apart = "Caf\N{LATIN SMALL LETTER E WITH ACUTE}", "Cafe\N{COMBINING ACUTE ACCENT}"
    table = lying_at(tmp_path, f"{composed}/a.jpg", f"{apart}/b.jpg", "Cafe/c.jpg")
    for name in (composed, apart):
        for glob in (name, f"{name}/*", f"**/{name[:4]}{name[4:]}/**"):
            assert PhotoFilter((glob,)).matching(table, SOURCES).tolist() == [True, True, False]


@pytest.mark.parametrize(("zone", "day"), [("UTC", 0), ("Asia/Tokyo", 0), ("America/Lima", -1)])
def test_the_time_of_a_file_is_that_of_this_machines_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str, day: int
) -> None:
    """00:30 UTC is the day before in Lima; a date taken is local already."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        at = 5 * DAY + DAY // 48
        rows = [
            replace(row(n, 0, f"{n}.jpg"), mtime_ns=at, taken_ns=at if n else None) for n in (0, 1)
        ]
        write_photos(tmp_path / "a.parquet", rows, 1)
        table = photo_table(tmp_path, "a.parquet")
        for wanted in range(4, 7):
            one_day = PhotoFilter(since_ns=wanted * DAY, until_ns=(wanted + 1) * DAY)
            assert one_day.matching(table, SOURCES).tolist() == [wanted == 5 + day, wanted == 5]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of files are compared by the clock of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("since", "until"), [(None, None), (2, None), (None, 5), (2, 103), (103, 104), (5, 2)]
)
def test_a_photo_without_a_date_taken_has_the_time_of_its_file(
    table: PhotoTable, since: int | None, until: int | None
) -> None:
    days = [100 + i if i % 3 == 0 else i for i in range(len(PATHS))]
    wanted = PhotoFilter(
        since_ns=None if since is None else since * DAY,
        until_ns=None if until is None else until * DAY,
    )
    expected = [(since is None or d >= since) and (until is None or d < until) for d in days]
    assert wanted.matching(table, SOURCES).tolist() == expected
    both = replace(wanted, paths=("2019",)).matching(table, SOURCES)
    assert both.tolist() == [
        e and lies_in("2019", *photo) for e, photo in zip(expected, PATHS, strict=True)
    ]


def test_an_empty_table_and_a_bad_glob(table: PhotoTable) -> None:
    nothing = photo_table(Path())
    assert len(PhotoFilter(("a",), 0, 1).matching(nothing, SOURCES)) == 0
    with pytest.raises(WaldoError, match=r"path \[z-a\]"):
        PhotoFilter(("[z-a]",)).matching(table, SOURCES)


def test_times_are_compared_to_the_nanosecond(tmp_path: Path) -> None:
    moment = int(datetime(2024, 5, 31, 18, tzinfo=UTC).timestamp()) * 10**9 + 1
    write_photos(tmp_path / "a.parquet", [replace(row(0, 0, "a.jpg"), taken_ns=moment)], 1)
    table = photo_table(tmp_path, "a.parquet")
    assert PhotoFilter(since_ns=moment).matching(table, SOURCES).tolist() == [True]
    assert PhotoFilter(until_ns=moment).matching(table, SOURCES).tolist() == [False]
    assert PhotoFilter(until_ns=moment + 1).matching(table, SOURCES).tolist() == [True]
