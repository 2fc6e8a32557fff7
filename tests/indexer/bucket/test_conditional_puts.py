"""An object is created or replaced only where nobody else did so, also where answers are lost."""

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from indexer.bucket.object_store import Bucket, BucketError, ConflictError, ObjectVersion
from tests.helpers.servers.object_server import Fault, ObjectServer, no_fault

KEY = "one/index/manifest.json"


@pytest.fixture
def bucket(server: ObjectServer) -> Bucket:
    return Bucket("s3://photos/one/index")


def put_object(server: ObjectServer, content: bytes) -> None:
    """As somebody else."""
    server.s3.put_object(Bucket="photos", Key=KEY, Body=content)


def first_puts(*faults: str | tuple[int, str]) -> Fault:
    """What happens to the first requests that write."""
    left = iter(faults)
    return lambda method, path: next(left, None) if method == "PUT" else None


def test_each_version_follows_the_one_before(server: ObjectServer, bucket: Bucket) -> None:
    assert bucket.read("manifest.json") is None
    version = bucket.create("manifest.json", b"1")
    for content in (b"2", b"3"):
        version = bucket.replace("manifest.json", content, version)
        found = bucket.read("manifest.json")
        assert found is not None
        assert (found.content, found.version) == (content, version)
    assert server.objects() == {KEY: b"3"}


@pytest.mark.parametrize(
    ("faults", "methods"),
    [
        (["lost"], ["PUT", "GET"]),
        ([(503, "SlowDown"), (500, "InternalError")], ["PUT", "GET", "PUT", "GET", "PUT"]),
        ([(409, "ConditionalRequestConflict")], ["PUT", "GET", "PUT"]),
        ([(412, "PreconditionFailed"), "lost"], ["PUT", "GET", "PUT", "GET"]),
    ],
)
def test_failures_are_read_back(
    server: ObjectServer,
    bucket: Bucket,
    faults: list[str | tuple[int, str]],
    methods: list[str],
) -> None:
    version = bucket.create("manifest.json", b"before")
    server.fault = first_puts(*faults)
    server.requests.clear()
    after = bucket.replace("manifest.json", b"after", version)
    assert [method for method, _ in server.requests] == methods
    assert server.objects() == {KEY: b"after"}
    server.fault = no_fault
    bucket.replace("manifest.json", b"last", after)  # and its version is known


@pytest.mark.parametrize("fault", [[], ["lost"], [(503, "SlowDown")]])
def test_what_another_one_wrote_stays(
    server: ObjectServer, bucket: Bucket, fault: list[str | tuple[int, str]]
) -> None:
    version = bucket.create("manifest.json", b"before")
    put_object(server, b"theirs")
    server.fault = first_puts(*fault)
    with pytest.raises(ConflictError, match="first"):
        bucket.replace("manifest.json", b"mine", version)
    with pytest.raises(ConflictError, match="first"):
        bucket.create("manifest.json", b"mine")
    assert server.objects() == {KEY: b"theirs"}


def test_what_was_deleted_is_not_replaced(server: ObjectServer, bucket: Bucket) -> None:
    version = bucket.create("manifest.json", b"before")
    bucket.delete("manifest.json")
    bucket.delete("manifest.json")  # is not there, which is fine
    with pytest.raises(ConflictError, match="first"):
        bucket.replace("manifest.json", b"mine", version)
    assert server.objects() == {}


def test_an_outage_ends_as_one(server: ObjectServer, bucket: Bucket) -> None:
    server.fault = lambda method, path: (503, "SlowDown") if method == "PUT" else None
    with pytest.raises(BucketError, match="SlowDown"):
        bucket.create("manifest.json", b"mine")
    assert server.objects() == {}


def test_a_version_that_never_was(server: ObjectServer, bucket: Bucket) -> None:
    put_object(server, b"theirs")
    with pytest.raises(ConflictError):
        bucket.replace("manifest.json", b"mine", ObjectVersion('"0"', None))
