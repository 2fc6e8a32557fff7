"""The pictures that training scenes are made of: finding, loading and dividing them into splits.

`prepare.sh` fills two directories. One has cut-outs with transparency (Debian packages
`openclipart-png` and `tuxpaint-stamps-default`, sets of emoji and icons from npm); the other has
photos, textures and patterns for backgrounds (packages of wallpapers and games). All icons are for
training. Every other picture belongs to "train", "validation" or "test" by a digest of its name, so
no list has to be kept, and a drawing and its black-and-white version stay together.
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

# Folders of almost identical or empty shapes, which are of no use as objects without a class.
_DULL = re.compile(
    r"shapes/(stars|jigsaw|arrows|flowchart)|gradients|led/|semaphore|cards/(white|simple|bordered)"
    r"|alphabets|symbols/(math|money)|etiquette-theme|unsorted/duplicates|buttons|map_symbols"
    r"|pantyhose|body_part|brasil_map|knot_|stickmen"
)
_MOST_UNNAMED_PER_FOLDER = 60

# The npm package of each set of emoji.
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
# The npm package of each set of icons (`icons.py`).
_ICON_SETS = (
    "boxicons fa6-solid game-icons hugeicons icon-park iconoir lucide lucide-lab maki "
    "material-symbols mdi mingcute ph picon ri solar streamline-color streamline-cyber-color "
    "streamline-emojis streamline-freehand-color streamline-ultimate-color tabler temaki uil"
)
ICON_PACKAGES = {name: f"@iconify-json/{name}" for name in _ICON_SETS.split()}
# The packages by set, by the folder into which `prepare.sh` draws them.
_DRAWN_PACKAGES = {"emoji": EMOJI_PACKAGES, "icons": ICON_PACKAGES}
# Sets that draw many things as another set does, of which they are another version.
_SAME_DESIGN = {
    "noto-v1": "noto",
    "fluent-emoji-3d": "fluent-emoji",
    "emojione-v1": "emojione",
}


@dataclass(frozen=True)
class Source:
    """The file of a cut-out. name: unique. origin: the package that it comes from."""

    name: str
    class_name: str | None
    path: Path
    origin: str
    split: str


# Not for training, whatever their digest, because the sample collection needs enough drawings of
# each of its classes.
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
    """The name without the parts that differ between versions of one drawing.

    These are numbers at the end, and the marks of black-and-white versions. For emoji, they are the
    set among those of one designer, the colour, and left or right.

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
    """The split of a name, by its digest: train (80 %), validation or test (10 % each).

    All icons are in train.
    """
    if name.partition("/")[0] in ICON_PACKAGES:
        return "train"
    group = group_of(name)
    if group in {group_of(f"openclipart/{held}") for held in _HELD_OUT}:
        return "test"
    digit = hashlib.sha256(group.encode()).digest()[0] % 10
    return {0: "validation", 1: "test"}.get(digit, "train")


def find_cutouts(root: Path) -> list[Source]:
    """All usable cut-outs below a directory, in a fixed order, each file name once."""
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
        # The same picture lies in several folders, under one name.
        name = f"{origin.split('-')[0]}/{path.stem}"
        if name in found or _DULL.search(place) or re.search(r"^knot_|_mirror", path.stem):
            continue
        class_name = class_of(text) or class_of(path.stem)
        if re.search("icons|symbols|aiga|roadsigns|clothing_protection", place):
            class_name = None
        if class_name is None:
            unnamed[str(path.parent)] += 1
            if unnamed[str(path.parent)] > _MOST_UNNAMED_PER_FOLDER:
                continue
        found[name] = Source(name, class_name, path, origin, split_of(name))
    return list(found.values())


def _description(path: Path) -> str:
    """The first line of the description of a Tux Paint stamp, which is English."""
    note = path.with_suffix(".txt")
    if not note.exists():
        return path.stem
    return note.read_text(encoding="utf-8", errors="replace").partition("\n")[0]


def load_cutout(source: Source, side: int) -> Cutout | None:
    """Load a cut-out, cropped to its visible part, its longer side at most `side` pixels.

    None for a picture that cannot be read, is very small, very large or very long, or is almost
    transparent.
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
    """Names and paths of the background pictures below a directory, in a fixed order."""
    skip = re.compile("thumb|plymouth|screenshot|preview|grub|/doc/|icons|gui/|karts|models|skins")
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root).as_posix()
        known = path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
        if known and not skip.search(place) and path.is_file() and path.stat().st_size > 60_000:
            yield place, path


def load_background(path: Path, side: int) -> Pixels | None:
    """Load a background, its shorter side at most `side` pixels, uint8 (height, width, 3).

    None for a normal map, and for a picture that cannot be read, has transparent parts, is very
    small or very long, or has hardly any contrast.
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
