"""Objects with a name over HTTP."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

import search.albums.filling as filling
from indexer.reader import IndexReader
from indexer.store.locks import writer_lock
from tests.conftest import DEMO
from tests.helpers.servers.server import Client, running_server

BOX = [40, 40, 200, 200]


@pytest.fixture
def index(sample_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_index, tmp_path / "index"))


@pytest.fixture
def client(index: Path) -> Iterator[Client]:
    with running_server(index) as running:
        yield running


def test_an_object_is_named_shown_asked_for_and_forgotten(client: Client) -> None:
    assert client.get("/api/v1/names").json == {"names": []}
    asked = {"object": {"photo": {"id": 3}, "box": BOX}, "not": [{"photo": {"id": 5}, "box": BOX}]}
    kept = client.post("/api/v1/names", {"name": "My cat", **asked})
    assert (kept.status, kept.json) == (201, {"name": "My cat", "n_photos": 1, "n_shown": 1})
    more = {"name": "My cat", "object": {"photo": {"id": 7}, "box": BOX}}
    assert client.post("/api/v1/names", more).json["n_photos"] == 2
    [listed] = client.get("/api/v1/names").json["names"]
    assert (listed["name"], listed["n_photos"]) == ("My cat", 2)

    address = f"/api/v1/names/{quote('My cat')}"
    cover = Image.open(io.BytesIO(client.get(f"{address}/picture?size=160").content))
    assert cover.width == cover.height <= 160

    by_name = client.post("/api/v1/searches", {"object": {"photo": {"name": "My cat"}}})
    assert by_name.status == 200, by_name.content
    asked["also"] = [more["object"]]
    by_photos = client.post("/api/v1/searches", asked)
    ids = [[match["id"] for match in reply.json["matches"]] for reply in (by_name, by_photos)]
    assert ids[0] == ids[1]
    assert "waldo query '@My cat' --top 40" in by_name.json["command"]
    assert len(by_name.json["references"]) == 2

    gone = client.ask("DELETE", address, X_Waldo_Token=client.token)
    assert gone.json == {"name": "My cat"}
    assert client.get("/api/v1/names").json == {"names": []}


def test_an_album_is_told_and_put_right(client: Client) -> None:
    kept = {"name": "Ann", "object": {"photo": {"id": 3}, "box": BOX}}
    shown = client.post("/api/v1/names", kept).json["n_shown"]
    album = client.get("/api/v1/names/Ann/album").json
    assert sum(photo["shown"] for photo in album["photos"]) == shown
    assert (album["photos"][0]["id"], album["photos"][0]["said"]) == (3, True)
    assert {"path", "width", "height", "box", "probability"} <= album["photos"][0].keys()

    say = {"yes": [{"photo": {"id": 30}}, {"photo": {"id": 31}, "box": BOX}], "no": []}
    told = client.post("/api/v1/names/Ann/verdicts", say)
    assert told.status == 200, told.content
    said = {photo["id"]: photo["said"] for photo in told.json["photos"]}
    assert (said[30], said[31]) == (True, True)
    assert client.get("/api/v1/names/Ann/album").json == told.json
    [named] = [one for one in client.get("/api/v1/names").json["names"] if one["name"] == "Ann"]
    assert (named["n_photos"], named["n_shown"] >= 3) == (1, True)
    for body, status, line in (
        ({}, 400, "yes, no: say something of at least one photo"),
        ({"no": [{"photo": {"id": 3}}]}, 400, None),
        ({"yes": [{"photo": {"name": "Ann"}}]}, 400, 'yes[0].photo: must be {"id": NUMBER}'),
        ({"yes": [{"photo": {"id": 9999}}]}, 400, None),
        ({"yes": [{"photo": {"id": 4}}], "no": [{"photo": {"id": 4}}]}, 400, None),
        ({"yes": [{"photo": {"id": 4}, "box": [0, 0, 9999, 9]}]}, 422, None),
        ({"maybe": []}, 400, "the request: 'maybe' is not one of its fields"),
    ):
        reply = client.post("/api/v1/names/Ann/verdicts", body)
        assert (reply.status, line is None or reply.error.startswith(line)) == (status, True), body
    assert client.get("/api/v1/names/Ann/album").json == told.json
    assert client.get("/api/v1/names/Bob/album").status == 404
    assert client.ask("POST", "/api/v1/names/Ann/verdicts").status == 403
    client.ask("DELETE", "/api/v1/names/Ann", X_Waldo_Token=client.token)


def test_what_is_said_holds_though_another_run_writes(
    client: Client, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"name": "Ann", "object": {"photo": {"id": 3}, "box": BOX}}
    assert client.post("/api/v1/names", kept).status == 201
    fill = filling.fill_albums

    def fill_beside_another(index_dir: Path, device: str = "cpu") -> int:
        with writer_lock(index_dir):
            return fill(index_dir, device)

    monkeypatch.setattr(filling, "fill_albums", fill_beside_another)
    told = client.post("/api/v1/names/Ann/verdicts", {"yes": [{"photo": {"id": 30}}]})
    assert told.status == 200, told.content
    assert [(photo["id"], photo["shown"]) for photo in told.json["photos"]] == [
        (3, True),
        (30, True),
    ]
    assert told.json["waiting"] > 0
    more = {"name": "Bob", "object": {"photo": {"id": 5}, "box": BOX}}
    assert client.post("/api/v1/names", more).json["n_shown"] == 1


def test_what_is_wrong_with_a_name_is_one_line(client: Client) -> None:
    shown = {"photo": {"id": 3}, "box": BOX}
    for body, status, line in (
        ({"object": shown}, 400, "name: must be text"),
        ({"name": "a/b", "object": shown}, 400, "name 'a/b': must be"),
        ({"name": "Rex", "object": {"photo": {"name": "Max"}}}, 404, "@Max: "),
        ({"name": "Rex", "object": {**shown, "photo": {"name": "Max"}}}, 422, "@Max: "),
        ({"name": "Rex", "object": {"photo": {"id": 3}}}, 422, None),
        ({"name": "Rex", "object": shown, "top": 3}, 400, "the request: 'top' is not one of"),
    ):
        reply = client.post("/api/v1/names", body)
        assert (reply.status, line is None or reply.error.startswith(line)) == (status, True), body
    assert client.get("/api/v1/names/Rex/picture").status == 404
    assert client.ask("DELETE", "/api/v1/names/Rex").status == 403
    assert client.ask("DELETE", "/api/v1/names/Rex", X_Waldo_Token=client.token).status == 404


def test_an_index_that_is_written_or_gone_is_said_to_be(client: Client, index: Path) -> None:
    asked = {"name": "Rex", "object": {"photo": {"id": 3}, "box": BOX}}
    with writer_lock(index):
        busy = client.post("/api/v1/names", asked)
    assert (busy.status, busy.headers["retry-after"]) == (503, "1")
    assert "is writing this index" in busy.error
    assert client.post("/api/v1/names", asked).status == 201
    index.rename(index.with_name("moved"))
    for reply in (client.get("/api/v1/photos"), client.post("/api/v1/names", asked)):
        assert (reply.status, "no index here" in reply.error) == (410, True)


def test_an_upload_is_kept_without_its_temporary_file(client: Client, tmp_path: Path) -> None:
    photo = (DEMO / "query" / "cat.jpg").read_bytes()
    key = client.post("/api/v1/uploads", photo).json["upload"]
    asked = {"name": "Tom", "object": {"photo": {"upload": key}, "box": [172, 31, 333, 164]}}
    assert client.post("/api/v1/names", asked).status == 201
    with IndexReader.open(tmp_path / "index") as reader:
        [view] = reader.named("Tom").views
    assert str(view.photo) == "an uploaded photo"
    assert client.post("/api/v1/searches", {"object": {"photo": {"name": "Tom"}}}).status == 200
