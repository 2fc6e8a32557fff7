"""Who may ask the server and for what: foreign names and pages, paths, links, secrets."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.ingest.build import index_photos
from tests.conftest import DEMO
from tests.helpers.servers.server import Client, running_server

LOCAL_NAMES = ("localhost", "localhost:99", "127.0.0.1:80", "[::1]:5")
FOREIGN_NAMES = (
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example:80",
    "",
    "[",
    "@",
)
WANTED_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def collection(
    small_tiny: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Client]]:
    """A server of four photos that tests may change. Its photos' numbers follow their names."""
    photos = tmp_path_factory.mktemp("collection")
    for number, path in enumerate(sorted((DEMO / "photos").iterdir())[:4]):
        shutil.copy(path, photos / f"{number}.jpg")
    index = tmp_path_factory.mktemp("served") / "index"
    index_photos([photos], index, small_tiny, batch_size=4)  # type: ignore[arg-type]
    with running_server(index) as client:
        yield photos, client


@pytest.mark.parametrize("name", LOCAL_NAMES)
def test_this_machines_names_are_answered(server: Client, name: str) -> None:
    assert server.get("/api/v1/collection", Host=name).status == 200


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_another_name_for_this_machine_is_refused(server: Client, name: str) -> None:
    for path in ("/", "/api/v1/collection", "/api/v1/photos/3/picture", "/static/waldo.js"):
        reply = server.get(path, Host=name)
        assert reply.status in (400, 421)
        assert b"token" not in reply.content


@pytest.mark.parametrize("path", ["/api/v1/searches", "/api/v1/preview", "/api/v1/uploads"])
def test_only_the_page_may_send(server: Client, path: str) -> None:
    body = b"{}"
    origin = f"http://127.0.0.1:{server.port}"
    for headers in (
        {},
        {"X_Waldo_Token": "guess"},
        {"X_Waldo_Token": server.token, "Origin": "http://evil.example"},
        {"X_Waldo_Token": server.token, "Origin": "null"},
        {"X_Waldo_Token": server.token, "Origin": "http://["},
        {"X_Waldo_Token": server.token, "Origin": f"http://127.0.0.1:{server.port + 1}"},
    ):
        assert server.ask("POST", path, body, **headers).status == 403
    assert server.post(path, body, Origin=origin).status != 403


@pytest.mark.parametrize(
    "path",
    [
        "/static/../application.py",
        "/static/..%2fapplication.py",
        "/static/%2e%2e/application.py",
        "/static//etc/passwd",
        "/api/v1/photos/..%2f..%2fetc%2fpasswd/picture",
        "/api/v1/photos/%2fetc%2fpasswd",
        "/api/v1/uploads/..%2f..%2fetc%2fpasswd/picture",
        "/api/v1/uploads/../../../etc/passwd/picture",
        "/api/v1/photos/-3",
        "/api/v1/photos/3e0",
        "/api/v1/photos/99999999999999999999999",
        f"/api/v1/photos/{'9' * 5000}",
        f"/api/v1/photos/{'9' * 5000}/picture",
        f"/api/v1/searches/0123/matches/{'9' * 5000}/mask",
    ],
)
def test_a_path_is_no_name_of_a_photo(server: Client, path: str) -> None:
    reply = server.get(path)
    assert reply.status == 404
    assert b"root:" not in reply.content
    assert b"import" not in reply.content


@pytest.mark.parametrize("path", ["/", "/api/v1/photos/3/picture", "/api/v1/nothing", "/nothing"])
def test_every_reply_is_fenced_in(server: Client, path: str) -> None:
    for headers in (server.get(path).headers, server.get(path, Host="evil.example").headers):
        assert WANTED_HEADERS.items() <= headers.items()
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_a_link_out_of_the_collection_is_not_followed(
    collection: tuple[Path, Client], tmp_path: Path
) -> None:
    photos, client = collection
    secret = tmp_path / "secret.jpg"
    shutil.copy(DEMO / "query" / "cat.jpg", secret)
    (photos / "1.jpg").unlink()
    (photos / "1.jpg").symlink_to(secret)
    reply = client.get("/api/v1/photos/1/picture")
    assert (reply.status, reply.error) == (
        409,
        "1.jpg was changed since it was indexed; run `waldo index` again",
    )
    asked = {"object": {"photo": {"id": 1}, "box": [0, 0, 100, 100]}}
    assert client.post("/api/v1/searches", asked).status == 409


def test_a_photo_that_is_gone_or_changed_is_said_to_be(collection: tuple[Path, Client]) -> None:
    photos, client = collection
    (photos / "2.jpg").unlink()
    shutil.copy(DEMO / "query" / "cat.jpg", photos / "3.jpg")
    assert client.get("/api/v1/photos/2").json["state"] == "gone"
    assert client.get("/api/v1/photos/3").json["state"] == "changed"
    gone = client.get("/api/v1/photos/2/picture")
    assert (gone.status, gone.error) == (404, "2.jpg is gone since it was indexed")
    # Both still are matches, by what was indexed.
    asked = {"object": {"photo": {"id": 0}, "box": [0, 0, 200, 200]}}
    answer = client.post("/api/v1/searches", asked).json
    assert sorted(match["id"] for match in answer["matches"]) == [0, 1, 2, 3]
    [changed] = [match for match in answer["matches"] if match["id"] == 3]
    assert changed["changed"]
    layer = f"/api/v1/searches/{answer['search']}/matches/{changed['rank']}/mask"
    assert client.get(layer).error.endswith("was changed since it was indexed; index it again")


def test_beyond_this_machine_the_secret_of_the_link_is_needed(sample_index: Path) -> None:
    with running_server(sample_index, secret="hush") as client:
        for headers in (
            {},
            {"Cookie": "waldo=guess"},
            {"Cookie": "waldo=; ="},
            {"Authorization": "Bearer guess"},
            {"Authorization": "hush"},
        ):
            refused = client.get("/api/v1/collection", **headers)
            assert refused.status == 401
            assert "link" in refused.error
        assert client.get("/?token=guess").status == 401
        assert client.post("/api/v1/preview", {}).status == 401

        let_in = client.get("/?token=hush")
        assert (let_in.status, let_in.headers["location"]) == (303, "/")
        cookie = let_in.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        known = cookie.partition(";")[0]
        assert client.get("/", Cookie=known).status == 200
        # A name of its own is as good as the address here.
        told = client.get("/api/v1/collection", Cookie=known, Host="photos.home")
        assert told.json["n_photos"] == 81
        assert client.get("/api/v1/collection", Authorization="Bearer hush").status == 200
        assert client.post("/api/v1/preview", {}, Cookie=known).status == 400
