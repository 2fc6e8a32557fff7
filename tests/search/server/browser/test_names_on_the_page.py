"""Objects with a name on the page, on an index of the tests' own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.servers.server import Client, running_server
from tests.search.server.browser.conftest import DESK, PHONE, OpenPage

ODD_NAME = '<b>Zoë & "Tom"?#%'


@pytest.fixture(scope="module")
def server(sample_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    copy = shutil.copytree(sample_index, tmp_path_factory.mktemp("named") / "index")
    with running_server(Path(copy)) as client:
        yield client


def test_what_is_looked_for_is_kept_and_asked_for_again(
    open_page: OpenPage, server: Client
) -> None:
    page = open_page("#matches?photo=12&box=60,40,200,200")
    page.wait_for_selector(".card")
    with page.expect_response("**/searches"):
        page.locator("button.yes").first.click()
    page.wait_for_selector(".views .yes")
    summary = page.inner_text(".matches > .told")
    page.fill(".keep input", ODD_NAME)
    page.keyboard.press("Enter")
    page.wait_for_selector(".keep output:has-text('by 2 photos')")
    assert page.inner_text(".matches > .told") == summary
    [kept] = server.get("/api/v1/names").json["names"]
    assert (kept["name"], kept["n_photos"]) == (ODD_NAME, 2)
    assert kept["n_shown"] >= 2

    page.click("a.brand")
    card = page.locator(".named a")
    page.get_by_role("button", name=f"Forget {ODD_NAME}").wait_for()
    assert card.inner_text().strip() == ODD_NAME
    card.click()
    page.wait_for_selector(".album .card")
    page.click("a.look")
    page.wait_for_selector(".views li")
    address = page.url
    page.reload()
    page.wait_for_selector(".card")
    assert page.url == address
    assert page.locator(".views li").inner_text().strip() == ODD_NAME
    page.locator("button.ask-why").first.click()
    page.wait_for_selector("dialog[open] image")


def test_a_name_that_cannot_be_is_told_where_it_was_written(
    open_page: OpenPage, faults: list[str]
) -> None:
    page = open_page("#matches?photo=12&box=60,40,200,200")
    page.wait_for_selector(".card")
    page.fill(".keep input", "a/b")
    page.click(".keep button")
    page.wait_for_selector(".keep output.bad:has-text('must be 1 to 100 printable characters')")
    assert page.input_value(".keep input") == "a/b"
    assert [fault for fault in faults if "400" not in fault] == []
    faults.clear()


def test_a_name_that_is_kept_anew_is_searched_anew(open_page: OpenPage) -> None:
    page = open_page()
    for photo in (12, 15):
        page.goto(page.url.split("#")[0] + f"#matches?photo={photo}&box=60,40,200,200")
        page.wait_for_selector(".matches:not([aria-busy]) .card")
        page.fill(".keep input", "Max")
        page.click(".keep button")
        page.wait_for_selector(".keep output:has-text('Kept as Max')")
        page.click("a.brand")
        page.click(".named a:has-text('Max')")
        with page.expect_response("**/searches") as told:
            page.click("a.look")
        answer = told.value.json()
        assert answer["references"][-1]["photo"] == {"id": photo}


def test_a_name_is_forgotten_by_keys_once_that_is_confirmed(
    open_page: OpenPage, server: Client
) -> None:
    kept = {"name": "Tom #1", "object": {"photo": {"id": 12}, "box": [60, 40, 200, 200]}}
    assert server.post("/api/v1/names", kept).status == 201
    page = open_page()
    page.get_by_role("button", name="Forget Tom #1").focus()
    page.keyboard.press("Enter")
    asks = page.locator(".named button.asks")
    assert asks.inner_text() == "Forget Tom #1?"
    page.keyboard.press("Escape")
    assert asks.count() == 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert asks.count() == 0
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    with page.expect_response("**/names/Tom%20%231") as told:
        page.keyboard.press("Enter")
    assert told.value.status == 200
    page.get_by_role("button", name="Forget Tom #1").wait_for(state="detached")
    assert "Tom #1" not in str(server.get("/api/v1/names").json)
    assert page.evaluate("document.activeElement.tagName") == "H1"


@pytest.mark.parametrize("screen", [DESK, PHONE])
def test_an_album_is_put_right_by_hand(
    open_page: OpenPage, server: Client, screen: tuple[int, int]
) -> None:
    name = f"Roy {screen[0]}"
    kept = {"name": name, "object": {"photo": {"id": 12}, "box": [60, 40, 200, 200]}}
    assert server.post("/api/v1/names", kept).status == 201
    is_phone = screen == PHONE
    page = open_page("", screen, has_touch=is_phone)
    page.locator(".named a", has_text=name).click()
    page.wait_for_selector(".album .card")
    assert page.title().startswith(f"{name} ")
    own = page.locator(".card[data-id='12']")
    assert own.locator(".word").inner_text() == "your yes"
    assert page.locator(".card rect.found").count() > 0

    page.click("details.maybe > summary")
    card = page.locator("details.maybe .card").first
    number = card.get_attribute("data-id")
    yes = card.locator("button.yes")
    with page.expect_response("**/verdicts") as told:
        yes.tap() if is_phone else yes.click()
    assert told.value.status == 200
    in_album = page.locator(f".found > .cards .card[data-id='{number}']")
    in_album.wait_for()
    assert in_album.locator("button.yes").get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.activeElement.closest('.card')?.dataset.id") == number

    page.keyboard.press("n")
    page.locator(f"details.refused .card[data-id='{number}']").wait_for(state="attached")
    page.reload()
    page.locator(f"details.refused .card[data-id='{number}']").wait_for(state="attached")
    told_photos = server.get(f"/api/v1/names/{name.replace(' ', '%20')}/album").json["photos"]
    assert [photo["said"] for photo in told_photos if photo["id"] == int(number or -1)] == [False]
    page.keyboard.press("Tab")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.matches('.card .picture')")
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_what_cannot_be_said_is_told_on_the_page(
    open_page: OpenPage, faults: list[str], server: Client
) -> None:
    kept = {"name": "Ann", "object": {"photo": {"id": 20}, "box": [60, 40, 200, 200]}}
    assert server.post("/api/v1/names", kept).status == 201
    page = open_page("#album?name=Ann")
    page.locator(".card[data-id='20'] button.no").click()
    page.wait_for_selector(".problem:has-text('Ann was named by this photo')")
    page.goto(page.url.replace("Ann", "Bob"))
    page.wait_for_selector(".problem:has-text('knows no object of this name')")
    assert [fault for fault in faults if "400" not in fault and "404" not in fault] == []
    faults.clear()
