"""Recurring objects over HTTP."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from indexer.reader import IndexReader
from indexer.upkeep.remove import remove
from search.recurring.recurrence import RecurringObject, recurring_objects
from tests.helpers.servers.server import Client, running_server


@pytest.fixture
def index(linked_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(linked_index, tmp_path / "index"))


@pytest.fixture
def client(index: Path) -> Iterator[Client]:
    with running_server(index) as running:
        yield running


def objects_of(index: Path) -> list[RecurringObject]:
    with IndexReader.open(index) as reader:
        return recurring_objects(reader)


def test_objects_are_listed_in_pages(client: Client, index: Path) -> None:
    known = objects_of(index)
    told = client.get("/api/v1/objects").json
    assert (told["next"], told["n_objects"], told["waiting"]) == (None, len(known), 0)
    assert len(known) > 1
    for one, row in zip(known, told["objects"], strict=True):
        assert row["number"] == one.number
        ids_and_boxes = [(photo.record.id, list(photo.box)) for photo in one.photos]
        assert [(photo["id"], photo["box"]) for photo in row["photos"]] == ids_and_boxes
    pages, after = [], 1
    while after is not None:
        page = client.get(f"/api/v1/objects?after={after}&limit=1").json
        pages += page["objects"]
        after = page["next"]
    assert pages == told["objects"]
    assert client.get("/api/v1/objects?after=999").json["objects"] == []
    assert client.get("/api/v1/objects?after=0").status == 400


def test_a_cover_is_the_object_cut_out(client: Client) -> None:
    [first, *_] = client.get("/api/v1/objects").json["objects"]
    reply = client.get(f"{first['cover']}?size=160")
    assert reply.headers["content-type"] == "image/jpeg"
    cover = Image.open(io.BytesIO(reply.content))
    assert cover.width == cover.height <= 160
    assert client.get("/api/v1/objects/999/picture").status == 404
    assert client.get("/api/v1/objects/0/picture").status == 404
    assert client.get("/api/v1/objects/x/picture").status == 404


def test_an_object_gets_a_name_and_an_album(client: Client, index: Path) -> None:
    first = objects_of(index)[0]
    body = {"name": "Rex", "cover": first.cover.record.id}
    assert client.ask("POST", "/api/v1/objects/1/name").status == 403
    kept = client.post("/api/v1/objects/1/name", body)
    assert kept.status == 201, kept.content
    assert kept.json["n_photos"] == min(5, len(first.photos))
    ids = {photo.record.id for photo in first.photos[:5]}
    album = client.get("/api/v1/names/Rex/album").json["photos"]
    assert ids <= {photo["id"] for photo in album if photo["shown"]}
    for address, asked, status, line in (
        ("1", {"name": "Max", "cover": first.cover.record.id + 10_000}, 409, "the recurring"),
        ("999", body, 404, "there is no recurring object 999"),
        ("1", {"name": "Max"}, 400, "cover: must be the id of a photo"),
        ("1", {"cover": 3}, 400, "name: must be text"),
        ("1", {**body, "name": "a/b"}, 400, "name 'a/b': must be"),
        ("1", {**body, "top": 3}, 400, "the request: 'top' is not one of"),
    ):
        reply = client.post(f"/api/v1/objects/{address}/name", asked)
        assert (reply.status, reply.error.startswith(line)) == (status, True), reply.content
    assert [one["name"] for one in client.get("/api/v1/names").json["names"]] == ["Rex"]


def test_photos_that_go_leave_the_list_at_once(client: Client, index: Path) -> None:
    before = client.get("/api/v1/objects").json["objects"][0]["photos"][0]
    remove(index, [Path(before["path"])])
    after = client.get("/api/v1/objects").json["objects"]
    assert before["id"] not in {photo["id"] for one in after for photo in one["photos"]}


def test_photos_that_were_not_compared_are_said_to_be(server: Client) -> None:
    told = server.get("/api/v1/objects").json
    assert (told["objects"], told["n_objects"], told["next"]) == ([], 0, None)
    assert 0 < told["waiting"] <= server.get("/api/v1/collection").json["n_photos"]
    assert told["command"].startswith("waldo objects --index ")
