"""A real browser on the page, and what every test of the page asks of it."""

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.servers.server import Client

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Widths and heights of screens, pixels.
DESK, PHONE = (1280, 900), (390, 844)

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")  # no longer: while it runs, no other event loop may
def browser(server: Client) -> "Iterator[Browser]":
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the page is tested in Chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    """What the browser complained of, and what left this machine. A test that expects some of it
    takes it out.
    """
    return []


@pytest.fixture
def open_page(browser: "Browser", server: Client, faults: list[str]) -> Iterator[OpenPage]:
    """Opens the page at an address below the server's, on a screen of some size."""
    home = f"http://127.0.0.1:{server.port}/"
    contexts = []

    def watch(request: Any) -> None:
        if not request.url.startswith((home, "blob:")):
            faults.append(f"a request to {request.url}")

    def open_it(fragment: str = "", screen: tuple[int, int] = DESK, **more: Any) -> "Page":
        size = {"width": screen[0], "height": screen[1]}
        context = browser.new_context(viewport=size, reduced_motion="reduce", **more)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", watch)
        page.goto(home + fragment)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert faults == []
