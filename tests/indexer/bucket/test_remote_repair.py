"""Damaged and lost objects of an index in a bucket: what is said of them, and that it helps."""

import json
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from indexer.bucket.collection_copy import collection_copy
from indexer.bucket.object_store import Bucket, BucketError
from indexer.bucket.remote_check import verify_remote
from indexer.bucket.remote_index import cached_index
from indexer.bucket.transfer import export_index, object_key
from indexer.errors import IndexDamagedError
from indexer.reader import IndexReader
from indexer.store.manifest import MANIFEST_NAME, Manifest, read_manifest
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer, no_fault
from tests.helpers.stores import make_photos, rows, run

URL = "s3://photos/one/index"
PREFIX = "one/index/"
MEND = "delete that file and run `waldo index` again over the same photos"
pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def local(tmp_path: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index of ten photos in tmp_path / "photos", a copy of which lies in the bucket."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_photos(tmp_path / "photos", 10)
    run(tmp_path / "photos", tmp_path / "local")
    export_index(str(tmp_path / "local"), URL)
    return tmp_path / "local"


def damage(server: ObjectServer, key: str) -> None:
    """Flip a bit in the middle of an object."""
    content = bytearray(server.objects()[PREFIX + key])
    content[len(content) // 2] ^= 1
    server.s3.put_object(Bucket="photos", Key=PREFIX + key, Body=bytes(content))


def delete(server: ObjectServer, key: str) -> None:
    server.s3.delete_object(Bucket="photos", Key=PREFIX + key)


def index_again(tmp_path: Path, scratch: str = "scratch") -> int:
    """Run over the photos again; returns how many were extracted anew."""
    with collection_copy(Bucket(URL), tmp_path / scratch) as copy:
        report = run(tmp_path / "photos", copy.folder)
    return report.new + report.changed


def test_a_damaged_shard_is_repaired_as_that_of_a_folder(
    server: ObjectServer, local: Path, tmp_path: Path
) -> None:
    """It is named, deleted, and its photos are extracted again."""
    index_again(tmp_path)  # a working copy that is there hides nothing
    shard = read_manifest(local).shards[1]
    damage(server, object_key(shard))
    [problem] = verify_remote(URL)
    key = object_key(shard)
    assert problem == f"{URL}/{key}: its content is not what was written; {MEND}"
    delete(server, key)
    assert index_again(tmp_path) == shard.rows
    assert [*verify_remote(URL)] == []
    with IndexReader.open(cached_index(URL)) as reader:
        batch = reader.read_maps(reader.ids)
    assert (len(batch.ids), batch.damaged) == (10, [])


def test_a_row_that_is_left_out_is_named_by_its_address(server: ObjectServer, local: Path) -> None:
    shard = read_manifest(local).shards[0]
    assert shard.layout is not None
    content = bytearray(server.objects()[PREFIX + object_key(shard)])
    content[shard.layout.maps + 5] ^= 1
    server.s3.put_object(Bucket="photos", Key=PREFIX + object_key(shard), Body=bytes(content))
    with IndexReader.open(cached_index(URL)) as reader:
        [line] = reader.read_maps(reader.ids).damaged
    assert line.startswith(f"{URL}: shards/")


@pytest.mark.parametrize("kind", ["codec", "photos", "recall", "words"])
def test_every_kind_of_file(server: ObjectServer, local: Path, tmp_path: Path, kind: str) -> None:
    """A search and a run name the damaged object; deleted, it is made again."""
    expected = rows(local)
    manifest: Manifest = read_manifest(local)
    assert manifest.recall is not None
    assert manifest.words is not None
    key = object_key(
        {
            "codec": manifest.codecs[0],
            "photos": manifest.photos[0],
            "recall": manifest.recall.file,
            "words": manifest.words.file,
        }[kind]
    )
    damage(server, key)
    said = f"{URL}/{key}: its content is not what was written; {MEND}"
    assert [*verify_remote(URL)] == [said]
    with pytest.raises(IndexDamagedError) as caught:
        cached_index(URL)
    assert str(caught.value) == said
    with pytest.raises(IndexDamagedError) as caught:
        index_again(tmp_path)
    assert str(caught.value) == said
    delete(server, key)
    with pytest.raises(IndexDamagedError, match="is missing; run `waldo index` again over"):
        cached_index(URL)
    index_again(tmp_path)
    assert [*verify_remote(URL)] == []
    export_index(URL, str(tmp_path / "back"))
    found = rows(tmp_path / "back")
    assert {path: row[1:] for path, row in found.items()} == {
        path: row[1:] for path, row in expected.items()
    }


def test_an_outage_loses_no_problem_that_was_found(
    server: ObjectServer, local: Path, waldo: CommandLine
) -> None:
    files = read_manifest(local).files()
    first, last = object_key(files[0]), object_key(files[-1])
    damage(server, first)
    server.fault = lambda method, path: (403, "ExpiredToken") if last in path else None
    checked = waldo("verify", "--index", URL)
    assert checked.code == 2
    assert checked.out == f"{URL}/{first}: its content is not what was written; {MEND}\n"
    assert checked.err.startswith(f"error: {URL}/{last}: the credentials have expired")
    assert checked.err.count("\n") == 1
    found = json.loads(waldo("verify", "--index", URL, "--json").out)
    assert (len(found["problems"]), found["complete"]) == (1, False)
    server.fault = no_fault
    found = json.loads(waldo("verify", "--index", URL, "--json").out)
    assert (len(found["problems"]), found["complete"]) == (1, True)
    server.fault = lambda method, path: (403, "ExpiredToken")
    with pytest.raises(BucketError, match="have expired"):
        [*verify_remote(URL)]


def test_progress_is_told_in_bytes(server: ObjectServer, local: Path) -> None:
    steps: list[tuple[int, int]] = []
    assert [*verify_remote(URL, lambda *step: steps.append(step))] == []
    total = sum(file.bytes for file in read_manifest(local).files())
    assert steps == sorted(steps)
    assert steps[-1] == (total, total)


def test_a_damaged_manifest_is_named_by_its_address(server: ObjectServer, local: Path) -> None:
    server.s3.put_object(Bucket="photos", Key=PREFIX + MANIFEST_NAME, Body=b'{"format": ')
    with pytest.raises(IndexDamagedError, match=f"^{URL}/{MANIFEST_NAME} cannot be read") as caught:
        [*verify_remote(URL)]
    assert f"delete {URL} and index the photos again" in str(caught.value)
