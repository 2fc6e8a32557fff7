"""The page of recurring objects: a picture of each, and of all photos that show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from features.errors import WaldoError
from features.photo import load_photo
from search.commands.pages.rendering import Picture, render, write_html
from search.recurring.recurrence import ObjectPhoto, RecurringObject

# The side of a cover and of a small picture, in pixels, and the part of a box that is shown around
# it on each side.
_COVER = 320
_SMALL = 96
_AROUND = 0.15
# Small pictures of an object; further photos are counted.
_MOST_SMALL = 11


@dataclass(frozen=True)
class _Card:
    """One object. cover, small: its photos with their pictures, None where a photo is gone. more:
    how many further photos it has.
    """

    found: RecurringObject
    cover: tuple[ObjectPhoto, Picture | None]
    small: list[tuple[ObjectPhoto, Picture | None]]
    more: int


def write_objects_page(objects: Sequence[RecurringObject], path: Path) -> None:
    """Write the page as one file that needs no other; it links to the photos.

    Raises WaldoError where the file cannot be written.
    """
    cards = [_card(one) for one in objects]
    write_html(render("objects.html", title="What recurs", cards=cards), path)


def _card(found: RecurringObject) -> _Card:
    others = found.photos[1:]
    small = [(photo, _crop(photo, _SMALL)) for photo in others[:_MOST_SMALL]]
    return _Card(found, (found.cover, _crop(found.cover, _COVER)), small, len(others) - len(small))


def _crop(photo: ObjectPhoto, side: int) -> Picture | None:
    """A square around an object, as large as the photo allows; None where the photo is gone."""
    x0, y0, x1, y1 = photo.box
    try:
        loaded = load_photo(photo.record.path)
    except (WaldoError, OSError):
        return None
    half = (0.5 + _AROUND) * max(x1 - x0, y1 - y0)
    half = min(half, loaded.width / 2, loaded.height / 2)
    x = min(max((x0 + x1) / 2, half), loaded.width - half)
    y = min(max((y0 + y1) / 2, half), loaded.height - half)
    square = loaded.image.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
    return Picture.of(square.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
