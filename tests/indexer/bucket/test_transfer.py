"""An index goes into a bucket and comes back, whatever the network does in between."""

import json
import random
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from features.errors import WaldoError
from indexer.bucket.object_store import Bucket, BucketError, ConflictError
from indexer.bucket.transfer import export_index, object_key
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.fleet.fleet_build import index_collection
from indexer.reader import IndexReader
from indexer.store.failures import FAILURES_NAME
from indexer.store.manifest import MANIFEST_NAME, read_manifest
from indexer.upkeep.check import verify
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer, no_fault
from tests.helpers.stores import PixelExtractor, make_photos

URL = "s3://photos/one/index"
PREFIX = "one/index/"


@pytest.fixture
def server(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    return server


def content_of(folder: Path) -> dict[str, bytes]:
    names = [MANIFEST_NAME, *(file.name for file in read_manifest(folder).files())]
    return {name: (folder / name).read_bytes() for name in names}


def test_there_and_back(server: ObjectServer, sample_index: Path, tmp_path: Path) -> None:
    server.s3.put_object(Bucket="photos", Key="one/other", Body=b"somebody's")
    steps: list[tuple[int, int]] = []
    export_index(str(sample_index), URL, lambda *step: steps.append(step))
    manifest = read_manifest(sample_index)
    stored = server.objects()
    expected = {PREFIX + object_key(file) for file in manifest.files()}
    assert set(stored) == {*expected, PREFIX + MANIFEST_NAME, "one/other"}
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1][0] == steps[-1][1] == sum(file.bytes for file in manifest.files())
    back = tmp_path / "back"
    back.mkdir()
    export_index(URL, str(back))
    assert content_of(back) == content_of(sample_index)
    assert not list(tmp_path.glob("*.part"))
    assert verify(back) == []
    with IndexReader.open(back) as copy, IndexReader.open(sample_index) as original:
        assert list(copy.paths()) == list(original.paths())


def test_both_ways_can_be_repeated(
    server: ObjectServer, sample_index: Path, tmp_path: Path
) -> None:
    export_index(str(sample_index), URL)
    export_index(URL, str(tmp_path / "back"))
    server.requests.clear()
    export_index(str(sample_index), URL)
    export_index(URL, str(tmp_path / "back"))
    assert [method for method, _ in server.requests] == ["GET", "GET"]


def test_an_interrupted_copy_goes_on(
    server: ObjectServer, sample_index: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    files = len(read_manifest(sample_index).files())
    with pytest.raises(KeyboardInterrupt):
        export_index(str(sample_index), URL, stop)
    assert len(server.objects()) == 1  # and no manifest
    server.requests.clear()
    export_index(str(sample_index), URL)
    whole = [path for method, path in server.requests if method == "PUT"]
    assert len(whole) == files  # all but the first, and the manifest
    back = tmp_path / "back"
    with pytest.raises(KeyboardInterrupt):
        export_index(URL, str(back), stop)
    assert not back.exists()
    server.requests.clear()
    export_index(URL, str(back))
    assert len(server.requests) == files + 1  # all but the first; the manifest, and failures
    assert content_of(back) == content_of(sample_index)


@pytest.mark.parametrize("parts", [None, 2])
def test_what_failed_goes_with_it(server: ObjectServer, tmp_path: Path, parts: int | None) -> None:
    """Of a fleet, also that of each part; a copy that is cut off before it is finished later."""
    photos, original, back = (tmp_path / name for name in ("photos", "original", "back"))
    make_photos(photos, 6)
    for number in range(4):
        (photos / f"broken-{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing %d" % number)
    index_collection([photos], original, PixelExtractor(), parts=parts)
    server.fault = lambda method, path: (
        (403, "ExpiredToken") if method == "PUT" and path.endswith(FAILURES_NAME) else None
    )
    with pytest.raises(BucketError, match="have expired"):
        export_index(str(original), URL)
    server.fault = no_fault
    export_index(str(original), URL)
    export_index(URL, str(back))
    failures, found = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob(FAILURES_NAME)}
        for folder in (original, back)
    )
    assert found == failures
    assert all(failures.values())
    assert len(failures) > (0 if parts is None else 1)
    server.requests.clear()
    export_index(str(original), URL)
    assert {method for method, _ in server.requests} == {"GET"}


def test_requests_that_fail_are_sent_again(
    server: ObjectServer, sample_index: Path, tmp_path: Path
) -> None:
    chance = random.Random(1)

    def fault(method: str, path: str) -> tuple[int, str] | None:
        return (503, "SlowDown") if chance.random() < 0.2 else None

    server.fault = fault
    export_index(str(sample_index), URL)
    export_index(URL, str(tmp_path / "back"))
    assert content_of(tmp_path / "back") == content_of(sample_index)
    assert len(server.requests) > 2 * len(server.objects()) + 2


def test_a_lost_answer_is_no_conflict(server: ObjectServer) -> None:
    lost = iter([True])
    server.fault = lambda method, path: "lost" if method == "PUT" and next(lost, False) else None
    Bucket(URL).create(MANIFEST_NAME, b"mine")
    assert [method for method, _ in server.requests] == ["PUT", "GET"]
    assert server.objects() == {PREFIX + MANIFEST_NAME: b"mine"}


def test_a_refused_creation_is_tried_again(server: ObjectServer) -> None:
    refused = iter([True, True])
    server.fault = lambda method, path: (
        (503, "SlowDown") if method == "PUT" and next(refused, False) else None
    )
    Bucket(URL).create(MANIFEST_NAME, b"mine")
    assert server.objects() == {PREFIX + MANIFEST_NAME: b"mine"}


def test_a_large_file_goes_in_parts(server: ObjectServer, tmp_path: Path) -> None:
    """Also where requests are refused, and where the answer to the last one is lost."""
    content = random.Random(2).randbytes(11 << 20)
    (tmp_path / "large").write_bytes(content)
    refused, lost = iter([True, True]), iter([True])

    def fault(method: str, path: str) -> str | tuple[int, str] | None:
        if method == "PUT" and next(refused, False):
            return 503, "SlowDown"
        return "lost" if method == "POST" and "uploadId" in path and next(lost, False) else None

    server.fault = fault
    bucket = Bucket(URL)
    bucket.put("large-1", tmp_path / "large")
    assert [method for method, _ in server.requests].count("POST") == 3  # begin, end, end again
    assert server.objects() == {PREFIX + "large-1": content}
    assert b"".join(bucket.pieces("large-1")) == content


def test_of_two_writers_one_wins(server: ObjectServer) -> None:
    Bucket(URL).create(MANIFEST_NAME, b"theirs")
    with pytest.raises(ConflictError, match="first"):
        Bucket(URL).create(MANIFEST_NAME, b"mine")
    # Also where the answer to the second is lost: what is there is another's.
    server.fault = lambda method, path: "lost" if method == "PUT" else None
    with pytest.raises(ConflictError, match="first"):
        Bucket(URL).create(MANIFEST_NAME, b"mine")
    assert server.objects() == {PREFIX + MANIFEST_NAME: b"theirs"}


def test_another_index_is_not_replaced(
    server: ObjectServer, sample_index: Path, tmp_path: Path
) -> None:
    server.s3.put_object(Bucket="photos", Key=PREFIX + MANIFEST_NAME, Body=b"{}")
    with pytest.raises(WaldoError, match="another index"):
        export_index(str(sample_index), URL)
    assert server.objects() == {PREFIX + MANIFEST_NAME: b"{}"}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(WaldoError, match="something else"):
        export_index(URL, str(tmp_path / "full"))


def test_a_flipped_byte_is_named(server: ObjectServer, sample_index: Path, tmp_path: Path) -> None:
    export_index(str(sample_index), URL)
    shard = read_manifest(sample_index).shards[0]
    key = PREFIX + object_key(shard)
    content = bytearray(server.objects()[key])
    content[len(content) // 2] ^= 1
    server.s3.put_object(Bucket="photos", Key=key, Body=bytes(content))
    with pytest.raises(IndexDamagedError, match=object_key(shard)):
        export_index(URL, str(tmp_path / "back"))
    assert not (tmp_path / "back").exists()
    server.s3.delete_object(Bucket="photos", Key=key)
    with pytest.raises(IndexDamagedError, match=f"{object_key(shard)}: is missing"):
        export_index(URL, str(tmp_path / "back"))


@pytest.mark.parametrize("name", ["../outside", "/outside", "shards/../../outside"])
def test_a_manifest_cannot_name_files_elsewhere(
    server: ObjectServer, sample_index: Path, tmp_path: Path, name: str
) -> None:
    manifest = json.loads((sample_index / MANIFEST_NAME).read_text())
    manifest["codecs"][0]["name"] = name
    key = PREFIX + MANIFEST_NAME
    server.s3.put_object(Bucket="photos", Key=key, Body=json.dumps(manifest).encode())
    with pytest.raises(IndexDamagedError, match="is no file"):
        export_index(URL, str(tmp_path / "back"))


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "InvalidAccessKeyId", "access is denied .InvalidAccessKeyId.; check the credentials"),
        (403, "AccessDenied", "access is denied"),
        (400, "ExpiredToken", "have expired; renew them"),
        (503, "SlowDown", "SlowDown.; run the same command again"),
    ],
)
def test_a_refusal_is_one_line_without_secrets(
    server: ObjectServer, tmp_path: Path, waldo: CommandLine, status: int, code: str, said: str
) -> None:
    server.fault = lambda method, path: (status, code)
    line = waldo.refusal("export", "--index", URL, "--to", str(tmp_path / "back"))
    assert line.startswith(f"error: {URL}/{MANIFEST_NAME}: ")
    assert re.search(said, line)
    assert "VERY-SECRET" not in line
    assert "KEY-NAME" not in line


def test_an_address_does_not_decide_what_is_wrong(server: ObjectServer) -> None:
    server.fault = lambda method, path: (503, "SlowDown")
    with pytest.raises(BucketError, match="run the same command again"):
        Bucket("s3://photos/metadata/169.254.index").get(MANIFEST_NAME)


def test_places_that_are_not_there(
    server: ObjectServer, sample_index: Path, tmp_path: Path
) -> None:
    with pytest.raises(BucketError, match="no such bucket"):
        export_index(str(sample_index), "s3://elsewhere/index")
    with pytest.raises(BucketError, match="no such bucket"):
        export_index("s3://elsewhere/index", str(tmp_path / "back"))
    with pytest.raises(WaldoError, match="the environment lacks"):
        Bucket("az://photos/index")  # which account?
    with pytest.raises(IndexMissingError, match="no index here"):
        export_index(URL, str(tmp_path / "back"))
    with pytest.raises(IndexMissingError, match="no index here"):
        export_index(str(tmp_path), URL)
    with pytest.raises(WaldoError, match="name a place in the bucket"):
        export_index(str(sample_index), "s3://photos")
    with pytest.raises(WaldoError, match="one must be a folder"):
        export_index(str(sample_index), str(tmp_path / "copy"))


def test_without_obstore_it_says_what_to_install(
    waldo: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    line = waldo.refusal("export", "--index", URL, "--to", str(tmp_path / "back"))
    assert "pip install 'waldo-search[cloud]'" in line
