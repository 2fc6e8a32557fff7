"""Queries of a part of the collection, through the library and the command line."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.store.filters import PhotoFilter
from search import Query, SearchOptions, open_index
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import smooth_pixels

YEARS = (2018, 2019, 2020, 2021)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YEAR/M.jpg, taken (or, in 2021, last modified) on the last day of month M."""
    folder = tmp_path_factory.mktemp("gallery")
    for year in YEARS:
        (folder / str(year)).mkdir()
        for month, day in ((1, 31), (5, 31), (12, 31)):
            moment = datetime(year, month, day, 23, 59, 59, tzinfo=UTC)
            path = folder / str(year) / f"{month}.jpg"
            exif = Image.Exif()
            if year != 2021:
                text = moment.strftime("%Y:%m:%d %H:%M:%S")
                exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = text
            Image.fromarray(smooth_pixels(60, 40, year * 12 + month)).save(path, exif=exif)
            if year == 2021:
                os.utime(path, (moment.timestamp(), moment.timestamp()))
    return folder


@pytest.fixture(scope="module")
def index(
    pipeline_folder: Callable[[str], Path],
    gallery: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    extractor = FeatureExtractor.load(str(pipeline_folder("sd2")), device="cpu", batch_size=4)
    directory = tmp_path_factory.mktemp("store") / "index"
    index_photos([gallery], directory, extractor, batch_size=4)
    return directory


def test_top_is_filled_from_what_passes(index: Path, gallery: Path) -> None:
    query = Query(gallery / "2018" / "1.jpg", box=(5, 5, 40, 30))
    with open_index(index, "cpu") as opened:
        everything = opened.search(query, SearchOptions(rerank=False)).matches
        order = [m.path for m in everything]
        for folder in map(str, YEARS):
            wanted = PhotoFilter((folder,))
            for rerank in (False, True):
                options = SearchOptions(3, 1, rerank=rerank, filter=wanted)
                found = [m.path for m in opened.search(query, options).matches]
                assert len(found) == 3
                assert set(found) == {p for p in order if p.parent.name == folder}
                if not rerank:
                    assert found == [p for p in order if p.parent.name == folder]
        with pytest.raises(WaldoError, match="no photo of the index passes"):
            opened.search(query, SearchOptions(filter=PhotoFilter(("2017",))))


def answer(waldo: CommandLine, index: Path, gallery: Path, *options: str) -> dict[str, object]:
    photo = gallery / "2018" / "1.jpg"
    result = waldo("query", photo, "--index", index, "--point", "30,20", "--json", *options)
    assert result.code == 0, result.err
    parsed = json.loads(result.out)
    parsed["names"] = {str(Path(match["path"]).relative_to(gallery)) for match in parsed["matches"]}
    return parsed


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        (("--since", "2020"), "2020-01", "2021-12"),
        (("--until", "2020"), "2018-01", "2020-12"),
        (("--since", "2019-05", "--until", "2021-01"), "2019-05", "2021-01"),
        (("--since", "2019-05-31", "--until", "2020-12-31"), "2019-05", "2020-12"),
        (("--since", "2019-06-01", "--until", "2020-12-30"), "2019-12", "2020-05"),
    ],
)
def test_dates(
    waldo: CommandLine,
    index: Path,
    gallery: Path,
    options: tuple[str, ...],
    first: str,
    last: str,
) -> None:
    expected = {
        f"{year}/{month}.jpg"
        for year in YEARS
        for month in (1, 5, 12)
        if first <= f"{year}-{month:02}" <= last
    }
    assert answer(waldo, index, gallery, *options)["names"] == expected


def test_places_and_what_json_says(waldo: CommandLine, index: Path, gallery: Path) -> None:
    found = answer(
        waldo,
        index,
        gallery,
        *("--path", "**/5.jpg", "--path", str(gallery / "2019"), "--until", "2020-02"),
    )
    assert found["names"] == {"2018/5.jpg", "2019/1.jpg", "2019/5.jpg", "2019/12.jpg"}
    asked = found["query"]
    assert isinstance(asked, dict)
    assert asked["paths"] == ["**/5.jpg", str(gallery / "2019")]
    assert asked["since"] is None
    assert asked["until"] == "2020-03-01T00:00:00+00:00"
    assert "paths" not in answer(waldo, index, gallery)["query"]  # type: ignore[operator]


def test_what_is_wrong_is_one_line(waldo: CommandLine, index: Path, gallery: Path) -> None:
    question = ("query", gallery / "2018" / "1.jpg", "--index", index, "--point", "30,20")
    for text in (
        "20",
        "2020-13",
        "2020-02-30",
        "2020-1",
        "2020-",
        "May 2020",
        "-",
        "2020-01-01-01",
    ):
        for option in ("--since", "--until"):
            line = waldo.refusal(*question, option, text)
            assert line == f"error: {option} {text}: must be YYYY, YYYY-MM or YYYY-MM-DD"
    assert "no photo of the index passes" in waldo.refusal(*question, "--path", "2017")
    assert "no photo of the index passes" in waldo.refusal(
        *question, "--since", "2021", "--until", "2020"
    )
    assert "path [z-a]" in waldo.refusal(*question, "--path", "[z-a]")
