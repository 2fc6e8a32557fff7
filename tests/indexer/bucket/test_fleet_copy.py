"""A fleet is written where it lies, in a bucket, whatever the network and other writers do."""

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from indexer.bucket.collection_copy import CollectionCopy, collection_copy
from indexer.bucket.object_store import Bucket, ConflictError
from indexer.bucket.remote_index import cached_index
from indexer.bucket.transfer import export_index, object_key
from indexer.errors import IndexMissingError
from indexer.fleet.fleet_build import index_collection
from indexer.ingest.progress import IndexReport
from indexer.parts import part_name, read_fleet
from indexer.store.failures import FAILURES_NAME
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME, read_manifest
from indexer.upkeep.every_part import (
    compact_collection,
    remove_from_collection,
    verify_collection,
)
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer
from tests.helpers.stores import PixelExtractor, make_photos, rows
from tests.indexer.bucket.test_working_copy import PREFIX, URL, changes

pytestmark = pytest.mark.usefixtures("small_shards", "small_maps")

PARTS = 3


def build(
    photos: Path, folder: Path, copy: CollectionCopy | None = None, parts: int | None = 3
) -> IndexReport:
    return index_collection(
        [photos],
        folder,
        PixelExtractor(),
        parts=parts,
        batch_size=4,
        quality="none",
        copy=copy,
    )


def build_there(photos: Path, scratch: Path, parts: int | None = PARTS) -> IndexReport:
    """As `build`, into the bucket."""
    with collection_copy(Bucket(URL), scratch, parts is not None) as copy:
        return build(photos, copy.folder, copy, parts)


def expected_objects(local: Path) -> dict[str, bytes]:
    """What a bucket should hold of a fleet in a folder, but for its codec, by key."""
    fleet = read_fleet(local)
    assert fleet is not None
    wanted = {PREFIX + FLEET_NAME: (local / FLEET_NAME).read_bytes()}
    if (local / FAILURES_NAME).exists():
        wanted[PREFIX + FAILURES_NAME] = (local / FAILURES_NAME).read_bytes()
    for number, folder in enumerate(fleet.folders):
        place = f"{PREFIX}{part_name(number)}/"
        wanted[place + MANIFEST_NAME] = (folder / MANIFEST_NAME).read_bytes()
        for file in read_manifest(folder).files():
            wanted[place + object_key(file)] = (folder / file.name).read_bytes()
    return wanted


def rows_there(folder: Path) -> list[object]:
    """The rows of every part in the bucket."""
    shutil.rmtree(folder, ignore_errors=True)
    export_index(URL, str(folder))
    fleet = read_fleet(folder)
    assert fleet is not None
    return [rows(part) for part in fleet.folders]


def test_a_fleet_is_that_of_a_folder(server: ObjectServer, tmp_path: Path) -> None:
    """Byte for byte, after several runs, each in a scratch folder of its own."""
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 10)
    for number, _ in enumerate(changes(photos)):
        parts = PARTS if number == 0 else None
        expected = build(photos, local, parts=parts)
        found = build_there(photos, tmp_path / f"scratch-{number}", parts)
        assert (found.new, found.changed, found.moved, found.removed, found.failed) == (
            *(expected.new, expected.changed, expected.moved, expected.removed, expected.failed),
        )
        stored = server.objects()
        for key, content in expected_objects(local).items():
            assert stored[key] == content, key
    assert [*verify_collection(Path(URL))] == []
    assert all(key.startswith(PREFIX) for key in server.objects())


def test_a_run_without_anything_new_copies_no_part(server: ObjectServer, tmp_path: Path) -> None:
    """Where a search on this machine has the parts in the user's cache: four requests per part."""
    photos = tmp_path / "photos"
    make_photos(photos, 10)
    build_there(photos, tmp_path / "scratch")
    cached_index(URL)
    server.requests.clear()
    assert build_there(photos, tmp_path / "scratch", parts=None).new == 0
    assert len(server.requests) <= 5 + 4 * PARTS
    names = {Path(path).name for method, path in server.requests if "list-type" not in path}
    assert names == {MANIFEST_NAME, FLEET_NAME, FAILURES_NAME}


KILLED = """
import os, signal, sys
from pathlib import Path
import indexer.store.shards as shards
from indexer.bucket.object_store import Bucket
from tests.indexer.bucket.test_fleet_copy import build_there

shards.SHARD_BYTES = 600
written = 0
write = Bucket._put_if_unchanged

def write_or_die(*args):
    global written
    written += 1
    if written == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*args)

Bucket._put_if_unchanged = write_or_die
build_there(Path(sys.argv[1]), Path(sys.argv[2]))
"""


# Before fleet.json is stored, before all parts are there, and in the middle of the second part.
@pytest.mark.parametrize("write", [1, 3, 8])
def test_a_killed_writer_goes_on(server: ObjectServer, tmp_path: Path, write: int) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 12)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, photos, tmp_path / "scratch", str(write)],
        cwd=Path(__file__).parents[3],
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    assert (PREFIX + FLEET_NAME in server.objects()) == (write > 1)
    again = build_there(photos, tmp_path / "another")
    assert again.new + again.unchanged == 12
    assert (again.unchanged > 0) == (write == 8)
    build(photos, tmp_path / "local")
    fleet = read_fleet(tmp_path / "local")
    assert fleet is not None
    assert rows_there(tmp_path / "back") == [rows(part) for part in fleet.folders]
    assert [*verify_collection(Path(URL))] == []


def test_requests_that_are_refused(server: ObjectServer, tmp_path: Path) -> None:
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 10)
    build(photos, local)
    chance = random.Random(3)

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        return (503, "SlowDown") if chance.random() < 0.05 else None

    server.fault = refuse
    build_there(photos, tmp_path / "scratch")
    stored = server.objects()
    assert {key: stored.get(key) for key in expected_objects(local)} == expected_objects(local)


def test_of_two_writers_one_makes_the_fleet(server: ObjectServer, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 6)
    with collection_copy(Bucket(URL), tmp_path / "late", True) as late:
        build_there(photos, tmp_path / "early")
        with pytest.raises(ConflictError, match="another run has made a fleet here meanwhile"):
            build(photos, late.folder, late, parts=2)
        shutil.rmtree(late.folder)  # nothing is left to be pushed
        late.folder.mkdir()
    assert build_there(photos, tmp_path / "late", None).unchanged == 6
    assert [*verify_collection(Path(URL))] == []


def test_places_that_are_taken(server: ObjectServer, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_photos(photos, 3)
    server.s3.put_object(Bucket="photos", Key=PREFIX + "dear.txt", Body=b"dear")
    with pytest.raises(IndexMissingError, match="holds other objects and no fleet"):
        build_there(photos, tmp_path / "scratch")
    server.reset()
    with collection_copy(Bucket(URL), tmp_path / "ordinary") as copy:
        build(photos, copy.folder, copy, None)
    with pytest.raises(IndexMissingError, match="is an ordinary index; choose another place"):
        build_there(photos, tmp_path / "scratch")


def test_remove_and_compact(server: ObjectServer, tmp_path: Path) -> None:
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 10)
    build_there(photos, tmp_path / "scratch")
    build(photos, local)
    gone = [photos / "photo-002.png", photos / "photo-005.png"]

    def remove_some(index_dir: Path, copy: CollectionCopy | None = None) -> None:
        remove_from_collection(index_dir, gone, copy)

    for number, work in enumerate((remove_some, compact_collection)):
        with collection_copy(Bucket(URL), tmp_path / f"scratch-{number}") as copy:
            work(copy.folder, copy)
        work(local)
        stored = server.objects()
        for key, content in expected_objects(local).items():
            assert stored[key] == content, key
    assert [*verify_collection(Path(URL))] == []


def test_from_the_terminal(server: ObjectServer, tmp_path: Path, waldo: CommandLine) -> None:
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 8)
    first, *_, last = sorted(photos.iterdir())
    ask = ("query", first, "--box", "1,1,5,5", "--json")
    for command in (
        ("index", photos, "--parts", "2", "--json"),
        ask,
        ("remove", last, "--json"),
        ("index", photos, "--json"),
        ("compact", "--json"),
        ("info", "--json"),
        ask,
        ("verify", "--json"),
    ):
        here, there = (waldo(*command, "--index", where) for where in (local, URL))
        assert (here.code, there.code) == (0, 0), (command, here, there)
        expected, found = json.loads(here.out), json.loads(there.out)
        for values in (expected, found):
            for name in ("index_dir", "index", "seconds", "timing", "bytes_on_disk"):
                values.pop(name, None)
        assert found == expected, command
    line = waldo.refusal("index", photos, "--index", URL, "--parts", "3")
    assert f"{URL}: is a fleet of 2 parts" in line


def build_hooked(photos: Path, scratch: Path, before: Callable[[int], None]) -> IndexReport:
    """before: called before each extraction."""
    extractor = PixelExtractor(before=before)
    with collection_copy(Bucket(URL), scratch) as copy:
        return index_collection([photos], copy.folder, extractor, batch_size=1, copy=copy)


def test_two_runs_at_once(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one run is at its first part, another one on another machine does all parts, and has
    photos that the first one's listing lacks.
    """
    photos, local = tmp_path / "photos", tmp_path / "local"
    make_photos(photos, 6)
    build_there(photos, tmp_path / "scratch")
    build(photos, local)
    make_photos(photos, 8, first=6)
    others: list[IndexReport] = []

    def run_another(_: int) -> None:
        if not others:
            make_photos(photos, 6, first=14)
            with monkeypatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-cache"))
                others.append(build_there(photos, tmp_path / "another", None))

    report = build_hooked(photos, tmp_path / "scratch", run_another)
    assert (others[0].new, report.new, report.removed, report.total) == (14, 0, 0, 20)
    assert build(photos, local, parts=None).new == 14
    fleet = read_fleet(local)
    assert fleet is not None
    assert rows_there(tmp_path / "back") == [rows(part) for part in fleet.folders]
    assert [*verify_collection(Path(URL))] == []


def test_a_run_needs_room_for_one_part_without_its_maps(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    make_photos(photos, 2)
    build_there(photos, tmp_path / "scratch")
    make_photos(photos, 38, first=2)
    opened: set[Path] = set()
    unstored = 0

    def look(_: int) -> None:
        nonlocal unstored
        folders = [*cache.glob("waldo/working-copies/*/parts/*/index")]
        assert len(folders) == 1
        opened.update(folders)
        shards = [*folders[0].glob("shards/*.parquet")]
        unstored = max(unstored, sum(path.stat().st_blocks > 0 for path in shards))

    build_hooked(photos, tmp_path / "scratch", look)
    assert len(opened) == PARTS
    assert unstored <= 1
    assert [*cache.glob("waldo/working-copies/*/parts/*/index")] == []
    assert sum("/shards/" in key for key in server.objects()) > 2 * PARTS
