"""Recurring objects on the page, on an index of the tests' own."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.servers.server import Client, running_server
from tests.search.server.browser.conftest import DESK, PHONE, OpenPage


@pytest.fixture(scope="module")
def server(linked_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    copy = Path(shutil.copytree(linked_index, tmp_path_factory.mktemp("recurring") / "index"))
    with running_server(copy) as client:
        yield client


def objects_of(server: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/api/v1/objects").json["objects"]
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE])
def test_what_recurs_is_opened_searched_for_and_left_again(
    open_page: OpenPage, server: Client, screen: tuple[int, int], scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    known = objects_of(server)
    is_phone = screen == PHONE
    page = open_page("", screen, has_touch=is_phone, color_scheme=scheme)
    link = page.get_by_role("link", name="What recurs in your photos")
    with page.expect_response("**/objects/1/picture*") as told:
        link.tap() if is_phone else link.click()
    assert told.value.status == 200
    page.wait_for_selector(".recurring .card")
    cards = page.locator(".recurring .card")
    counts = [f"{len(one['photos'])} photos" for one in known]
    assert [text.strip() for text in cards.all_inner_texts()] == counts
    assert page.evaluate("document.documentElement.scrollWidth") <= screen[0]
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()

    second = cards.nth(1).locator("a")
    second.tap() if is_phone else second.click()
    page.wait_for_selector(".objects .cards .card")
    assert page.url.endswith("#objects?object=2")
    assert page.locator(".objects .cards .card").count() == len(known[1]["photos"])
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.reload()
    page.wait_for_selector(".objects .cards rect.found")
    assert page.evaluate("document.documentElement.scrollWidth") <= screen[0]
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()

    with page.expect_response("**/searches") as told:
        page.click("a.look")
    assert told.value.status == 200
    page.wait_for_selector(".views li")
    assert page.locator(".views li").count() == min(5, len(known[1]["photos"]))
    page.go_back()
    page.wait_for_selector(".objects .cards .card")
    page.click(".objects .back")
    page.wait_for_selector(".recurring .card")
    assert page.evaluate("document.activeElement.closest('.card')?.dataset.number") == "2"


def test_by_keys_an_object_is_opened_and_named(open_page: OpenPage, server: Client) -> None:
    page = open_page("#objects")
    page.wait_for_selector(".recurring .card")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("o")
    page.wait_for_selector(".objects .cards .card")
    assert page.url.endswith("#objects?object=1")
    page.focus(".keep input")
    page.keyboard.type("jokes")
    page.keyboard.press("Enter")
    page.wait_for_selector(".keep output:has-text('Kept as jokes')")
    page.focus("h1")
    page.keyboard.press("Escape")
    page.wait_for_selector(".recurring .card")
    [named] = server.get("/api/v1/names").json["names"]
    assert (named["name"], named["n_shown"] >= 2) == ("jokes", True)
    page.click("a.brand")
    page.wait_for_selector(".named a:has-text('jokes')")


def test_an_object_that_is_no_more_is_said_to_be_gone(open_page: OpenPage) -> None:
    page = open_page("#objects?object=999")
    page.wait_for_selector(".told:has-text('There is no such object any more.')")
    page.click(".objects .back")
    page.wait_for_selector(".recurring .card")
