"""Makes the pictures of page.md, after `make demo`: .venv/bin/python -m docs.screenshots"""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.helpers.servers.browsing import drag
from tests.helpers.servers.server import running_server

DOCS = Path(__file__).parent
CAT = DOCS.parent / "data" / "demo" / "query" / "cat.jpg"


def main() -> None:
    chromium = shutil.which("chromium")
    with running_server(Path(".demo/index")) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": 1000, "height": 740}, reduced_motion="reduce")

        def shoot(name: str) -> None:
            page.wait_for_timeout(1500)  # pictures within drawings tell nobody that they are there
            page.screenshot(path=DOCS / f"page-{name}.jpg", type="jpeg", quality=80)

        page.goto(f"http://127.0.0.1:{server.port}/")
        page.set_input_files("input[type=file]", CAT)
        page.wait_for_selector(".stage svg")
        drag(page, (172, 31, 333, 164))
        page.wait_for_selector("text=The bright part is taken")
        shoot("mark")
        page.click("button.search")
        page.wait_for_selector(".card")
        shoot("matches")
        page.locator(".ask-why").first.click()
        page.wait_for_selector("dialog[open]")
        shoot("why")
        browser.close()


if __name__ == "__main__":
    main()
