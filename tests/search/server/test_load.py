"""Many, large, slow, broken and interrupted requests: each is answered, and the server goes on."""

import asyncio
import gc
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from search.commands.serve_command import _listen, _name_in_link
from search.server import uploads
from search.server.worker import SearchWorker
from tests.conftest import DEMO
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.server import Client, Reply, running_server

BOX = [10, 10, 120, 120]


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size, and no more than that."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    chunk = b"IHDR" + header
    data = (99).to_bytes(4, "big") + b"IDAT"
    sized = len(header).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + sized + data


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b"", 400, "no photo was sent"),
        (b"a shopping list", 415, "this file is not a picture that Waldo reads"),
        (b"%PDF-1.4 ...", 415, "this file is not a picture that Waldo reads"),
        ((DEMO / "query" / "cat.jpg").read_bytes()[:900], 422, "the photo: broken picture"),
        (png_of(20_000, 10_000), 413, "the photo has more than 100 megapixels; scale it down"),
        (b"x" * (uploads.MOST_BYTES + 1), 413, "the photo has more than 64 MiB; scale it down"),
    ],
)
def test_what_is_no_photo_is_told_in_a_line(
    server: Client, body: bytes, status: int, line: str
) -> None:
    reply = server.post("/api/v1/uploads", body)
    assert reply.status == status
    assert reply.error.startswith(line)
    assert "/tmp" not in reply.error


def test_uploads_are_upright_and_forget_their_metadata(server: Client) -> None:
    photo = Image.new("RGB", (60, 40), "red")
    exif = photo.getexif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010E] = "where I live"
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=exif)
    sent = server.post("/api/v1/uploads", buffer.getvalue()).json
    assert (sent["width"], sent["height"]) == (40, 60)
    shown = server.get(f"/api/v1/uploads/{sent['upload']}/picture").content
    assert Image.open(io.BytesIO(shown)).size == (40, 60)
    assert b"where I live" not in shown


def test_the_oldest_uploads_are_forgotten(sample_index: Path, monkeypatch: object) -> None:
    with pytest.MonkeyPatch.context() as patch, running_server(sample_index) as client:
        patch.setattr(uploads, "_KEPT", 2)
        keys = []
        for path in sorted((DEMO / "photos").iterdir())[:3]:
            keys.append(client.post("/api/v1/uploads", path.read_bytes()).json["upload"])
        statuses = [client.get(f"/api/v1/uploads/{key}/picture").status for key in keys]
    assert statuses == [404, 200, 200]


def test_two_hundred_requests_at_once_are_all_answered(server: Client) -> None:
    def ask(number: int) -> Reply:
        if number % 2:
            return server.get(f"/api/v1/photos/{number % 81}/picture?size=160")
        body = {"photo": {"id": number % 81}, "box": BOX}
        return server.post("/api/v1/preview", body)

    with ThreadPoolExecutor(200) as clients:
        replies = list(clients.map(ask, range(200)))
    counts = Counter((number % 2, reply.status) for number, reply in enumerate(replies))
    assert counts[1, 200] == 100
    assert counts[0, 200] >= 16
    assert counts[0, 200] + counts[0, 503] == 100
    for reply in replies:
        if reply.status == 503:
            assert reply.headers["retry-after"] == "1"
            assert reply.error == "too many searches wait; try again in a moment"
    assert ask(0).status == 200


def test_a_slow_client_keeps_nobody_waiting(server: Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        head = f"POST /api/v1/uploads HTTP/1.1\r\nHost: localhost\r\nX-Waldo-Token: {server.token}"
        slow.sendall(f"{head}\r\nContent-Length: 1000\r\n\r\n".encode())
        slow.sendall(b"a few bytes")
        assert server.get("/api/v1/photos/3/picture").status == 200
        assert server.post("/api/v1/preview", {"photo": {"id": 3}, "box": BOX}).status == 200


def test_an_upload_that_is_too_slow_or_stops_leaves_nothing(
    sample_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(uploads, "_PATIENCE", 0.3)
    with running_server(sample_index) as client:
        [folder] = tmp_path.iterdir()
        head = f"POST /api/v1/uploads HTTP/1.1\r\nHost: localhost\r\nX-Waldo-Token: {client.token}"
        request = f"{head}\r\nContent-Length: 1000\r\n\r\na few bytes".encode()
        with socket.create_connection(("127.0.0.1", client.port)) as slow:
            slow.sendall(request)
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert list(folder.iterdir()) == []
        monkeypatch.setattr(uploads, "_PATIENCE", 60.0)
        with socket.create_connection(("127.0.0.1", client.port)) as gone:
            gone.sendall(request)
            wait_until(lambda: len(list(folder.iterdir())) == 1)
        wait_until(lambda: list(folder.iterdir()) == [])
        assert (
            client.post("/api/v1/uploads", (DEMO / "query" / "cat.jpg").read_bytes()).status == 201
        )
    assert list(tmp_path.iterdir()) == []


def wait_until(happens: Callable[[], bool]) -> None:
    for _ in range(500):
        if happens():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_photos_that_are_indexed_meanwhile_are_found(
    small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    names = sorted((DEMO / "photos").iterdir())
    shutil.copy(names[0], photos / "0.jpg")
    index_photos([photos], index, small_tiny, batch_size=4)
    asked = {"object": {"photo": {"id": 0}, "box": BOX}}
    with running_server(index) as client:
        assert len(client.post("/api/v1/searches", asked).json["matches"]) == 1
        shutil.copy(names[1], photos / "1.jpg")
        index_photos([photos], index, small_tiny, batch_size=4)
        assert client.get("/api/v1/collection").json["n_photos"] == 2
        assert len(client.get("/api/v1/photos").json["photos"]) == 2
        assert len(client.post("/api/v1/searches", asked).json["matches"]) == 2


def test_a_reader_that_is_replaced_serves_those_who_have_it(
    small_tiny: FeatureExtractor, tmp_path: Path
) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    names = sorted((DEMO / "photos").iterdir())
    shutil.copy(names[0], photos / "0.jpg")
    index_photos([photos], index, small_tiny, batch_size=4)
    worker = SearchWorker(index, "cpu")
    before = worker.reader()
    shutil.copy(names[1], photos / "1.jpg")
    index_photos([photos], index, small_tiny, batch_size=4)
    assert asyncio.run(worker.run(lambda searched: searched.reader.n_photos)) == 2
    assert before.read_maps([0]).damaged == []
    assert before.n_photos == 1
    forgotten = weakref.ref(before)
    del before
    gc.collect()
    assert forgotten() is None
    worker.close()


def test_two_uploads_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    check, counting, running, most = uploads._check, threading.Lock(), 0, 0

    def count(path: Path, content_hash: str) -> uploads.Upload:
        nonlocal running, most
        with counting:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        upload = check(path, content_hash)
        with counting:
            running -= 1
        return upload

    async def photo(number: int) -> AsyncIterator[bytes]:
        yield sent[number]

    async def receive_all() -> list[uploads.Upload]:
        return list(await asyncio.gather(*(kept.receive(photo(number)) for number in range(6))))

    sent = [path.read_bytes() for path in sorted((DEMO / "photos").iterdir())[:6]]
    monkeypatch.setattr(uploads, "_check", count)
    kept = uploads.Uploads()
    assert len({upload.key for upload in asyncio.run(receive_all())}) == 6
    assert most == 2
    kept.close()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_the_terminal_leaves_no_files(
    sample_index: Path, tmp_path: Path, end: signal.Signals
) -> None:
    command = [sys.executable, "-m", "search.commands.app", "serve", "--index", str(sample_index)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as run:
        assert run.stderr is not None
        port = int(run.stderr.readline().rstrip().rstrip("/").rpartition(":")[2])
        assert Client(port).get("/api/v1/collection").status == 200
        assert len(list(tmp_path.glob("waldo-*"))) == 1
        run.send_signal(end)
        _, err = run.communicate(timeout=30)
    assert "Traceback" not in err
    assert run.returncode == -signal.SIGTERM
    assert list(tmp_path.glob("waldo-*")) == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--token", "a b"), "error: --token: must be of letters"),
        (("--token", ""), "error: --token: must be of letters"),
        (("--token", "a\r\nb"), "error: --token: must be of letters"),
        (("--host", ""), "error: --host: must be an address"),
    ],
)
def test_what_cannot_be_in_a_link_is_refused(
    waldo: CommandLine, sample_index: Path, options: tuple[str, str], line: str
) -> None:
    assert waldo.refusal("serve", "--index", sample_index, *options).startswith(line)


@pytest.mark.parametrize("host", ["0.0.0.0", "0"])
def test_the_link_to_every_address_has_this_machines_name(host: str) -> None:
    with _listen(host, 0) as listening:
        assert _name_in_link(host, listening) == socket.gethostname()
    with _listen("127.0.0.1", 0) as listening:
        assert _name_in_link("127.0.0.1", listening) == "127.0.0.1"


def test_the_command_prints_its_address_and_ends_by_ctrl_c(sample_index: Path) -> None:
    command = [sys.executable, "-m", "search.commands.app", "serve", "--index", str(sample_index)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        line = run.stderr.readline()
        assert line.startswith("the page: http://127.0.0.1:")
        port = int(line.rstrip().rstrip("/").rpartition(":")[2])
        assert Client(port).get("/api/v1/collection").json["n_photos"] == 81
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert out == ""
    assert "Traceback" not in err
    assert run.returncode == 130


def test_areas_are_edited_in_the_thinnest_photo(server: Client) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((3000, 2), 80).save(buffer, "PNG")
    key = server.post("/api/v1/uploads", buffer.getvalue()).json["upload"]
    asked = {"photo": {"upload": key}, "box": [0, 0, 900, 2], "add": [[1500, 0, 3000, 2]]}
    told = server.post("/api/v1/preview", asked)
    assert told.status == 200, told.content
    assert told.json["box"][2] == 3000


def test_folders_count_what_lies_beneath_them(small_tiny: FeatureExtractor, tmp_path: Path) -> None:
    photos, names = tmp_path / "photos", sorted((DEMO / "photos").iterdir())
    for place, name in zip(("1.jpg", "a/2.jpg", "a/b/c/3.jpg"), names, strict=False):
        (photos / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, photos / place)
    index_photos([photos], tmp_path / "index", small_tiny, batch_size=4)
    with running_server(tmp_path / "index") as client:
        folders = client.get("/api/v1/collection").json["folders"]
    assert {each["path"]: each["n_photos"] for each in folders} == {
        str(photos): 3,
        str(photos / "a"): 2,
        str(photos / "a/b/c"): 1,
    }
