"""Figures of photos as a page, or as one picture."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from features.errors import WaldoError
from search.commands.pages.rendering import Picture, render, write_html
from search.presentation.feature_pictures import PhotoFigures

# Of one picture: the space around figures, the height of a caption and of its letters, in pixels.
_SPACE = 16
_CAPTION = 28
_LETTERS = 20


def write_figures(shown: Sequence[PhotoFigures], path: Path) -> None:
    """Write a row of figures for each photo.

    path: ends in .html, for a page that needs no other file, or in .png. Raises WaldoError where
    the file cannot be written.
    """
    if path.suffix.lower() == ".html":
        rows = [
            (one.path, [(each.caption, Picture.of(each.picture)) for each in one.figures])
            for one in shown
        ]
        write_html(render("features.html", title="What the model sees", rows=rows), path, "--out")
        return
    try:
        _sheet(shown).save(path, "PNG")
    except OSError as error:
        raise WaldoError(f"--out {path}: cannot be written ({error.strerror or error})") from None


def _sheet(shown: Sequence[PhotoFigures]) -> Image.Image:
    """All figures in one picture: photos below one another, each with its figures side by side."""
    columns = max(len(one.figures) for one in shown)
    wide = max(each.picture.width for one in shown for each in one.figures)
    heights = [max(each.picture.height for each in one.figures) for one in shown]
    width = _SPACE + columns * (wide + _SPACE)
    height = _SPACE + sum(tall + _CAPTION + _SPACE for tall in heights)
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTERS)
    y = _SPACE
    for one, tall in zip(shown, heights, strict=True):
        for column, each in enumerate(one.figures):
            x = _SPACE + column * (wide + _SPACE)
            sheet.paste(each.picture, (x, y))
            draw.text((x, y + tall + 4), _shortened(each.caption, font, wide), "black", font)
        y += tall + _CAPTION + _SPACE
    return sheet


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, most: int) -> str:
    """The beginning of a caption that is at most so many pixels wide."""
    # File names need not be valid Unicode.
    text = text.encode(errors="replace").decode()
    if font.getlength(text) <= most:
        return text
    while text and font.getlength(f"{text}…") > most:
        text = text[:-1]
    return f"{text}…"
