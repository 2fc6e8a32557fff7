"""An index is written where it lies, in a bucket, whatever the network and other writers do."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

import indexer.ingest.sample as sample
import indexer.store.shards as shards
from features.errors import WaldoError
from indexer.bucket import working_copy as writing_module
from indexer.bucket.collection_copy import CollectionCopy, collection_copy
from indexer.bucket.object_store import Bucket, BucketError, ConflictError
from indexer.bucket.remote_check import verify_remote
from indexer.bucket.remote_index import cached_index
from indexer.bucket.transfer import export_index, object_key
from indexer.errors import (
    FingerprintError,
    IndexBusyError,
    IndexDamagedError,
    IndexMissingError,
)
from indexer.ingest.build import index_photos
from indexer.ingest.progress import IndexReport
from indexer.store.failures import FAILURES_NAME, read_failures
from indexer.store.manifest import MANIFEST_NAME, read_manifest
from indexer.upkeep.compact import compact
from indexer.upkeep.remove import remove
from tests.helpers.servers.object_server import Fault, ObjectServer, no_fault
from tests.helpers.stores import PixelExtractor, make_photos, rows, run
from tests.indexer.bucket.conftest import SHARD_BYTES

URL = "s3://photos/one/index"
PREFIX = "one/index/"
pytestmark = pytest.mark.usefixtures("small_shards")


def index(sources: Path, scratch: Path, extractor: PixelExtractor | None = None) -> IndexReport:
    """Index photos into the bucket; as `run` does into a folder."""
    with collection_copy(Bucket(URL), scratch) as copy:
        return index_photos(
            [sources],
            copy.folder,
            extractor or PixelExtractor(),
            batch_size=4,
            quality="none",
            on_commit=copy.push,
        )


def fetched(folder: Path) -> Path:
    """The index in the bucket, copied into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    export_index(URL, str(folder))
    return folder


def changes(photos: Path) -> Iterator[None]:
    """Change a collection of photos again and again, in every way."""
    yield
    make_photos(photos, 5, first=20)  # new ones
    yield
    (photos / "photo-003.png").unlink()
    (photos / "photo-004.png").rename(photos / "renamed.png")
    shutil.copy(photos / "photo-005.png", photos / "copy.png")
    shutil.copy(photos / "photo-006.png", photos / "photo-007.png")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    yield
    (photos / "broken.png").unlink()
    yield


def test_an_index_is_that_of_a_folder(server: ObjectServer, tmp_path: Path) -> None:
    """Byte for byte, after several runs, each in a scratch folder of its own."""
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 10)
    for number, _ in enumerate(changes(photos)):
        expected = run(photos, local)
        found = index(photos, tmp_path / f"scratch-{number}")
        assert (found.new, found.changed, found.moved, found.removed, found.failed) == (
            *(expected.new, expected.changed, expected.moved, expected.removed, expected.failed),
        )
        manifest = read_manifest(local)
        named = {PREFIX + object_key(file): file.name for file in manifest.files()}
        named[PREFIX + MANIFEST_NAME] = MANIFEST_NAME
        stored = server.objects()
        for key, name in named.items():
            assert stored[key] == (local / name).read_bytes(), name
        if (local / FAILURES_NAME).exists():
            assert stored[PREFIX + FAILURES_NAME] == (local / FAILURES_NAME).read_bytes()
    assert [*verify_remote(URL)] == []
    assert all(key.startswith(PREFIX) for key in server.objects())


def test_map_shards_stay_in_the_bucket(server: ObjectServer, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 10)
    index(photos, tmp_path / "scratch")
    server.requests.clear()
    make_photos(photos, 1, first=30)
    assert index(photos, tmp_path / "other").new == 1
    assert [
        path for method, path in server.requests if method == "GET" and "/shards/" in path
    ] == []


def test_a_scratch_folder_that_is_there_saves_copying(server: ObjectServer, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 5)
    index(photos, tmp_path / "scratch")
    server.requests.clear()
    assert index(photos, tmp_path / "scratch").new == 0
    # The manifest, and the list of objects.
    assert [method for method, _ in server.requests] == ["GET", "GET"]


def test_what_a_search_has_copied_is_not_copied_again(server: ObjectServer, tmp_path: Path) -> None:
    """Nor is what the writer makes of it seen by the search."""
    photos = tmp_path / "photos"
    make_photos(photos, 5)
    index(photos, tmp_path / "scratch")
    cached = cached_index(URL)
    before = {path: path.read_bytes() for path in cached.rglob("*") if path.is_file()}
    server.requests.clear()
    assert index(photos, tmp_path / "other").new == 0
    assert len(server.requests) == 2
    make_photos(photos, 3, first=20)
    assert index(photos, tmp_path / "another").new == 3
    assert {path: path.read_bytes() for path in before} == before
    assert [*verify_remote(URL)] == []


def test_every_commit_is_pushed(server: ObjectServer, tmp_path: Path) -> None:
    photos, counts = tmp_path / "photos", []
    make_photos(photos, 12)
    with collection_copy(Bucket(URL), tmp_path / "scratch") as copy:

        def push() -> None:
            copy.push()
            counts.append(server.objects()[PREFIX + MANIFEST_NAME].count(b'"shards/'))

        index_photos([photos], copy.folder, PixelExtractor(), quality="none", on_commit=push)
    assert counts == [0, 1, 2, 3, 4, 4]  # the codec, the shards, what recall needs


def lose(what: Callable[[str, str], bool], times: int = 1) -> Fault:
    """Carry out some requests, and cut off their answers."""
    left = iter(range(times))

    def fault(method: str, path: str) -> str | None:
        return "lost" if what(method, path) and next(left, None) is not None else None

    return fault


def is_commit(method: str, path: str) -> bool:
    return method == "PUT" and path.endswith(MANIFEST_NAME)


def test_answers_to_commits_that_are_lost(server: ObjectServer, tmp_path: Path) -> None:
    """To the first, which creates the manifest, and to the next, which replaces it."""
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 10)
    server.fault = lose(is_commit, times=3)
    index(photos, tmp_path / "scratch")
    run(photos, local)
    assert server.objects()[PREFIX + MANIFEST_NAME] == (local / MANIFEST_NAME).read_bytes()


def test_refused_requests(server: ObjectServer, tmp_path: Path) -> None:
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 10)
    chance, refused = random.Random(5), 0

    def fault(method: str, path: str) -> tuple[int, str] | str | None:
        nonlocal refused
        if chance.random() > 0.1:
            return None
        refused += 1
        return "lost" if chance.random() < 0.3 else (503, "SlowDown")

    server.fault = fault
    for number, _ in enumerate(changes(photos)):
        run(photos, local)
        index(photos, tmp_path / f"scratch-{number % 2}")
    assert refused > 5
    assert rows(fetched(tmp_path / "back")) == rows(local)


def test_an_outage_loses_no_commit_that_was_pushed(server: ObjectServer, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 12)

    def fault(method: str, path: str) -> tuple[int, str] | None:
        return (503, "SlowDown") if len(server.requests) > 12 else None

    server.fault = fault
    with pytest.raises(BucketError, match="run the same command again"):
        index(photos, tmp_path / "scratch")
    server.fault = no_fault
    assert [*verify_remote(URL)] == []
    assert index(photos, tmp_path / "scratch").new < 12
    run(photos, tmp_path / "local")
    assert rows(fetched(tmp_path / "back")) == rows(tmp_path / "local")


def test_an_outage_breaks_no_photo(server: ObjectServer, tmp_path: Path) -> None:
    """Photos that were touched: their maps in the bucket are read, to be used again."""
    photos = tmp_path / "photos"
    made = make_photos(photos, 4)
    index(photos, tmp_path / "scratch")
    for path in made:
        os.utime(path, ns=(0, 0))
    server.fault = lambda method, path: (403, "ExpiredToken") if "/shards/" in path else None
    with pytest.raises(BucketError, match="have expired"):
        index(photos, tmp_path / "scratch")
    server.fault = no_fault
    report = index(photos, tmp_path / "scratch")
    assert (report.unchanged, report.new, report.removed, report.failed) == (4, 0, 0, 0)


def test_of_two_writers_the_slower_is_refused(server: ObjectServer, tmp_path: Path) -> None:
    """When the index is made, and when it is changed; its photos are added when it runs again."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for first in (0, 100):
        make_photos(mine, 4, first)
        make_photos(theirs, 4, first + 50)

        def intrude(done: int) -> None:
            if done == 0:
                index(theirs, tmp_path / "scratch-theirs")

        with pytest.raises(ConflictError, match=f"{URL}: another run has written") as caught:
            index(mine, tmp_path / "scratch", PixelExtractor(before=intrude))
        assert "\n" not in str(caught.value)
        assert [*verify_remote(URL)] == []
        assert index(mine, tmp_path / "scratch").new == 4
    found = rows(fetched(tmp_path / "back"))
    assert {Path(path).parent for path in found} == {mine, theirs}
    assert len(found) == 16
    assert len({number for number, *_ in found.values()}) == 16


def test_two_writers_on_one_machine(server: ObjectServer, tmp_path: Path) -> None:
    one, other = (collection_copy(Bucket(URL), tmp_path / "scratch") for _ in range(2))
    with one, pytest.raises(IndexBusyError, match=f"{URL}: another run"), other:
        pass


def test_an_interrupt_keeps_what_is_done(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what fills no shard."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2**20)
    monkeypatch.setattr(sample, "_MOST_PHOTOS", 2)  # or all were extracted before any is stored
    photos = tmp_path / "photos"
    make_photos(photos, 12)

    def stop(done: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(photos, tmp_path / "scratch", PixelExtractor(before=stop))
    assert [*verify_remote(URL)] == []
    stored = len(rows(fetched(tmp_path / "back")))
    assert 0 < stored < 12
    assert index(photos, tmp_path / "other").new == 12 - stored


KILLED = """
import os, signal, sys
from pathlib import Path
import indexer.store.shards as shards
from indexer.bucket.object_store import Bucket
from indexer.bucket.collection_copy import collection_copy
from indexer.ingest.build import index_photos
from tests.helpers.stores import PixelExtractor

shards.SHARD_BYTES = int(sys.argv[4])

pushes = 0

with collection_copy(Bucket("s3://photos/one/index"), Path(sys.argv[2])) as copy:

    def push():
        global pushes
        pushes += 1
        if sys.argv[3] == f"before {pushes}":
            os.kill(os.getpid(), signal.SIGKILL)
        copy.push()
        if sys.argv[3] == f"after {pushes}":
            os.kill(os.getpid(), signal.SIGKILL)

    index_photos(
        [Path(sys.argv[1])], copy.folder, PixelExtractor(), batch_size=4, quality="none",
        on_commit=push,
    )
"""


@pytest.mark.parametrize(
    ("moment", "scratch", "left"),
    [("before 1", "same", 12), ("before 4", "same", 6), ("after 4", "another", 3)],
)
def test_a_killed_writer_goes_on(
    server: ObjectServer, tmp_path: Path, moment: str, scratch: str, left: int
) -> None:
    """What was not pushed is all that is lost, in the same scratch folder and in another."""
    photos = tmp_path / "photos"
    make_photos(photos, 12)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, photos, tmp_path / "same", moment, str(SHARD_BYTES)],
        cwd=Path(__file__).parents[3],
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    if left < 12:
        assert [*verify_remote(URL)] == []
    assert index(photos, tmp_path / scratch).new == left
    run(photos, tmp_path / "local")
    assert rows(fetched(tmp_path / "back")) == rows(tmp_path / "local")


def test_remove_and_compact(server: ObjectServer, tmp_path: Path) -> None:
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 10)
    index(photos, tmp_path / "scratch")
    run(photos, local)
    gone = [photos / "photo-002.png", photos / "photo-005.png"]
    for number, work in enumerate((lambda where: remove(where, gone), compact)):
        with collection_copy(Bucket(URL), tmp_path / f"scratch-{number}") as copy:
            found = work(copy.folder)
        work(local)
        assert rows(fetched(tmp_path / "back")) == rows(local)
        manifest = server.objects()[PREFIX + MANIFEST_NAME]
        assert manifest == (local / MANIFEST_NAME).read_bytes()
    assert found.lost == ()
    assert [*verify_remote(URL)] == []


def test_what_no_manifest_names_is_deleted_after_a_day(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    made = make_photos(photos, 10)
    index(photos, tmp_path / "scratch")
    for path in made[::2]:
        path.unlink()
    index(photos, tmp_path / "scratch")
    server.s3.put_object(Bucket="photos", Key="one/index/notes.txt", Body=b"a person's")
    server.s3.put_object(Bucket="photos", Key="one/other/shards/1.parquet", Body=b"another's")
    server.s3.put_object(Bucket="photos", Key="one/index/a/shards/1.parquet", Body=b"another's")
    foreign = {"one/index/notes.txt", "one/other/shards/1.parquet", "one/index/a/shards/1.parquet"}

    def clean(copy: CollectionCopy) -> set[str]:
        before = set(server.objects())
        copy.push()
        copy.delete_unnamed()
        return before - set(server.objects())

    with collection_copy(Bucket(URL), tmp_path / "scratch") as copy:
        replaced = set(read_manifest(copy.folder).shards)
        compact(copy.folder)
        assert clean(copy) == set()  # none is a day old
        monkeypatch.setattr(writing_module, "_GRACE", -writing_module._GRACE)
        # Those of the state that this compaction replaced may be in use.
        assert not clean(copy) & {PREFIX + object_key(file) for file in replaced}
    with collection_copy(Bucket(URL), tmp_path / "scratch") as copy:
        assert {PREFIX + object_key(file) for file in replaced} <= clean(copy)
    assert [*verify_remote(URL)] == []
    named = {PREFIX + object_key(f) for f in read_manifest(fetched(tmp_path / "back")).files()}
    assert set(server.objects()) == named | foreign | {PREFIX + MANIFEST_NAME}


def test_a_lost_shard_is_made_again(server: ObjectServer, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 10)
    index(photos, tmp_path / "scratch")
    first = read_manifest(fetched(tmp_path / "back")).shards[0]
    server.s3.delete_object(Bucket="photos", Key=PREFIX + object_key(first))
    assert index(photos, tmp_path / "scratch").changed == first.rows
    assert [*verify_remote(URL)] == []
    run(photos, tmp_path / "local")
    assert rows(fetched(tmp_path / "back")) == rows(tmp_path / "local")


def test_failures_are_kept(server: ObjectServer, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 3)
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert index(photos, tmp_path / "scratch").failed == 1
    with collection_copy(Bucket(URL), tmp_path / "other") as copy:
        [failure] = read_failures(copy.folder)
    assert failure.path.endswith("broken.png")


def test_errors_name_the_bucket(server: ObjectServer, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 3)
    index(photos, tmp_path / "scratch")
    with pytest.raises(FingerprintError, match=f"^{URL}: made with model pixels") as caught:
        index(photos, tmp_path / "scratch", PixelExtractor(model="another"))
    assert str(tmp_path) not in str(caught.value)
    again = collection_copy(Bucket(URL), tmp_path / "scratch")
    with pytest.raises(WaldoError, match=f"no photo of {URL} lies there"), again as copy:
        remove(copy.folder, [photos / "none.png"])


def test_a_place_that_holds_something_else(server: ObjectServer, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 1)
    server.s3.put_object(Bucket="photos", Key=PREFIX + "letter.txt", Body=b"dear")
    with pytest.raises(IndexMissingError, match="holds other objects and no index"):
        index(tmp_path / "photos", tmp_path / "scratch")
    assert set(server.objects()) == {PREFIX + "letter.txt"}
    server.reset()
    server.s3.put_object(Bucket="photos", Key=PREFIX + "fleet.json", Body=b"{}")
    with pytest.raises(IndexDamagedError, match=f"{URL}/fleet.json: cannot be read"):
        index(tmp_path / "photos", tmp_path / "scratch")
