"""Objects with a name on the page, on an index of the tests' own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.server import Client, running_server
from tests.search.server.browser.conftest import OpenPage

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
    assert server.get("/api/v1/names").json == {"names": [{"name": ODD_NAME, "n_photos": 2}]}

    page.click("a.brand")
    card = page.locator(".named a")
    page.get_by_role("button", name=f"Forget {ODD_NAME}").wait_for()
    assert card.inner_text().strip() == ODD_NAME
    card.click()
    page.wait_for_selector(".card")
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
        with page.expect_response("**/searches") as told:
            page.click(".named a:has-text('Max')")
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
