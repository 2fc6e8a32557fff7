"""What people do with the page, and what a server may do to it."""

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

Box = tuple[int, int, int, int]

_DROP = """([name, text, size]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes, new Uint8Array(size)], name));
  document.body.dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def drop_file(page: "Page", name: str, content: bytes, zeros: int = 0) -> None:
    """Drop a file on the page. zeros: how many zero bytes follow the content."""
    page.evaluate(_DROP, [name, base64.b64encode(content).decode(), zeros])


def on_screen(page: "Page", x: float, y: float) -> tuple[float, float]:
    """Where on the screen a pixel of the photo lies that is being marked."""
    stage = page.locator(".stage").bounding_box()
    drawn = page.locator(".stage svg").get_attribute("viewBox")
    assert stage is not None
    assert drawn is not None
    scale = stage["width"] / float(drawn.split()[2])
    return stage["x"] + scale * x, stage["y"] + scale * y


def drag(page: "Page", box: Box) -> None:
    """Draw a box, in the photo's pixels, by mouse."""
    page.mouse.move(*on_screen(page, *box[:2]))
    page.mouse.down()
    page.mouse.move(*on_screen(page, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    page.mouse.move(*on_screen(page, *box[2:]))
    page.mouse.up()


def drag_by_finger(page: "Page", box: Box) -> None:
    """Draw a box by touch; `drag` says how it is given."""
    session = page.context.new_cdp_session(page)
    corners = [on_screen(page, *box[:2]), on_screen(page, *box[2:])]
    for kind, (x, y) in zip(("touchStart", "touchMove"), corners, strict=True):
        points = [{"x": x, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def marked(page: "Page") -> Box:
    """The box in the address."""
    [text] = [part[4:] for part in page.url.split("&") if part.startswith("box=")]
    x0, y0, x1, y1 = map(int, text.split(","))
    return x0, y0, x1, y1


def answer_first(page: "Page", pattern: str, answer: "Callable[[Route], None]") -> None:
    """Answer the first request to such an address here; the server answers all later ones.

    `page.route(..., times=1)` would stop intercepting requests just when the page sends the next
    one, which then was sometimes never answered.
    """
    answered: list[str] = []

    def take(route: "Route") -> None:
        if answered:
            route.fallback()
        else:
            answered.append(route.request.url)
            answer(route)

    page.route(pattern, take)
