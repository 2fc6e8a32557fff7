"""An index that is searched where it lies, in a bucket."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from features.errors import WaldoError
from indexer.bucket.object_store import BucketError
from indexer.bucket.remote_check import verify_remote
from indexer.bucket.remote_index import cached_index
from indexer.bucket.transfer import export_index, object_key
from indexer.errors import IndexMissingError
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest
from search import Query, open_index
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer, no_fault, object_server, point_to

ROOT = Path(__file__).parents[3]
PHOTO = ROOT / "data/demo/query/cat.jpg"
BOX = (172.0, 31.0, 333.0, 164.0)
URL = "s3://photos/one/index"


@pytest.fixture(scope="module")
def running(sample_index: Path) -> Iterator[ObjectServer]:
    """A server that holds the sample index at URL."""
    with object_server() as server, pytest.MonkeyPatch.context() as patch:
        point_to(server, patch)
        export_index(str(sample_index), URL)
        yield server


@pytest.fixture
def server(running: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    point_to(running, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    running.fault = no_fault
    running.requests.clear()
    return running


def of_shards(server: ObjectServer) -> list[tuple[str, str]]:
    return [request for request in server.requests if "/shards/" in request[1]]


def test_answers_are_those_of_the_folder(server: ObjectServer, sample_index: Path) -> None:
    query = Query(PHOTO, box=BOX)
    with open_index(sample_index, "cpu") as index:
        expected = index.search(query).matches
    with open_index(URL, "cpu") as index:
        found = index.search(query).matches
    assert len(found) == len(expected) == 20
    for one, other in zip(found, expected, strict=True):
        assert (one.path, one.id, one.score, one.boxes) == (
            *(other.path, other.id, other.score, other.boxes),
        )
        assert one.confidence == other.confidence
        np.testing.assert_array_equal(one.heatmap, other.heatmap)
    assert not any((Path(folder) / "shards").exists() for folder in [cached_index(URL)])


def test_opening_reads_no_shard_and_a_second_time_only_the_manifest(server: ObjectServer) -> None:
    folder = cached_index(URL)
    assert of_shards(server) == []
    with IndexReader.open(folder) as reader:
        assert reader.n_photos > 0
    server.requests.clear()
    assert cached_index(URL) == folder
    assert len(server.requests) == 1


def test_what_a_killed_copy_of_another_state_left_is_deleted(server: ObjectServer) -> None:
    folder = cached_index(URL)
    shutil.rmtree(folder)
    left = folder.parent / "0123456789ab.part"
    left.mkdir()
    (left / "words-1.npy").write_bytes(bytes(9))
    assert cached_index(URL) == folder
    assert not left.exists()


def test_rows_near_each_other_share_a_request(server: ObjectServer, sample_index: Path) -> None:
    with IndexReader.open(cached_index(URL)) as reader, IndexReader.open(sample_index) as local:
        ids = reader.ids[:: max(1, reader.n_photos // 12)]
        found, expected = reader.read_maps(ids), local.read_maps(ids)
        np.testing.assert_array_equal(found.encoded, expected.encoded)
        assert found.damaged == []
    shards = len(read_manifest(sample_index).shards)
    # The head of each shard; and the rows lie so near that they are one request.
    assert len(of_shards(server)) <= 2 * shards


def test_a_flipped_byte_is_named_and_left_out(server: ObjectServer, sample_index: Path) -> None:
    manifest = read_manifest(sample_index)
    shard = manifest.shards[0]
    key = "one/index/" + object_key(shard)
    sound = server.objects()[key]
    assert shard.layout is not None
    damaged = bytearray(sound)
    damaged[shard.layout.maps + manifest.photo_bytes + 5] ^= 1  # of the second row
    server.s3.put_object(Bucket="photos", Key=key, Body=bytes(damaged))
    try:
        with IndexReader.open(cached_index(URL)) as reader:
            batch = reader.read_maps(reader.ids)
            assert len(batch.damaged) == 1
            assert "its checksum differs" in batch.damaged[0]
            assert len(batch.ids) == reader.n_photos - 1
        [problem] = verify_remote(URL)
        assert object_key(shard) in problem
        assert "not what was written" in problem
    finally:
        server.s3.put_object(Bucket="photos", Key=key, Body=sound)
    assert [*verify_remote(URL)] == []


def test_a_missing_shard_is_named(server: ObjectServer, sample_index: Path) -> None:
    key = "one/index/" + object_key(read_manifest(sample_index).shards[0])
    sound = server.objects()[key]
    server.s3.delete_object(Bucket="photos", Key=key)
    try:
        with IndexReader.open(cached_index(URL)) as reader:
            assert "is missing in the bucket" in reader.read_maps(reader.ids[:1]).damaged[0]
        assert "is missing" in next(verify_remote(URL))
    finally:
        server.s3.put_object(Bucket="photos", Key=key, Body=sound)


def test_refused_requests_are_sent_again(server: ObjectServer) -> None:
    chance = random.Random(3)
    server.fault = lambda method, path: (503, "SlowDown") if chance.random() < 0.2 else None
    with IndexReader.open(cached_index(URL)) as reader:
        assert reader.read_maps(reader.ids).damaged == []


def test_access_that_ends_is_one_line(server: ObjectServer) -> None:
    with IndexReader.open(cached_index(URL)) as reader:
        server.fault = lambda method, path: (403, "ExpiredToken")
        with pytest.raises(BucketError, match="have expired") as caught:
            reader.read_maps(reader.ids[:1])
    assert "VERY-SECRET" not in str(caught.value)


def test_a_new_state_takes_the_place_of_the_old(server: ObjectServer, sample_index: Path) -> None:
    folder = cached_index(URL)
    manifest = server.objects()["one/index/manifest.json"]
    changed = json.dumps({**json.loads(manifest), "generation": 10_000}).encode()
    server.s3.put_object(Bucket="photos", Key="one/index/manifest.json", Body=changed)
    server.requests.clear()
    os.utime(folder, (0, 0))  # given long ago
    try:
        newer = cached_index(URL)
    finally:
        server.s3.put_object(Bucket="photos", Key="one/index/manifest.json", Body=manifest)
    assert newer != folder
    assert not folder.exists()
    assert len(server.requests) == 1  # the files are those of the state before
    with IndexReader.open(newer) as reader:
        assert reader.n_photos > 0


def test_a_state_that_was_given_just_now_stays(server: ObjectServer, sample_index: Path) -> None:
    folder = cached_index(URL)
    manifest = server.objects()["one/index/manifest.json"]
    changed = json.dumps({**json.loads(manifest), "generation": 10_000}).encode()
    server.s3.put_object(Bucket="photos", Key="one/index/manifest.json", Body=changed)
    try:
        cached_index(URL)
    finally:
        server.s3.put_object(Bucket="photos", Key="one/index/manifest.json", Body=manifest)
    with IndexReader.open(folder) as reader:  # as another process would, a moment later
        assert reader.n_photos > 0


def test_two_processes_that_fill_the_cache_fetch_every_file_once(
    server: ObjectServer, sample_index: Path
) -> None:
    def slowly(method: str, path: str) -> None:
        time.sleep(0.1)

    server.fault = slowly
    program = f"from indexer.bucket.remote_index import cached_index as c; print(c({URL!r}))"
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(2)]
    folders = [process.communicate(timeout=60)[0].decode().strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert folders[0] == folders[1] == str(cached_index(URL))
    asked = Counter(path for _, path in server.requests if not path.endswith("manifest.json"))
    assert len(asked) > 1
    assert set(asked.values()) == {1}
    assert [*verify_remote(URL)] == []


def test_verify_reads_each_object_once_and_tells_of_small_ones_too(
    server: ObjectServer, sample_index: Path
) -> None:
    key = "one/index/" + object_key(read_manifest(sample_index).photos[0])
    sound = server.objects()[key]
    server.s3.put_object(Bucket="photos", Key=key, Body=bytes([sound[0] ^ 1]) + sound[1:])
    server.requests.clear()
    try:
        [problem] = verify_remote(URL)
    finally:
        server.s3.put_object(Bucket="photos", Key=key, Body=sound)
    assert "not what was written" in problem
    assert len(server.requests) == 1 + len(read_manifest(sample_index).files())
    assert set(Counter(server.requests).values()) == {1}


def test_no_index_there(server: ObjectServer) -> None:
    with pytest.raises(IndexMissingError, match="no index here"):
        cached_index("s3://photos/elsewhere")
    with pytest.raises(WaldoError, match="no such bucket"):
        cached_index("s3://nowhere/index")


def test_from_the_terminal(server: ObjectServer, sample_index: Path, waldo: CommandLine) -> None:
    ask = ("query", PHOTO, "--box", "172,31,333,164", "--json", "--top", 3, "--index")
    [found, expected] = [json.loads(waldo(*ask, where).out) for where in (URL, sample_index)]
    assert found["matches"] == expected["matches"]
    described = json.loads(waldo("info", "--index", URL, "--json").out)
    assert described["photos"] > 0
    checked = waldo("verify", "--index", URL)
    assert (checked.code, checked.out.strip()) == (0, "no problem found")
    folder = cached_index(URL)
    assert "stands for an index in a bucket" in waldo.refusal("compact", "--index", folder)
