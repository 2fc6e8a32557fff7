"""A fleet in a bucket: there and back, and read where it lies."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from features.errors import WaldoError
from indexer.bucket.remote_index import cached_index
from indexer.bucket.transfer import export_index, object_key
from indexer.errors import IndexDamagedError, IndexMissingError, IndexWriteError
from indexer.fleet.fleet_build import index_collection
from indexer.fleet.fleet_reader import FleetReader, open_collection
from indexer.parts import Fleet, read_fleet
from indexer.store.filters import PhotoFilter
from indexer.store.manifest import FLEET_NAME, MANIFEST_NAME, read_manifest
from indexer.upkeep.every_part import describe_collection, verify_collection
from search import Query
from search.index import Index
from search.query import SearchOptions
from tests.helpers.servers.object_server import ObjectServer
from tests.helpers.stores import PixelDescriptor, PixelExtractor, make_photos

URL = "s3://photos/one/fleet"
PREFIX = "one/fleet/"
PARTS = 3
PHOTOS = 14


@pytest.fixture
def server(server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return server


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet, to be read alone."""
    folder = tmp_path_factory.mktemp("original")
    make_photos(folder / "photos", PHOTOS)
    update(folder)
    return folder / "fleet"


def update(folder: Path) -> None:
    update_collection(folder / "fleet", folder / "photos")


def update_collection(fleet: Path, photos: Path) -> None:
    descriptors = [PixelDescriptor()]
    index_collection([photos], fleet, PixelExtractor(), parts=PARTS, descriptors=descriptors)


def fleet_in(folder: Path) -> Fleet:
    fleet = read_fleet(folder)
    assert fleet is not None
    return fleet


def content_of(folder: Path) -> dict[str, bytes]:
    """All files that a fleet consists of."""
    fleet = fleet_in(folder)
    paths = [folder / FLEET_NAME, folder / fleet.codec.name]
    for part in fleet.folders:
        paths += [part / MANIFEST_NAME, *(part / file.name for file in read_manifest(part).files())]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_there_and_back(server: ObjectServer, original: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    export_index(str(original), URL, lambda *step: steps.append(step))
    fleet = fleet_in(original)
    expected = {PREFIX + FLEET_NAME, PREFIX + object_key(fleet.codec)}
    for number, part in enumerate(fleet.folders):
        names = [MANIFEST_NAME, *map(object_key, read_manifest(part).files())]
        expected |= {f"{PREFIX}parts/{number:05d}/{name}" for name in names}
    assert set(server.objects()) == expected
    [last] = [path for method, path in server.requests if method == "PUT"][-1:]
    assert last.endswith(FLEET_NAME)
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    back, steps = tmp_path / "back", []
    export_index(URL, str(back), lambda *step: steps.append(step))
    assert content_of(back) == content_of(original)
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    assert [*verify_collection(back)] == []
    assert not list(tmp_path.glob("*.part"))


def test_both_ways_can_be_repeated(server: ObjectServer, original: Path, tmp_path: Path) -> None:
    export_index(str(original), URL)
    export_index(URL, str(tmp_path / "back"))
    server.requests.clear()
    export_index(str(original), URL)
    export_index(URL, str(tmp_path / "back"))
    assert {method for method, _ in server.requests} == {"GET"}
    assert len(server.requests) == 2 * (2 + PARTS)


def test_an_interrupted_copy_goes_on(server: ObjectServer, original: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    back = tmp_path / "back"
    with pytest.raises(KeyboardInterrupt):
        export_index(str(original), URL, stop)
    assert PREFIX + FLEET_NAME not in server.objects()
    with pytest.raises(IndexMissingError, match="no index here"):
        export_index(URL, str(back))
    stored = len(server.objects())
    server.requests.clear()
    export_index(str(original), URL)
    puts = [path for method, path in server.requests if method == "PUT"]
    assert len(puts) == len(server.objects()) - stored
    with pytest.raises(KeyboardInterrupt):
        export_index(URL, str(back), stop)
    assert not back.exists()
    export_index(URL, str(back))
    assert content_of(back) == content_of(original)


def test_lost_answers_and_refusals_change_nothing(
    server: ObjectServer, original: Path, tmp_path: Path
) -> None:
    lost, chance = iter([True]), random.Random(1)

    def fault(method: str, path: str) -> str | tuple[int, str] | None:
        if method == "PUT" and path.endswith(FLEET_NAME) and next(lost, False):
            return "lost"
        return (503, "SlowDown") if chance.random() < 0.2 else None

    server.fault = fault
    export_index(str(original), URL)
    export_index(URL, str(tmp_path / "back"))
    assert content_of(tmp_path / "back") == content_of(original)


def test_what_lies_there_is_left_alone(
    server: ObjectServer, original: Path, tmp_path: Path
) -> None:
    export_index(str(original), URL)
    stored = server.objects()
    shutil.copytree(original.parent, tmp_path / "later")
    make_photos(tmp_path / "later/photos/more", 3)
    update(tmp_path / "later")  # the same fleet, grown
    index_collection([original.parent / "photos"], tmp_path / "index", PixelExtractor())
    for other in (tmp_path / "later/fleet", tmp_path / "index"):
        with pytest.raises(WaldoError, match="holds another index"):
            export_index(str(other), URL)
        with pytest.raises(WaldoError, match="holds something else"):
            export_index(URL, str(other))
    assert server.objects() == stored
    export_index(str(tmp_path / "index"), "s3://photos/index")
    with pytest.raises(WaldoError, match="holds another index"):
        export_index(str(original), "s3://photos/index")


def test_faults_are_one_line(server: ObjectServer, original: Path, tmp_path: Path) -> None:
    export_index(str(original), URL)
    stored = server.objects()

    def put(key: str, content: bytes) -> None:
        server.s3.put_object(Bucket="photos", Key=PREFIX + key, Body=content)

    def refused(error: type[WaldoError], match: str) -> None:
        with pytest.raises(error, match=match) as caught:
            export_index(URL, str(tmp_path / "back"))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "back").exists()

    codec = object_key(fleet_in(original).codec)
    put(codec, b"x" * len(stored[PREFIX + codec]))
    refused(IndexDamagedError, "is not what was written")
    put(codec, stored[PREFIX + codec])
    put(FLEET_NAME, stored[PREFIX + FLEET_NAME].replace(b"fleet-codec", b"../../codec"))
    refused(IndexDamagedError, "which is no file")
    put(FLEET_NAME, stored[PREFIX + FLEET_NAME].replace(b'"parts": 3', b'"parts": "three"'))
    refused(IndexDamagedError, "fleet.json: is not what was written")
    put(FLEET_NAME, stored[PREFIX + FLEET_NAME])
    server.s3.delete_object(Bucket="photos", Key=f"{PREFIX}parts/00001/manifest.json")
    refused(IndexMissingError, "parts/00001: this part of the fleet is missing")


@pytest.fixture
def stored(server: ObjectServer, original: Path) -> ObjectServer:
    """The server with the fleet in its bucket."""
    export_index(str(original), URL)
    server.requests.clear()
    return server


def test_read_where_it_lies_it_is_the_fleet_of_the_folder(
    stored: ObjectServer, original: Path, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    folder = cached_index(URL, lambda *step: steps.append(step))
    assert not any("/shards/" in path for _, path in stored.requests)
    assert steps[-1][0] == steps[-1][1] > 0
    assert {total for done, total in steps if done} == {steps[-1][1]}
    query = Query(next((original.parent / "photos").iterdir()), box=(2, 2, 20, 20))
    with open_collection(folder) as there, open_collection(original) as here:
        assert isinstance(there, FleetReader)
        assert list(there.paths()) == list(here.paths())
        found, expected = there.read_maps(there.ids), here.read_maps(here.ids)
        np.testing.assert_array_equal(found.encoded, expected.encoded)
        np.testing.assert_array_equal(found.ids, expected.ids)
        shards = sum(len(read_manifest(part).shards) for part in fleet_in(original).folders)
        # The head of each, and its rows, which lie near each other.
        assert len([path for _, path in stored.requests if "/shards/" in path]) == 2 * shards
        for options in (SearchOptions(), SearchOptions(filter=PhotoFilter(("*[0-4].*",)))):
            answers = [Index(one, PixelExtractor()).search(query, options) for one in (there, here)]
            rows = [[(m.id, m.score, m.confidence, m.boxes) for m in a.matches] for a in answers]
            assert rows[0] == rows[1]
            assert rows[0]
    described, expected_info = describe_collection(folder), describe_collection(original)
    for name in ("photos", "parts", "bytes", "shards", "descriptors", "sources"):
        assert described[name] == expected_info[name], name
    with pytest.raises(IndexWriteError, match="stands for an index in a bucket"):
        update_collection(folder, original.parent / "photos")


def test_a_second_time_it_asks_for_the_manifests_alone(stored: ObjectServer) -> None:
    folder = cached_index(URL)
    stored.requests.clear()
    assert cached_index(URL) == folder
    assert len(stored.requests) == 2 + PARTS


def test_a_part_that_changes_is_copied_and_the_others_stay(
    stored: ObjectServer, original: Path
) -> None:
    before = cached_index(URL)
    parts = [place.resolve() for place in fleet_in(before).folders]
    key = f"{PREFIX}parts/00001/{MANIFEST_NAME}"
    manifest = json.loads(stored.objects()[key])
    changed = json.dumps({**manifest, "generation": 10_000}).encode()
    with open_collection(before) as reader:
        stored.s3.put_object(Bucket="photos", Key=key, Body=changed)
        stored.requests.clear()
        after = cached_index(URL)
        assert len(stored.requests) == 2 + PARTS + 1  # and the codec of the fleet
        changes = [
            new.resolve() != old for new, old in zip(fleet_in(after).folders, parts, strict=True)
        ]
        assert changes == [False, True, False]
        # What is open stays whole: files that it has not read yet, too.
        assert len(reader.read_maps(reader.ids).ids) == PHOTOS
        assert reader.recall is not None
        assert reader.words_in(np.zeros((1, reader.dim), np.float32), 1) is not None
    cached_index(URL)
    stored.s3.put_object(
        Bucket="photos", Key=key, Body=json.dumps({**manifest, "generation": 10_001}).encode()
    )
    states = [one for one in after.parent.iterdir() if one.is_dir()]
    for state in states:
        os.utime(state, (0, 0))  # given long ago
    last = cached_index(URL)
    assert [one for one in last.parent.iterdir() if one.is_dir()] == [last]
    with open_collection(last) as reader:
        assert reader.n_photos == PHOTOS


def test_damage_is_named_and_left_out(stored: ObjectServer, original: Path) -> None:
    part = fleet_in(original).folder(2)
    manifest = read_manifest(part)
    [shard] = manifest.shards
    key = f"parts/00002/{object_key(shard)}"
    sound = stored.objects()[PREFIX + key]
    assert shard.layout is not None
    damaged = bytearray(sound)
    damaged[shard.layout.maps + 5] ^= 1  # of the first row
    stored.s3.put_object(Bucket="photos", Key=PREFIX + key, Body=bytes(damaged))
    with open_collection(cached_index(URL)) as reader:
        batch = reader.read_maps(reader.ids)
        [line] = batch.damaged
        assert "parts/00002" in line
        assert "its checksum differs" in line
        assert len(batch.ids) == PHOTOS - 1
    [problem] = verify_collection(Path(URL))
    assert problem.startswith(f"{URL}/{key}: its content is not what was written")
    stored.s3.delete_object(Bucket="photos", Key=PREFIX + key)
    with open_collection(cached_index(URL)) as reader:
        batch = reader.read_maps(reader.ids)
        assert len(batch.ids) == PHOTOS - shard.rows
        assert "is missing in the bucket" in batch.damaged[0]
    assert [*verify_collection(Path(URL))] == [
        f"{URL}/{key}: is missing; run `waldo index` again over the same photos"
    ]
    stored.s3.put_object(Bucket="photos", Key=PREFIX + key, Body=sound)
    assert [*verify_collection(Path(URL))] == []
    codec = PREFIX + object_key(fleet_in(original).codec)
    stored.s3.put_object(Bucket="photos", Key=codec, Body=b"x")
    [problem] = verify_collection(Path(URL))
    assert "fleet-codec" in problem
    # What it says helps.
    source = problem.removesuffix(" to it").split(f"copy {URL}/")[1]
    stored.s3.put_object(Bucket="photos", Key=codec, Body=stored.objects()[PREFIX + source])
    assert [*verify_collection(Path(URL))] == []


def test_a_part_of_another_fleet_is_refused(stored: ObjectServer, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 5)
    other = PixelExtractor(model="other")
    index_collection([tmp_path / "photos"], tmp_path / "index", other)
    key = f"{PREFIX}parts/00001/{MANIFEST_NAME}"
    stored.s3.delete_object(Bucket="photos", Key=key)
    export_index(str(tmp_path / "index"), f"{URL}/parts/00001")
    with pytest.raises(IndexDamagedError, match="parts/00001: is no part of this fleet"):
        cached_index(URL)
