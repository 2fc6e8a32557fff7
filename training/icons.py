"""Draws the pictures of icon sets as stickers, which are labelled objects for training scenes.

`prepare.sh` unpacks npm packages of @iconify-json into DIRECTORY/<set>. This writes one PNG for
each icon of a thing that has a class (`names.py`):

    python -m training.icons DIRECTORY OUT        OUT/<set>/<name>.png

Most icons have one colour, and are lines or a silhouette with gaps. They become opaque: the lines
get one colour, and the area inside them another; both are random, seeded by the picture's name.
Sets in colour use one palette, by which a model could recognise the set, so their hues are rotated.
Icons teach shapes. Needs `resvg-py` (the optional dependencies "training").
"""

from __future__ import annotations

import argparse
import colorsys
import io
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.emoji import SIDE, draw_sets, read_json, svg_of
from training.names import class_of

_MOST_OF_A_CLASS = 5

# Words in an icon's name for its style. Filled styles are preferred.
_FILLED = frozenset({"fill", "filled", "bold", "solid"})
_STYLE_WORDS = (
    "fill filled bold solid outline outlined line linear duotone twotone rounded round sharp alt "
    "thin light regular broken variant flat color flex plump"
)
_STYLES = frozenset(_STYLE_WORDS.split())
# Words that turn the picture of a thing into the sign for an action, such as heart-add.
_SIGN_WORDS = (
    "account add adjust alert app apps arrow arrows badge ban board brand browser cancel chart "
    "check checked circle clear cloud code cog connection cross dash data database delete "
    "disabled document dollar dot down download edit exclamation export favorite file files format "
    "git grid half hand hands import left link list lock logo map mark marker minus mode music "
    "network note off open pan path pause people percent person photo pin play plus question "
    "rating refresh remove right scale screen search settings share sign slash sound square star "
    "status stroke sync table tag text track up upload user users video view warning wifi window x"
)
_SIGNS = frozenset(_SIGN_WORDS.split())
# Icons of these names show something else in most sets: a company's logo, a grid, ...
_MISLEADING_NAMES = "apple bat pan pie plate scale script seal shell sign star table window"
_MISLEADING = frozenset(_MISLEADING_NAMES.split())


def phrase_of(icon: str) -> str | None:
    """The thing that an icon shows, in one or two words of its name; None where it shows none.

    >>> phrase_of("dog-side-outline"), phrase_of("trash-bin-2-bold"), phrase_of("mouse")
    ('dog-side', 'trash-bin', 'computer-mouse')
    >>> phrase_of("chart-pie"), phrase_of("file-text"), phrase_of("table")
    (None, None, None)
    """
    words = [w for w in icon.split("-") if w not in _STYLES and not w.isdigit()]
    phrase = "-".join(words)
    if phrase in _MISLEADING or not 1 <= len(words) <= 2 or class_of(phrase) is None:
        return None
    if len(words) == 2 and not _SIGNS.isdisjoint(words):
        return None
    return "computer-mouse" if phrase == "mouse" else phrase


def choose(icons: list[str]) -> dict[str, str]:
    """The icons of a set to draw, by phrase: one for each phrase, a few for each class."""
    named: dict[str, list[str]] = {}
    for icon in icons:
        phrase = phrase_of(icon)
        if phrase is not None:
            named.setdefault(phrase, []).append(icon)
    chosen: dict[str, str] = {}
    count: Counter[str | None] = Counter()
    for phrase in sorted(named, key=lambda phrase: (phrase.count("-"), phrase)):
        count[class_of(phrase)] += 1
        if count[class_of(phrase)] <= _MOST_OF_A_CLASS:
            chosen[phrase] = min(named[phrase], key=_style)
    return chosen


def _style(icon: str) -> tuple[bool, int, str]:
    """A key that sorts filled styles first, then shorter names."""
    return _FILLED.isdisjoint(icon.split("-")), len(icon), icon


def draw(svg: str, in_colour: bool, name: str) -> NDArray[np.uint8]:
    """An icon as a sticker, uint8 RGBA (SIDE, SIDE, 4). The name seeds the colours."""
    import resvg_py

    drawn = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))
    with Image.open(io.BytesIO(drawn)) as picture:
        rgba = np.asarray(picture.convert("RGBA"))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    ink, paper = _colours(rng)
    cover = rgba[:, :, 3:].astype(np.float64) / 255
    if in_colour:
        turned = Image.fromarray(rgba[:, :, :3]).convert("HSV")
        hue, saturation, value = (np.asarray(band) for band in turned.split())
        hue = hue + np.uint8(rng.integers(256))
        bands = [Image.fromarray(band) for band in (hue, saturation, value)]
        rgb = np.asarray(Image.merge("HSV", bands).convert("RGB")).astype(np.float64) / 255
    else:
        rgb = np.broadcast_to(ink, (*cover.shape[:2], 3))
    enclosed = ndimage.binary_fill_holes(cover[:, :, 0] > 0.4)
    inside = ndimage.gaussian_filter(enclosed.astype(np.float64), 0.7)[:, :, None]
    colours = rgb * cover + paper * (1 - cover)
    return np.dstack([colours * 255, np.maximum(cover, inside) * 255]).round().astype(np.uint8)


def _colours(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two colours of different lightness, RGB in 0..1."""
    dark = colorsys.hls_to_rgb(rng.random(), rng.uniform(0.05, 0.4), rng.uniform(0.2, 1))
    bright = colorsys.hls_to_rgb(rng.random(), rng.uniform(0.55, 0.95), rng.uniform(0.2, 1))
    pair = np.array([dark, bright])
    if rng.random() < 0.5:
        pair = pair[::-1]
    return pair[0], pair[1]


def draw_set(package: Path, out: Path) -> int:
    """Draw the things of an unpacked @iconify-json package into a directory; returns how many."""
    icons = read_json(package / "icons.json")
    about = read_json(package / "info.json")
    shown = [name for name, icon in icons["icons"].items() if not icon.get("hidden")]
    chosen = choose(shown)
    for phrase, icon in chosen.items():
        file = out / f"{phrase}.png"
        if not file.exists():
            name = f"{package.name}/{phrase}"
            Image.fromarray(draw(svg_of(icons, icon), bool(about["palette"]), name)).save(file)
    return len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("packages", type=Path, help="unpacked npm packages, one folder per set")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    draw_sets(given.packages, given.out, draw_set)


if __name__ == "__main__":
    main()
