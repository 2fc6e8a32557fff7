"""What is refused before a cluster of Ray is asked for anything."""

import socket
import sys
from pathlib import Path

import pytest

from tests.helpers.command_line import CommandLine
from tests.helpers.stores import make_photos


@pytest.fixture
def waldo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(capsys, monkeypatch)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", 2)
    return tmp_path / "photos"


def test_without_ray_it_says_what_to_install(
    photos: Path, tmp_path: Path, waldo: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    line = waldo.refusal("index", photos, "--index", tmp_path / "fleet", "--ray", "auto")
    assert "pip install 'waldo-search[ray]'" in line
    assert not (tmp_path / "fleet").exists()


def test_an_address_where_nobody_answers_is_refused(
    photos: Path, tmp_path: Path, waldo: CommandLine
) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    with socket.socket() as taken:  # a port that nobody listens at
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
            line = waldo.refusal("index", photos, "--index", tmp_path / "fleet", "--ray", address)
            assert f"{address}: nobody answers there" in line
    for address in ("head", "ray://head:10001", ":6379", "head:port"):
        line = waldo.refusal("index", photos, "--index", tmp_path / "fleet", "--ray", address)
        assert "must be auto, or HOST:PORT" in line
    assert not (tmp_path / "fleet").exists()
