"""The page in a browser: from a photo to the places where its object is, and every way back."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.conftest import DEMO
from tests.helpers.servers.browsing import (
    Box,
    answer_first,
    drag,
    drag_by_finger,
    drop_file,
    marked,
)
from tests.helpers.servers.server import Client
from tests.search.server.browser.conftest import DESK, PHONE, OpenPage

if TYPE_CHECKING:
    from playwright.sync_api import Page

CAT = DEMO / "query" / "cat.jpg"
BOX = (172, 31, 333, 164)
# Photo 12 of the sample collection, and a part of it.
MARKED = "photo=12&box=60,40,200,200"
REFUSED = "Failed to load resource"  # what the browser itself writes of any status but 2xx


def bright(page: "Page", *points: tuple[int, int]) -> list[bool]:
    """Whether places of the photo that is being marked are undimmed."""
    script = """(points) => {
      const canvas = document.querySelector("canvas");
      const scale = canvas.width / document.querySelector(".stage svg").viewBox.baseVal.width;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const place = ([x, y]) => Math.floor(y * scale) * canvas.width + Math.floor(x * scale);
      return points.map((point) => data[4 * place(point) + 3] === 0);
    }"""
    found: list[bool] = page.evaluate(script, points)
    return found


def test_by_mouse_from_a_dropped_photo_to_its_matches_and_back(
    open_page: OpenPage, server: Client
) -> None:
    page = open_page()
    assert page.locator(".grid img").first.get_attribute("alt") == "001.jpg"
    drop_file(page, "cat.jpg", CAT.read_bytes())
    page.wait_for_selector(".stage svg")
    with page.expect_response("**/preview"):
        drag(page, BOX)
    page.wait_for_selector("text=The bright part is taken")
    assert bright(page, (220, 100), (2, 2)) == [True, False]
    assert all(abs(a - b) <= 1 for a, b in zip(marked(page), BOX, strict=True))

    with page.expect_response("**/searches") as told:
        page.click("button.search")
    answer = told.value.json()
    page.wait_for_selector(".card")
    ids = [card.get_attribute("data-id") for card in page.locator(".card").all()]
    assert sorted(ids) == sorted(str(match["id"]) for match in answer["matches"])
    sure = [match for match in answer["matches"] if match["word"] != "maybe chance"]
    assert ids[: len(sure)] == [str(match["id"]) for match in sure]
    assert page.locator("details.chance").get_attribute("open") is None

    address = page.url
    page.reload()
    page.wait_for_selector(".card")
    assert page.url == address
    page.go_back()
    page.wait_for_selector(".stage svg .asked")
    assert all(abs(a - b) <= 1 for a, b in zip(marked(page), BOX, strict=True))
    page.go_forward()
    page.wait_for_selector(".card")


def test_by_finger_on_a_phone(open_page: OpenPage) -> None:
    page = open_page("#mark?photo=12", PHONE, has_touch=True, is_mobile=True)
    page.wait_for_selector(".stage svg")
    box: Box = (60, 40, 200, 200)
    drag_by_finger(page, box)
    page.wait_for_selector("text=The bright part is taken")
    assert all(abs(a - b) <= 1 for a, b in zip(marked(page), box, strict=True))
    page.locator("button.search").tap()
    page.wait_for_selector(".card")
    page.locator(".card .picture").first.tap()
    page.wait_for_selector(".whole rect.found")


def test_a_click_is_a_point_and_areas_are_added_and_removed(open_page: OpenPage) -> None:
    page = open_page("#mark?photo=12")
    page.wait_for_selector(".stage svg")
    page.click(".stage", position={"x": 200, "y": 200})
    page.wait_for_selector("circle.asked")
    assert "point=" in page.url
    page.wait_for_selector("text=The bright part is taken")
    for mode, box in (("add", (5, 5, 60, 60)), ("remove", (100, 100, 160, 160))):
        page.check(f"input[value={mode}]", force=True)
        with page.expect_response("**/preview") as told:
            drag(page, box)
        assert told.value.status == 200
        page.wait_for_selector(f"rect.{mode}")
    page.click("button.undo")
    page.wait_for_selector("rect.remove", state="detached")
    assert page.locator("rect.add").count() == 1
    page.keyboard.press("Escape")
    page.wait_for_selector("rect.add", state="detached")
    assert page.url.endswith("#mark?photo=12")


def test_an_area_that_is_added_to_nothing_is_the_object(open_page: OpenPage) -> None:
    page = open_page("#mark?photo=12")
    page.wait_for_selector(".stage svg")
    page.check("input[value=add]", force=True)
    box: Box = (60, 40, 200, 200)
    with page.expect_response("**/preview") as told:
        drag(page, box)
    assert told.value.status == 200
    assert "add=" not in page.url
    assert all(abs(a - b) <= 1 for a, b in zip(marked(page), box, strict=True))


def test_by_keys_alone(open_page: OpenPage) -> None:
    page = open_page()
    page.wait_for_selector(".grid a")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.grid a')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".stage:focus svg")
    page.keyboard.press("ArrowRight")
    first = marked(page)
    page.keyboard.press("ArrowRight")
    moved = marked(page)
    assert moved[0] > first[0]
    assert moved[2] - moved[0] == first[2] - first[0]
    page.keyboard.press("Shift+ArrowDown")
    assert marked(page)[:3] == moved[:3]
    assert marked(page)[3] > moved[3]
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    page.keyboard.press("j")
    page.keyboard.press("j")
    opened = page.evaluate("document.activeElement.closest('.card').dataset.id")
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.wait_for_selector(".whole")
    assert f"shown={opened}" in page.url
    page.keyboard.press("Escape")
    page.wait_for_selector(f".card[data-id='{opened}'] .picture:focus")


def test_yes_and_no_search_again_and_can_be_taken_back(open_page: OpenPage) -> None:
    page = open_page(f"#matches?{MARKED}")
    page.wait_for_selector(".card .yes")
    address = page.url
    with page.expect_request("**/searches") as yes:
        page.locator(".card .yes").first.click()
    page.wait_for_selector(".views .yes")
    with page.expect_request("**/searches") as no:
        page.click("details.chance summary")
        page.locator(".card .no[aria-pressed=false]").last.click()
    page.wait_for_selector(".views .no")
    [also], [unlike] = yes.value.post_data_json["also"], no.value.post_data_json["not"]
    assert len(also["box"]) == len(unlike["box"]) == 4
    assert no.value.post_data_json["also"] == [also]
    assert also["photo"] != unlike["photo"]
    page.click("button.undo")
    page.wait_for_selector(".views .no", state="detached")
    page.get_by_role("button", name="Take this yes away").click()
    page.wait_for_selector(".views .yes", state="detached")
    assert page.url == address


def test_matches_are_filtered_compared_and_explained(
    open_page: OpenPage, faults: list[str]
) -> None:
    page = open_page(f"#matches?{MARKED}")
    page.wait_for_selector(".card .ask-why")
    with page.expect_response("**/heatmap") as heat:
        page.keyboard.press("h")
    assert heat.value.headers["content-type"] == "image/png"
    page.keyboard.press("h")
    assert page.locator(".layer").count() == 0
    with page.expect_response("**/pairs") as told:
        page.locator(".card .ask-why").first.click()
    page.wait_for_selector("dialog[open]")
    assert page.locator(".pair").count() == len(told.value.json()["pairs"]) > 0
    page.keyboard.press("Escape")
    page.fill("input[name=until]", "1990-01-01")
    page.wait_for_selector(".problem:has-text('no photo of the index passes the filter')")
    assert page.locator(".card").count() == 0
    faults[:] = [fault for fault in faults if not fault.startswith(REFUSED)]
    page.go_back()
    page.wait_for_selector(".card")
    assert page.input_value("input[name=until]") == ""


def test_paths_of_selected_photos_are_saved(open_page: OpenPage) -> None:
    page = open_page(f"#matches?{MARKED}")
    page.wait_for_selector(".card")
    names = []
    for at in range(2):
        page.locator(".card input").nth(at).check()
        names.append(page.locator(".card .name").nth(at).get_attribute("title"))
    page.wait_for_selector("text=2 photos selected")
    with page.expect_download() as text:
        page.click("button.text")
    assert Path(text.value.path()).read_text().splitlines() == names
    with page.expect_download() as saved:
        page.click("button.json")
    assert json.loads(Path(saved.value.path()).read_text()) == names


def test_a_photo_is_shown_whole(open_page: OpenPage, server: Client) -> None:
    search = {"object": {"photo": {"id": 12}, "box": [60, 40, 200, 200]}}
    answer = server.post("/api/v1/searches", search).json
    match = answer["matches"][1]
    page = open_page(f"#photo?{MARKED}&shown={match['id']}")
    page.wait_for_selector(".whole rect.found")
    assert page.locator(".whole rect.found").count() == len(match["boxes"])
    assert match["path"] in page.inner_text("dd.path")
    assert page.inner_text(".command code") == answer["command"]
    page.click("text=Search for this instead")
    page.wait_for_selector(".card")
    assert f"photo={match['id']}&box={','.join(map(str, map(round, match['box'])))}" in page.url


def test_the_first_photo_of_the_index_is_a_photo_as_any(open_page: OpenPage) -> None:
    page = open_page("#matches?photo=0&box=20,20,150,150")
    page.click(".card[data-id='0'] .picture")
    page.wait_for_selector(".whole rect.found")
    assert page.url.endswith("shown=0&box=20,20,150,150")


def many_pixels() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_the_model_sees_is_drawn_when_it_is_asked_for(open_page: OpenPage) -> None:
    page = open_page("#photo?photo=12&class=cat&shown=12")
    page.wait_for_selector(".drawn figure:nth-child(2) img", state="attached")
    assert page.locator(".seen").get_attribute("open") is None
    assert page.locator(".drawn img").evaluate_all("all => all.map(one => one.naturalWidth)") == [
        0,
        0,
    ]
    page.click(".seen summary")
    for image in page.locator(".drawn img").all():
        width = image.evaluate("async (one) => { await one.decode(); return one.naturalWidth; }")
        assert width > 100
    captions = page.locator(".drawn figcaption").all_inner_texts()
    assert captions == ["appearance map", "class map of cat"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("text.txt", "not a picture"),
        ("broken.jpg", "broken|truncated|damaged|read"),
        ("large.jpg", "more than 64 MiB"),
        ("wide.png", "more than 100 megapixels"),
    ],
)
def test_files_that_are_no_use_are_said_so(
    open_page: OpenPage, faults: list[str], name: str, line: str
) -> None:
    content = {
        "text.txt": b"to be or not to be\n" * 9,
        "broken.jpg": CAT.read_bytes()[:3000],
        "large.jpg": CAT.read_bytes(),
        "wide.png": many_pixels() if name == "wide.png" else b"",
    }[name]
    page = open_page(f"#mark?{MARKED}")
    page.wait_for_selector(".stage svg .asked")
    before = page.url
    drop_file(page, name, content, zeros=100 << 20 if name == "large.jpg" else 0)
    page.wait_for_selector(f".problem:text-matches('{line}')")
    assert page.url == before  # what was marked is still there
    faults[:] = [fault for fault in faults if not fault.startswith(REFUSED)]


def test_a_text_that_is_dropped_is_no_photo(open_page: OpenPage) -> None:
    page = open_page()
    page.wait_for_selector(".grid a")
    page.evaluate("""() => {
      const transfer = new DataTransfer();
      transfer.setData("text/plain", "to be or not to be");
      const given = { dataTransfer: transfer, bubbles: true, cancelable: true };
      document.body.dispatchEvent(new DragEvent("drop", given));
    }""")
    page.wait_for_selector(".problem:has-text('drop a photo file')")


def test_words_are_completed_and_doubted(open_page: OpenPage, faults: list[str]) -> None:
    page = open_page()
    page.set_input_files("input[type=file]", CAT)
    page.wait_for_selector(".stage svg")
    page.locator(".class").press_sequentially("banan")
    page.wait_for_selector("#words option[value=banana]", state="attached")
    page.locator(".class").press_sequentially("a")
    page.wait_for_selector(".told.warning:has-text('hardly shows a banana')")
    page.fill(".class", "qwertz")
    page.keyboard.press("Tab")
    page.wait_for_selector(".problem:has-text('qwertz')")
    page.go_back()
    page.wait_for_selector(".problem", state="hidden")
    assert page.input_value(".class") == "banana"
    faults[:] = [fault for fault in faults if not fault.startswith(REFUSED)]


def test_what_the_server_has_forgotten(open_page: OpenPage, faults: list[str]) -> None:
    page = open_page(f"#mark?upload={'0' * 32}&size=300,200")
    page.wait_for_selector(".problem:has-text('send it again') a")
    page.goto(page.url.split("#")[0] + f"#matches?{MARKED}")
    page.wait_for_selector(".card .ask-why")
    gone = {"status": 404, "json": {"error": "gone"}}
    answer_first(page, "**/pairs", lambda route: route.fulfill(**gone))
    with page.expect_response("**/searches"):
        page.locator(".card .ask-why").first.click()
    page.wait_for_selector("dialog[open] .pair")
    faults[:] = [fault for fault in faults if not fault.startswith(REFUSED)]


def test_a_server_that_is_busy_or_away(open_page: OpenPage, faults: list[str]) -> None:
    page = open_page(f"#mark?{MARKED}")
    page.wait_for_selector("text=The bright part is taken")
    answer_first(page, "**/searches", lambda route: route.abort())
    page.click("button.search")
    page.wait_for_selector(".problem:has-text('does not answer')")
    busy = {"status": 503, "headers": {"retry-after": "1"}, "json": {"error": "too many"}}
    answer_first(page, "**/searches", lambda route: route.fulfill(**busy))
    page.click("text=Try again")
    page.wait_for_selector(".card")
    assert page.inner_text(".problem") == ""
    faults[:] = [fault for fault in faults if not fault.startswith(REFUSED)]


def test_heatmaps_that_cannot_be_drawn_have_the_search_asked_again_once(
    open_page: OpenPage, faults: list[str]
) -> None:
    page = open_page(f"#matches?{MARKED}")
    page.wait_for_selector(".card")
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url) if "/api/" in one.url else None)
    page.route("**/heatmap", lambda route: route.fulfill(status=500, json={"error": "no"}))
    with page.expect_response("**/searches"):
        page.keyboard.press("h")
    page.wait_for_selector(".matches:not([aria-busy])")
    # Layers of the second answer fail, and whatever that brings was asked for before this is.
    page.wait_for_function("document.querySelector('.layer').complete")
    page.evaluate(
        "new Promise(requestAnimationFrame).then(() => fetch('/api/v1/names')).then(String)"
    )
    assert len([url for url in asked if url.endswith("/searches")]) == 1
    faults[:] = [fault for fault in faults if not fault.startswith(REFUSED)]


def test_photos_that_came_meanwhile_are_searched_too(open_page: OpenPage, server: Client) -> None:
    page = open_page(f"#matches?{MARKED}")
    page.wait_for_selector(".card")
    page.click("a.brand")
    page.wait_for_selector(".grid a")
    page.go_back()
    page.wait_for_selector(".card")
    collection = server.get("/api/v1/collection").json
    more = {**collection, "n_photos": collection["n_photos"] + 1}
    page.route("**/collection", lambda route: route.fulfill(json=more))
    page.click("a.brand")
    page.wait_for_selector(f"#collection:has-text('{more['n_photos']} photos')")
    with page.expect_request("**/searches"):
        page.go_back()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_every_screen_can_be_used_by_everybody(
    open_page: OpenPage, screen: tuple[int, int], scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page("", screen, color_scheme=scheme)
    home = page.url
    for fragment, ready in (
        ("", ".grid img"),
        (f"#mark?{MARKED}", ".stage svg .asked"),
        (f"#matches?{MARKED}&also=15@5,5,90,80", ".card"),
        (f"#photo?{MARKED}&shown=12", ".whole rect.found"),
    ):
        page.goto(home + fragment)
        page.wait_for_selector(ready)
        found = Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [n["html"] for n in one["nodes"]]) for one in serious] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= screen[0]
