"""Photos that lie in a bucket are indexed there, and read there by whoever shows them."""

import hashlib
import io
import json
import random
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from features.errors import UnreadableError
from features.photo import load_photo
from indexer.bucket.collection_copy import collection_copy
from indexer.bucket.object_path import ObjectPath, path_of
from indexer.bucket.object_store import Bucket, BucketError
from indexer.errors import SourceError
from indexer.fleet.fleet_build import index_collection
from indexer.fleet.fleet_reader import open_collection
from indexer.ingest.build import index_photos
from indexer.ingest.progress import IndexReport
from indexer.ingest.sources import list_photos, open_sources
from indexer.reader import IndexReader
from indexer.store.failures import read_failures
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer, no_fault
from tests.helpers.servers.server import running_server
from tests.helpers.stores import PixelExtractor, make_photos, rows

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("small_maps")

URL = "s3://photos/my photos"
PHOTOS = 9


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", PHOTOS)
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"


def put(server: ObjectServer, relative: str, content: bytes) -> None:
    server.s3.put_object(Bucket="photos", Key=f"my photos/{relative}", Body=content)


def upload(server: ObjectServer, folder: Path) -> None:
    for path in folder.rglob("*.*"):
        put(server, path.relative_to(folder).as_posix(), path.read_bytes())


def run(index: Path, *, exclude: tuple[str, ...] = ()) -> IndexReport:
    return index_photos([Path(URL)], index, PixelExtractor(), exclude=exclude)


def gets(server: ObjectServer) -> list[str]:
    """What was read of objects, as the proxy saw it."""
    return [path for method, path in server.requests if method == "GET" and "list-type" not in path]


def test_rows_are_those_of_the_folder(
    server: ObjectServer, photos: Path, index: Path, tmp_path: Path
) -> None:
    upload(server, photos)
    report = run(index)
    assert (report.new, report.failed) == (PHOTOS, 0)
    assert len(gets(server)) == 2 * PHOTOS  # once for the codec, and once to be recorded
    index_photos([photos], tmp_path / "plain", PixelExtractor())
    expected, found = rows(tmp_path / "plain"), rows(index)
    assert found == {
        f"{URL}/{Path(path).relative_to(photos).as_posix()}": row for path, row in expected.items()
    }


def test_unchanged_photos_are_not_read_again(
    server: ObjectServer, photos: Path, index: Path
) -> None:
    upload(server, photos)
    run(index)
    server.requests.clear()
    assert run(index).unchanged == PHOTOS
    assert gets(server) == []


def test_what_changed_moved_and_went_is_told_apart(
    server: ObjectServer, photos: Path, index: Path
) -> None:
    upload(server, photos)
    run(index)
    first, second, third, *_ = sorted(photos.rglob("*.*"))
    relative = first.relative_to(photos).as_posix()
    put(server, f"elsewhere/{first.name}", first.read_bytes())
    server.s3.delete_object(Bucket="photos", Key=f"my photos/{relative}")
    relative = second.relative_to(photos).as_posix()
    server.s3.delete_object(Bucket="photos", Key=f"my photos/{relative}")
    relative = third.relative_to(photos).as_posix()
    put(server, relative, second.read_bytes() + b"and more")
    report = run(index)
    assert (report.moved, report.changed, report.removed) == (1, 1, 1)
    assert (report.unchanged, report.total) == (PHOTOS - 3, PHOTOS - 1)


def test_a_copy_in_a_folder_is_no_move(server: ObjectServer, photos: Path, index: Path) -> None:
    upload(server, photos)
    run(index)
    report = index_photos([photos], index, PixelExtractor())
    assert (report.new, report.moved, report.total) == (PHOTOS, 0, 2 * PHOTOS)


def test_exclusions_hidden_names_and_what_is_no_picture(
    server: ObjectServer, photos: Path, index: Path
) -> None:
    content = next(photos.rglob("*.*")).read_bytes()
    for relative in ("a/one.jpg", "b/two.jpg", ".trash/three.jpg", "@eaDir/four.jpg"):
        put(server, relative, content)
    put(server, "a/", b"")  # stands for a folder
    put(server, "a/notes.txt", b"x" * 3_000_000)
    server.s3.put_object(Bucket="photos", Key="my photos of others/five.jpg", Body=content)
    report = run(index, exclude=("b",))
    assert (report.new, report.passed_over, report.failed) == (1, 1, 0)
    assert list(rows(index)) == [f"{URL}/a/one.jpg"]
    # What is left out is removed, as in a folder.
    assert run(index, exclude=(f"{URL}/a/*",)).removed == 1


@pytest.mark.parametrize("parts", [None, 2])
def test_an_index_below_its_source_is_left_out(
    server: ObjectServer, photos: Path, tmp_path: Path, parts: int | None
) -> None:
    """Whatever lies there: its own files, and pictures; those beside it are photos."""
    upload(server, photos)
    picture = (photos / "photo-000.png").read_bytes()
    put(server, "ix of mine.png", picture)
    place = Bucket(f"{URL}/ix")
    for _ in range(2):
        with collection_copy(place, tmp_path / "scratch", parts is not None) as copy:
            report = index_collection(
                [Path(URL)], copy.folder, PixelExtractor(), parts=parts, copy=copy
            )
        assert (report.total, report.passed_over, report.failed) == (PHOTOS + 1, 0, 0)
        put(server, "ix/shards/other.png", picture)
    # Also before there is a working copy, by the address.
    address = Path(place.url)
    listed = list_photos(open_sources([Path(URL)], address), address)
    assert len(list(listed)) == PHOTOS + 1


def test_a_broken_or_vanished_object_costs_itself(
    server: ObjectServer, photos: Path, index: Path
) -> None:
    upload(server, photos)
    put(server, "broken.jpg", b"no picture")
    put(server, "gone.jpg", b"listed, but not there")
    put(server, "archived.jpg", b"in a vault")
    server.fault = lambda method, path: (
        (404, "NoSuchKey")
        if "gone.jpg" in path
        else (403, "InvalidObjectState")
        if "archived.jpg" in path
        else None
    )
    assert (run(index).new, run(index).failed) == (PHOTOS, 3)
    reasons = {Path(failure.path).name: failure.reason for failure in read_failures(index)}
    assert "no such object" in reasons["gone.jpg"]
    assert "is archived" in reasons["archived.jpg"]
    assert "its content is none" in reasons["broken.jpg"]


def test_access_that_ends_stops_the_run_and_loses_nothing(
    server: ObjectServer, photos: Path, index: Path
) -> None:
    upload(server, photos)
    run(index)
    put(server, "new-1.jpg", next(photos.rglob("*.*")).read_bytes() + b"1")
    server.fault = lambda method, path: (
        (403, "ExpiredToken") if "new-1.jpg" in path and method == "GET" else None
    )
    with pytest.raises(BucketError, match="have expired") as caught:
        run(index)
    assert "VERY-SECRET" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(rows(index)) == PHOTOS
    server.fault = no_fault
    assert (run(index).new, len(rows(index))) == (1, PHOTOS + 1)


def test_throttled_requests_are_sent_again(server: ObjectServer, photos: Path, index: Path) -> None:
    upload(server, photos)
    chance = random.Random(3)
    server.fault = lambda method, path: (503, "SlowDown") if chance.random() < 0.2 else None
    assert (run(index).new, len(rows(index))) == (PHOTOS, PHOTOS)


def test_bad_addresses_are_one_line(server: ObjectServer, index: Path) -> None:
    for url, expected in {
        "s3://nowhere/photos": "no such bucket",
        "s3://photos/empty": "no picture",
    }.items():
        with pytest.raises((BucketError, SourceError), match=expected):
            index_photos([Path(url)], index, PixelExtractor())
    server.fault = lambda method, path: (403, "InvalidAccessKeyId")
    with pytest.raises(BucketError, match="check the credentials"):
        run(index)
    server.fault = no_fault
    server.s3.put_object(Bucket="photos", Key="my photos/a//b.jpg", Body=b"x")
    with pytest.raises(BucketError, match=r"a//b.jpg; rename that object"):
        run(index)
    assert not index.exists()


def test_a_fleet_and_a_whole_bucket(server: ObjectServer, photos: Path, index: Path) -> None:
    upload(server, photos)
    make = PixelExtractor()
    report = index_collection([Path("s3://photos")], index, make, parts=3)
    assert (report.new, report.total) == (PHOTOS, PHOTOS)
    with open_collection(index) as reader:
        assert all(path.startswith(URL) for path in reader.paths())
    server.requests.clear()
    assert index_collection([Path("s3://photos")], index, make).unchanged == PHOTOS
    assert gets(server) == []


def test_one_object_is_a_source(server: ObjectServer, photos: Path, index: Path) -> None:
    upload(server, photos)
    relative = next(photos.rglob("*.*")).relative_to(photos).as_posix()
    assert index_photos([Path(f"{URL}/{relative}")], index, PixelExtractor()).new == 1
    assert list(rows(index)) == [f"{URL}/{relative}"]


def test_a_record_opens_its_photo(server: ObjectServer, photos: Path, index: Path) -> None:
    upload(server, photos)
    run(index)
    with IndexReader.open(index) as reader:
        record = reader.photos(reader.ids[:1])[0]
    local = photos / record.relative_path
    assert str(record.path) == f"{URL}/{record.relative_path}"
    assert record.path.read_bytes() == local.read_bytes()
    shown, expected = load_photo(record.path), load_photo(local)
    assert shown.content_hash == expected.content_hash
    assert shown.image.tobytes() == expected.image.tobytes()
    assert not record.is_changed()
    put(server, record.relative_path, b"another")
    assert record.is_changed()
    server.s3.delete_object(Bucket="photos", Key=f"my photos/{record.relative_path}")
    assert not record.path.exists()
    with pytest.raises(UnreadableError, match="no such object"):
        load_photo(record.path)
    server.fault = lambda method, path: (403, "AccessDenied")
    with pytest.raises(UnreadableError, match="access is denied"):
        load_photo(record.path)


def test_an_object_reads_as_a_file_does(server: ObjectServer) -> None:
    content = random.Random(1).randbytes(1_500_000)
    put(server, "some bytes", content)
    path = path_of(f"{URL}/some bytes")
    assert isinstance(path, ObjectPath)
    with path.open("rb") as file, io.BytesIO(content) as expected:
        for offset, whence, count in [(0, 0, 10), (700_000, 0, 300), (-5, 2, 9), (3, 0, -1)]:
            assert file.seek(offset, whence) == expected.seek(offset, whence)
            assert file.read(count) == expected.read(count)
            assert file.tell() == expected.tell()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    assert digest == hashlib.sha256(content).digest()
    assert str(path.parent) == URL
    assert str(path.with_name("other")) == f"{URL}/other"
    assert path.resolve() == path == path.absolute()
    assert (path.stat().st_size, path.is_dir(), path.suffix) == (len(content), False, "")
    with pytest.raises(OSError, match="only read"):
        path.open("wb")


def test_paths_of_files_are_what_they_were(tmp_path: Path) -> None:
    assert type(path_of(str(tmp_path))) is type(tmp_path)
    assert path_of("s3 photos/a.jpg") == Path("s3 photos/a.jpg")


def test_from_the_terminal(server: ObjectServer, tmp_path: Path, waldo: CommandLine) -> None:
    demo, index, out = ROOT / "data/demo", tmp_path / "index", tmp_path / "out"
    for path in sorted((demo / "photos").iterdir())[:12]:
        put(server, path.name, path.read_bytes())
    made = json.loads(waldo("index", URL, "--index", index, "--json").out)
    assert (made["new"], made["failed"]) == (12, 0)
    put(server, "query/cat.jpg", (demo / "query/cat.jpg").read_bytes())
    ask = ("query", f"{URL}/query/cat.jpg", "--box", "172,31,333,164", "--top", 2, "--index", index)
    outputs = ("--html", out / "a.html", "--masks", out / "masks", "--export", out / "photos")
    out.mkdir()
    answered = waldo(*ask, "--json", *outputs)
    [first, second] = json.loads(answered.out)["matches"]
    assert answered.code == 0
    assert first["path"].startswith(f"{URL}/0")
    name = Path(first["path"]).name
    assert (out / f"photos/001-{name}").read_bytes() == (demo / "photos" / name).read_bytes()
    assert (out / f"masks/001-{Path(name).stem}.mask.png").exists()
    assert (out / "a.html").read_text().count("data:image/jpeg") >= 3
    found = waldo(*ask, "--json", "--path", f"{URL}/{Path(second['path']).name}")
    assert [match["path"] for match in json.loads(found.out)["matches"]] == [second["path"]]
    shown = waldo("show", f"{URL}/query/cat.jpg", "--class", "cat", "--out", out / "b.png")
    assert (shown.code, (out / "b.png").exists()) == (0, True)
    with running_server(index) as client:
        assert client.get(f"/api/v1/photos/{first['id']}/picture?size=160").status == 200
        server.s3.delete_object(Bucket="photos", Key=f"my photos/{name}")
        assert "gone" in client.get(f"/api/v1/photos/{first['id']}/picture?size=320").error
    removed = json.loads(waldo("remove", second["path"], "--index", index, "--json").out)
    assert removed["removed"] == 1
    assert "no such bucket" in waldo.refusal("index", "s3://nowhere/x", "--index", index)
    server.fault = lambda method, path: (403, "ExpiredToken")
    told = waldo(*ask)  # by the query's photo
    assert (told.code, "have expired" in told.err, "SECRET" in told.err) == (2, True, False)
