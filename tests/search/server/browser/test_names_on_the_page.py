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
    page.fill(".keep input", ODD_NAME)
    page.keyboard.press("Enter")
    page.wait_for_selector("text=by 2 photos")
    assert server.get("/api/v1/names").json == {"names": [{"name": ODD_NAME, "n_photos": 2}]}

    page.click("a.brand")
    card = page.locator(".named a")
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
    page.wait_for_selector("text=must be 1 to 100 printable characters")
    assert page.input_value(".keep input") == "a/b"
    assert [fault for fault in faults if "400" not in fault] == []
    faults.clear()
