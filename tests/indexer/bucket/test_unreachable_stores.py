"""A store that cannot be reached, or not like this: one line each, exit code 2, and no secrets."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="obstore is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

from indexer.bucket import object_store
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.object_server import ObjectServer
from tests.helpers.stores import make_photos, run

URL = "s3://photos/one/index"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as server:
        yield server


@pytest.fixture
def commands(tmp_path: Path) -> list[tuple[object, ...]]:
    """Readers, writers, and those that ask for photos or copy an index."""
    photos, index = tmp_path / "photos", tmp_path / "index"
    make_photos(photos, 1)
    run(photos, index)
    return [
        ("info", "--index", URL),
        ("named", "--index", URL),
        ("query", photos / "photo-000.png", "--box", "1,1,20,20", "--index", URL),
        ("index", photos, "--index", URL),
        ("index", "s3://photos/holiday", "--index", tmp_path / "new"),
        ("forget", "Rex", "--index", URL),
        ("export", "--index", index, "--to", URL),
        ("export", "--index", URL, "--to", tmp_path / "back"),
    ]


def lines_of(waldo: CommandLine, commands: list[tuple[object, ...]]) -> Iterator[str]:
    for command in commands:
        line = waldo.refusal(*command)
        assert line.startswith("error: s3://photos/")
        assert "SECRET" not in line
        yield line


def test_nobody_is_there(
    server: ObjectServer,
    listening: socket.socket,
    commands: list[tuple[object, ...]],
    waldo: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A closed port, a name that nobody has, and a server that never answers."""
    port = listening.getsockname()[1]
    monkeypatch.setattr(object_store, "RETRIES", 1)
    monkeypatch.setenv("AWS_TIMEOUT", "200ms")
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        closed = other.getsockname()[1]
    for host in (f"127.0.0.1:{closed}", "no-such-host.invalid", f"127.0.0.1:{port}"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        for line in lines_of(waldo, commands):
            assert line.endswith(
                "no answer; check the network and the endpoint, and run the same command again"
            )


@pytest.mark.parametrize(
    ("status", "code", "mend"),
    [
        (301, "PermanentRedirect", "set AWS_REGION to its region"),
        (400, "IllegalLocationConstraintException", "set AWS_REGION to its region"),
        # As S3 answers: the code is followed by the region that it expects.
        (
            *(400, "AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region><Code>"),
            "set AWS_REGION to eu-west-1",
        ),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong; set it"),
    ],
)
def test_the_wrong_region_and_the_wrong_time(
    server: ObjectServer,
    commands: list[tuple[object, ...]],
    waldo: CommandLine,
    status: int,
    code: str,
    mend: str,
) -> None:
    server.fault = lambda method, path: (status, code)
    for line in lines_of(waldo, commands):
        assert line.endswith(mend)
    assert server.objects() == {}
