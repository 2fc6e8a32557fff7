"""Finding, naming and dividing the pictures that training scenes are made of.

Two directories, as `prepare.sh` fills them: cut-outs with transparency (Debian packages
`openclipart-png` and `tuxpaint-stamps-default`, sets of emoji and icons from npm), and photos,
textures and patterns for backgrounds (wallpaper and game packages). Icons are all for training;
every other picture belongs to "train", "validation" or "test" by a digest of its name, so that
nobody has to keep a list, and a drawing and its black-and-white twin stay together.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.compositor import Cutout, Pixels
from training.names import class_of

# Folders of near-identical or empty shapes; as objects without a class they would only be noise.
_DULL = re.compile(
    r"shapes/(stars|jigsaw|arrows|flowchart)|gradients|led/|semaphore|cards/(white|simple|bordered)"
    r"|alphabets|symbols/(math|money)|etiquette-theme|unsorted/duplicates|buttons|map_symbols"
    r"|pantyhose|body_part|brasil_map|knot_|stickmen"
)
_MOST_UNNAMED_A_FOLDER = 60

# The npm package each set of emoji came from.
EMOJI_PACKAGES = {
    "noto": "@iconify-json/noto",
    "noto-v1": "@iconify-json/noto-v1",
    "fluent-emoji": "@iconify-json/fluent-emoji",
    "fluent-emoji-3d": "@lobehub/fluent-emoji-3d",
    "twemoji": "@iconify-json/twemoji",
    "openmoji": "@iconify-json/openmoji",
    "fxemoji": "@iconify-json/fxemoji",
    "emojione": "@iconify-json/emojione",
    "emojione-v1": "@iconify-json/emojione-v1",
}
# The same for sets of icons (`icons.py`), which are all for training.
_ICON_SETS = (
    "boxicons fa6-solid game-icons hugeicons icon-park iconoir lucide lucide-lab maki "
    "material-symbols mdi mingcute ph picon ri solar streamline-color streamline-cyber-color "
    "streamline-emojis streamline-freehand-color streamline-ultimate-color tabler temaki uil"
)
ICON_PACKAGES = {name: f"@iconify-json/{name}" for name in _ICON_SETS.split()}
# By the folder that `prepare.sh` draws their pictures into.
_DRAWN_PACKAGES = {"emoji": EMOJI_PACKAGES, "icons": ICON_PACKAGES}
# Sets that draw many things alike, as older or plastic versions of another set's.
_SAME_DESIGN = {
    "noto-v1": "noto",
    "fluent-emoji-3d": "fluent-emoji",
    "emojione-v1": "emojione",
}


@dataclass(frozen=True)
class Source:
    """Where a cut-out lies. name is unique; origin is the package it came from."""

    name: str
    class_name: str | None
    path: Path
    origin: str
    split: str


# Kept from training whatever their digest says, so that the sample collection has enough of each
# of its classes.
_HELD_OUT = (
    "dog_03_drawn_with_strai",
    "dog_05_drawn_with_strai",
    "dog_06_drawn_with_strai",
    "gatto_cat_architetto_fra",
    "mug",
    "zielony_kubek_herbaty_",
    "cup_rollandin_francesco_",
    "teacup_ganson",
    "dodge_neon_green_ganson",
    "dodge_neon_pink_ganson",
    "toyota_land_cruiser_ganson",
    "car",
    "flamand_jean-victor_b",
    "puffin-md",
    "colombo",
    "pennuto",
    "pescetto",
    "pescetto_arancione_archi",
    "brown_fish",
)


def group_of(name: str) -> str:
    """The name without what tells a drawing's versions apart: numbers at its end, black-and-white.

    For emoji: which of a designer's sets it is in, its colour, and the side it leans to.

    >>> group_of("openclipart/cone1_bw_ganson"), group_of("openclipart/home12")
    ('openclipart/cone1_ganson', 'openclipart/home')
    >>> group_of("noto-v1/green-book"), group_of("noto/orange-book")
    ('noto/book', 'noto/book')
    """
    origin, _, title = name.lower().partition("/")
    if origin in EMOJI_PACKAGES:
        title = re.sub(r"(-tilted)?-(left|right)$|-(not-)?done$|\d+$", "", title)
        title = re.sub(r"^(red|green|blue|yellow|orange|black|white)-", "", title)
        return f"{_SAME_DESIGN.get(origin, origin)}/{title}"
    plain = re.sub(r"_(bw|b_amp_w_)(?=_|$)", "", name.lower())
    plain = re.sub(r"victor_b\w*", "victor_b", plain)
    return re.sub(r"(?<=[a-z_])[\d_]*\d$", "", plain).rstrip("_") or plain


def split_of(name: str) -> str:
    """Which split a name is in: train (80 %), validation or test (10 % each), by its digest.

    Icons are all in train.
    """
    if name.partition("/")[0] in ICON_PACKAGES:
        return "train"
    group = group_of(name)
    if group in {group_of(f"openclipart/{held}") for held in _HELD_OUT}:
        return "test"
    digit = hashlib.sha256(group.encode()).digest()[0] % 10
    return {0: "validation", 1: "test"}.get(digit, "train")


def find_cutouts(root: Path) -> list[Source]:
    """All usable cut-outs under a directory, in a fixed order, each file name once."""
    found: dict[str, Source] = {}
    unnamed: Counter[str] = Counter()
    for path in sorted(root.rglob("*.png")):
        place = path.relative_to(root).as_posix()
        drawn = _DRAWN_PACKAGES.get(path.parent.parent.name, {})
        if path.parent.name in drawn:
            name, origin = f"{path.parent.name}/{path.stem}", drawn[path.parent.name]
            found[name] = Source(name, class_of(path.stem), path, origin, split_of(name))
            continue
        if "openclipart" in place:
            origin, text = "openclipart-png", path.stem
        elif "tuxpaint/stamps" in place:
            origin, text = "tuxpaint-stamps-default", _description(path)
        else:
            continue
        # the same picture is filed in several folders, under one name
        name = f"{origin.split('-')[0]}/{path.stem}"
        if name in found or _DULL.search(place) or re.search(r"^knot_|_mirror", path.stem):
            continue
        class_name = class_of(text) or class_of(path.stem)
        if re.search("icons|symbols|aiga|roadsigns|clothing_protection", place):
            class_name = None
        if class_name is None:
            unnamed[str(path.parent)] += 1
            if unnamed[str(path.parent)] > _MOST_UNNAMED_A_FOLDER:
                continue
        found[name] = Source(name, class_name, path, origin, split_of(name))
    return list(found.values())


def _description(path: Path) -> str:
    """The first line of a Tux Paint stamp's description, its English one."""
    note = path.with_suffix(".txt")
    if not note.exists():
        return path.stem
    return note.read_text(encoding="utf-8", errors="replace").partition("\n")[0]


def load_cutout(source: Source, side: int) -> Cutout | None:
    """Loads a cut-out, cropped to what is visible, its longer side at most `side` pixels.

    None for what is no object: unreadable, without transparency, tiny, or nearly transparent.
    """
    try:
        with Image.open(source.path) as file:
            file.draft("RGB", (side * 2, side * 2))
            picture = file.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    alpha = np.asarray(picture)[:, :, 3]
    rows, columns = np.flatnonzero(alpha.max(axis=1) > 40), np.flatnonzero(alpha.max(axis=0) > 40)
    if len(rows) < 24 or len(columns) < 24 or max(picture.size) > 6000:
        return None
    frame = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    picture = picture.crop(frame)
    shrink = side / max(picture.size)
    if shrink < 1:
        size = (max(2, round(picture.width * shrink)), max(2, round(picture.height * shrink)))
        picture = picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    rgba = np.asarray(picture)
    cover = float((rgba[:, :, 3] > 127).mean())
    elongated = max(picture.size) > 6 * min(picture.size)
    if cover < 0.12 or elongated:
        return None
    return Cutout(source.name, source.class_name, rgba)


def find_backgrounds(root: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of background pictures under a directory, in a fixed order."""
    skip = re.compile("thumb|plymouth|screenshot|preview|grub|/doc/|icons|gui/|karts|models|skins")
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root).as_posix()
        known = path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
        if known and not skip.search(place) and path.is_file() and path.stat().st_size > 60_000:
            yield place, path


def load_background(path: Path, side: int) -> Pixels | None:
    """Loads a background, its shorter side `side` pixels; None for normal maps and flat pictures.

    Returns uint8 (height, width, 3).
    """
    try:
        with Image.open(path) as file:
            file.draft("RGB", (side * 2, side * 2))
            if "A" in file.getbands() and np.asarray(file.getchannel("A")).min() < 128:
                return None
            picture = file.convert("RGB")
    except (OSError, ValueError):
        return None
    if min(picture.size) < 128 or max(picture.size) > 3 * min(picture.size):
        return None
    shrink = side / min(picture.size)
    if shrink < 1:
        size = (max(2, round(picture.width * shrink)), max(2, round(picture.height * shrink)))
        picture = picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    pixels = np.asarray(picture)
    mean = pixels.reshape(-1, 3).mean(axis=0)
    is_normal_map = mean[2] > 200 and abs(mean[0] - 128) < 25 and abs(mean[1] - 128) < 25
    if is_normal_map or float(pixels.std()) < 8:
        return None
    return pixels
