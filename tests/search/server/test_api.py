"""The API of `waldo serve`, by real requests: what it answers is what the library answers."""

import io
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from features.extractor import FeatureExtractor
from features.frame import Frame
from indexer.ingest.build import index_photos
from search import Query, SearchOptions, open_index
from search.presentation.sureness import sureness
from search.server.objects import cell_boxes
from tests.conftest import DEMO
from tests.helpers.command_line import CommandLine
from tests.helpers.servers.server import Client, Reply, running_server

QUERY = DEMO / "query" / "cat.jpg"
BOX = [172, 31, 333, 164]


@pytest.fixture(scope="module")
def upload(server: Client) -> str:
    reply = server.post("/api/v1/uploads", QUERY.read_bytes())
    assert reply.status == 201, reply.content
    key = reply.json["upload"]
    assert isinstance(key, str)
    return key


def picture(reply: Reply) -> Image.Image:
    assert reply.status == 200, reply.content
    return Image.open(io.BytesIO(reply.content))


def test_the_collection_is_described(server: Client, sample_index: Path) -> None:
    told = server.get("/api/v1/collection").json
    photos = str(DEMO / "photos")
    assert told["n_photos"] == 81
    assert told["model"] == "tiny"
    assert told["index"] == str(sample_index)
    assert told["folders"] == [{"path": photos, "name": "photos", "n_photos": 81}]
    assert told["token"] == server.token


def test_the_listing_comes_in_pages_without_gaps(server: Client) -> None:
    names, after = [], ""
    while True:
        page = server.get(f"/api/v1/photos?limit=30{after}").json
        assert len(page["photos"]) <= 30
        names += [photo["name"] for photo in page["photos"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert names == sorted(path.name for path in (DEMO / "photos").iterdir())


def test_photo_zero_may_open_a_later_page(small_tiny: FeatureExtractor, tmp_path: Path) -> None:
    samples, index = sorted((DEMO / "photos").iterdir()), tmp_path / "index"
    for folder, names in (("b", ("0", "1")), ("a", ("2", "3"))):
        (tmp_path / folder).mkdir()
        for name in names:
            shutil.copy(samples[int(name)], tmp_path / folder / f"{name}.jpg")
        index_photos([tmp_path / folder], index, small_tiny, batch_size=4)
    with running_server(index) as client:
        first = client.get("/api/v1/photos?limit=2").json
        assert [photo["id"] for photo in first["photos"]] == [2, 3]
        assert first["next"] == 0
        second = client.get("/api/v1/photos?limit=2&after=0").json
        assert [photo["id"] for photo in second["photos"]] == [0, 1]
        assert second["next"] is None


def test_a_fault_of_the_server_is_one_line(
    sample_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("search.server.endpoints.find_photo", fail)
    with running_server(sample_index) as client:
        reply = client.get("/api/v1/photos/3")
        assert (reply.status, reply.error) == (500, "the server failed; what it printed says how")
        assert client.get("/api/v1/collection").status == 200


def test_the_listing_is_filtered(server: Client, tmp_path: Path) -> None:
    photos = DEMO / "photos"
    assert len(server.get(f"/api/v1/photos?limit=500&folder={photos}").json["photos"]) == 81
    assert server.get(f"/api/v1/photos?folder={tmp_path}").json == {"photos": [], "next": None}
    assert server.get("/api/v1/photos?until=1990").json["photos"] == []
    refused = server.get("/api/v1/photos?since=yesterday")
    assert refused.status == 400
    assert refused.error.startswith("since yesterday: must be YYYY")
    assert server.get("/api/v1/photos?folder=%00").error == "folder: must be text"
    for text in ("0", "-1", "x", "9" * 50):
        assert server.get(f"/api/v1/photos?limit={text}").error.startswith("limit: must be")


def test_a_photo_is_shown_small_and_without_what_its_file_says(server: Client) -> None:
    record = server.get("/api/v1/photos/3").json
    assert record["state"] == "unchanged"
    reply = server.get("/api/v1/photos/3/picture?size=150")
    small = picture(reply)
    assert max(small.size) == 160
    assert not small.getexif()
    ratio = small.width / small.height
    assert ratio == pytest.approx(record["width"] / record["height"], rel=0.02)
    assert reply.headers["content-type"] == "image/jpeg"
    again = server.get("/api/v1/photos/3/picture?size=150", If_None_Match=reply.headers["etag"])
    assert (again.status, again.content) == (304, b"")


def test_an_upload_that_the_index_holds_is_known(server: Client) -> None:
    record = server.get("/api/v1/photos/5").json
    sent = server.post("/api/v1/uploads", Path(record["path"]).read_bytes()).json
    assert sent["id"] == 5
    assert (sent["width"], sent["height"]) == (record["width"], record["height"])


def test_what_the_model_sees_is_drawn(server: Client, upload: str) -> None:
    record = server.get("/api/v1/photos/3").json
    for photo in (f"uploads/{upload}", "photos/3"):
        appearance = picture(server.get(f"/api/v1/{photo}/features"))
        classes = picture(server.get(f"/api/v1/{photo}/features?class=cat"))
        assert np.asarray(appearance).std() > 20
        assert np.asarray(classes).std() > 20
    assert appearance.width / appearance.height == pytest.approx(
        record["width"] / record["height"], rel=0.02
    )
    unknown = server.get("/api/v1/photos/3/features?class=zxqv")
    assert unknown.status == 422
    assert "zxqv" in unknown.error


def test_words_are_completed(server: Client) -> None:
    words = server.get("/api/v1/words?prefix=CA").json["words"]
    assert "cat" in words
    assert all(word.startswith("ca") for word in words)
    assert len(words) <= 20


def test_a_preview_covers_what_a_search_takes(
    server: Client, upload: str, sample_index: Path
) -> None:
    told = server.post("/api/v1/preview", {"photo": {"upload": upload}, "box": BOX}).json
    with open_index(sample_index, device="cpu") as index:
        reference = index.preview(Query(QUERY, box=tuple(BOX)))  # type: ignore[arg-type]
    assert told["box"] == list(reference.box)
    assert told["cells"] == [list(b) for b in cell_boxes(reference.cells, reference.maps.frame)]
    assert told["warning"] is None
    assert "--box 172,31,333,164" in told["command"]


def test_a_class_that_the_photo_does_not_show_is_warned_of(server: Client, upload: str) -> None:
    told = server.post("/api/v1/preview", {"photo": {"upload": upload}, "class": "banana"}).json
    assert told["warning"].startswith("the photo hardly shows a banana")


@pytest.mark.parametrize("size", [(64, 48), (47, 640), (5, 3), (900, 17)])
def test_cell_boxes_cover_exactly_the_cells(size: tuple[int, int]) -> None:
    frame = Frame(*size, 224, 28)
    generator = np.random.default_rng(3)
    cells = frame.valid() & (generator.random((28, 28)) < 0.4)
    cells[0, 0] = True
    drawn = np.zeros((size[1], size[0]), int)
    for x0, y0, x1, y1 in cell_boxes(cells, frame):
        drawn[y0:y1, x0:x1] += 1
    expected = np.zeros_like(drawn)
    for row, column in np.argwhere(cells):
        part = np.zeros_like(cells)
        part[row, column] = True
        x0, y0, x1, y1 = frame.box_of(part)
        expected[y0:y1, x0:x1] += 1
    np.testing.assert_array_equal(drawn > 0, expected > 0)


@pytest.fixture(scope="module")
def answer(server: Client, upload: str) -> Any:
    asked = {"object": {"photo": {"upload": upload}, "box": BOX}, "top": 9}
    reply = server.post("/api/v1/searches", asked)
    assert reply.status == 200, reply.content
    return reply.json


def test_a_search_answers_what_the_library_answers(answer: Any, sample_index: Path) -> None:
    with open_index(sample_index, device="cpu") as index:
        query = Query(QUERY, box=tuple(BOX))  # type: ignore[arg-type]
        expected = index.search(query, SearchOptions(top=9))
    for told, match in zip(answer["matches"], expected.matches, strict=True):
        assert (told["rank"], told["id"]) == (match.rank, match.id)
        assert told["path"] == str(match.path)
        assert told["box"] == list(match.box)
        assert told["score"] == pytest.approx(match.score, rel=1e-5)
        assert told["probability"] == pytest.approx(match.probability, abs=1e-5)
        assert told["word"] == sureness(match)
    assert answer["references"][0]["box"] == answer["query"]["taken"]
    assert answer["query"]["photo"] is None
    assert answer["n_photos"] == 81


def test_what_lies_over_a_match_has_its_shape(server: Client, answer: Any) -> None:
    match = answer["matches"][0]
    address = f"/api/v1/searches/{answer['search']}/matches/1"
    heat, mask = (picture(server.get(f"{address}/{layer}")) for layer in ("heatmap", "mask"))
    for layer in (heat, mask):
        assert layer.mode == "RGBA"
        assert layer.width / layer.height == pytest.approx(
            match["width"] / match["height"], rel=0.02
        )
    # The mask lies in the match's box, give or take a cell.
    opaque = np.asarray(mask)[..., 3] > 0
    x0, y0, x1, y1 = (edge * mask.width / match["width"] for edge in match["box"])
    inside = np.zeros_like(opaque)
    inside[max(0, round(y0) - 20) : round(y1) + 20, max(0, round(x0) - 20) : round(x1) + 20] = True
    assert opaque.any()
    assert (opaque & inside).sum() > 0.9 * opaque.sum()


def test_pairs_join_the_object_with_its_match(server: Client, answer: Any) -> None:
    match, reference = answer["matches"][0], answer["references"][0]
    pairs = server.get(f"/api/v1/searches/{answer['search']}/matches/1/pairs").json["pairs"]
    assert 1 <= len(pairs) <= 20
    values = [pair["similarity"] for pair in pairs]
    assert values == sorted(values, reverse=True)
    for pair in pairs:
        (x, y), (left, top, right, bottom) = pair["query"], reference["box"]
        assert left <= x <= right
        assert top <= y <= bottom
        assert 0 <= pair["match"][0] <= match["width"]
        assert 0 <= pair["match"][1] <= match["height"]


def test_answers_are_kept_for_a_while(server: Client, answer: Any) -> None:
    assert server.get("/api/v1/searches/0123/matches/1/heatmap").status == 404
    gone = server.get(f"/api/v1/searches/{answer['search']}/matches/99/heatmap")
    assert (gone.status, gone.error) == (404, "this search has no match of the rank 99")


def test_the_command_asks_for_the_same(
    server: Client, waldo: CommandLine, sample_index: Path
) -> None:
    """Of a photo of the index, with another view and with what it is not."""
    asked = {
        "object": {"photo": {"id": 4}, "box": [20, 20, 200, 200]},
        "also": [{"photo": {"id": 7}, "box": [0, 0, 150, 150]}],
        "not": [{"photo": {"id": 9}, "point": [60, 60]}],
        "folder": str(DEMO / "photos"),
        "until": "2090",
        "top": 5,
    }
    told = server.post("/api/v1/searches", asked).json
    name, *arguments = shlex.split(told["command"])
    assert name == "waldo"
    assert str(sample_index) in arguments
    result = waldo(*arguments, "--json")
    assert result.code == 0, result.err
    by_command = json.loads(result.out)
    assert [m["id"] for m in by_command["matches"]] == [m["id"] for m in told["matches"]]
    assert by_command["query"]["since"] is None


def test_areas_are_added_and_removed(server: Client, upload: str) -> None:
    shown = {"photo": {"upload": upload}, "box": BOX}
    plain = server.post("/api/v1/preview", shown).json
    x0, _, x1, _ = plain["box"]
    middle, cell = (x0 + x1) // 2, 480 // 12
    halved = server.post("/api/v1/preview", {**shown, "remove": [[0, 0, middle, 10_000]]}).json
    assert halved["box"][0] >= middle - cell
    assert halved["command"] is None
    grown = server.post("/api/v1/preview", {**shown, "add": [[0, 0, 40, 40]]}).json
    assert grown["box"][:2] == [0, 0]
    nothing = server.post("/api/v1/preview", {**shown, "remove": [[0, 0, 10_000, 10_000]]})
    assert nothing.status == 422
    assert nothing.error.startswith("the photo")


@pytest.mark.parametrize(
    ("asked", "status", "line"),
    [
        ([], 400, "the search: must be a JSON object"),
        ({}, 400, "object: must be a JSON object"),
        ({"object": {"photo": {"id": True}}}, 400, 'object.photo: must be {"id": NUMBER}'),
        ({"object": {"photo": {"path": "/etc/passwd"}}}, 400, "object.photo: must be"),
        ({"object": {"photo": {"id": 3}, "file": 1}}, 400, "object: 'file' is not one of its"),
        ({"object": {"photo": {"id": 99_999}}}, 404, "the index has no photo of the number"),
        ({"object": {"photo": {"id": -1}}}, 404, "the index has no photo of the number"),
        ({"object": {"photo": {"id": 10**30}}}, 400, "object.photo: must be"),
        ({"object": {"photo": {"upload": "../../etc/passwd"}}}, 404, "this photo is not here"),
        ({"object": {"photo": {"id": 3}}}, 422, None),
        ({"object": {"photo": {"id": 3}, "box": [1, 2, 3]}}, 400, "object.box: must be a list"),
        ({"object": {"photo": {"id": 3}, "box": [1, 2, 3, "4"]}}, 400, "object.box: must be"),
        ({"object": {"photo": {"id": 3}, "box": [5e3, 5e3, 6e3, 6e3]}}, 422, None),
        ({"object": {"photo": {"id": 3}, "class": "zxqv"}}, 422, None),
        ({"object": {"photo": {"id": 3}, "class": 7}}, 400, "object.class: must be text"),
        ({"object": {"photo": {"id": 3}, "class": "\ud800"}}, 400, "object.class: must be text"),
        ({"object": {"photo": {"name": "\ud800"}}}, 400, "object.photo: must be"),
        ({"object": {"photo": {"upload": "\0"}}}, 400, "object.photo: must be"),
        ({"object": {"photo": {"id": 3}}, "folder": "\0"}, 400, "folder: must be text"),
        ({"object": {"photo": {"id": 3}}, "folder": "\ud800"}, 400, "folder: must be text"),
        ({"object": {"photo": {"id": 3}, "class": "dog"}, "top": 0}, 400, "top: must be"),
        ({"object": {"photo": {"id": 3}, "class": "dog"}, "also": 5}, 400, "also: must be a list"),
        ({"object": {"photo": {"id": 3}, "class": "dog"}, "until": "1990"}, 400, "no photo of"),
    ],
)
def test_bad_searches_are_one_line(
    server: Client, asked: Any, status: int, line: str | None
) -> None:
    reply = server.post("/api/v1/searches", asked)
    assert reply.status == status, reply.content
    assert reply.error.startswith(line or str(DEMO))


def test_what_is_no_json_is_one_line(server: Client) -> None:
    for body in (b"{", b"\xff\xfe", b"[" * 100_000, b"NaN"):
        assert server.post("/api/v1/searches", body).status == 400
    assert server.post("/api/v1/searches", b" " * (2 << 20)).status == 413
    nowhere = server.get("/api/v2/photos")
    assert (nowhere.status, nowhere.error) == (404, "GET /api/v2/photos: no such address")
    assert server.get("/api/v1/searches").status == 404
