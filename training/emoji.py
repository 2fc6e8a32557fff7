"""Draws the pictures of emoji sets, which are labelled objects for training scenes.

`prepare.sh` unpacks npm packages into DIRECTORY/<set>. A package of @iconify-json has the SVG
pictures of a set in one `icons.json`; @lobehub/fluent-emoji-3d has `assets/<code points>.webp`.
This writes one PNG for each picture of a thing, under the same name in every set:

    python -m training.emoji DIRECTORY OUT        OUT/<set>/<name>.png

The names, and the choice of pictures that show a thing, follow the set `noto`. Faces, gestures,
symbols, flags, views of places, most people, and the variants of a picture by skin tone or sex are
left out. Needs `resvg-py` (the optional dependencies "training").
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

SIDE = 192
NAMING_SET = "noto"

_THINGS = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")

# Pictures of other categories, or of single sets, that show things.
_ALSO_NAMES = (
    "acorn alien alien-monster apple armchair astronaut baby bandage-scissors beer-bottle "
    "beluga bicycle-helmet black-chess-bishop black-chess-king black-chess-knight "
    "black-chess-queen black-chess-rook blue-flag blue-heart bone boule-bread boy brain "
    "broken-heart cake calculator champignon-brown champignon-white child clam-shell-mobile "
    "clinical-thermometer coffee-grinder computer-keyboard construction-worker cook crocs "
    "desk-lamp detective diesel-locomotive doe drone ear electric-coffee-percolator eye farmer "
    "firefighter first-aid-bag first-aid-kit foot french-press gardening-gloves ghost girl "
    "glass-bottle goldfish green-heart guard half-orange-fruit hamburger "
    "hand-with-fingers-splayed hard-disk health-worker hot-water-bottle iceberg "
    "jar-with-blue-content jar-with-green-content jar-with-red-content latte-macchiato "
    "lawn-mower love-letter macaw mage man mechanical-arm mermaid milk-jug moka-pot "
    "motorbike-helmet mrs-claus nail-polish narwhal ninja nose note-pad old-man "
    "old-personal-computer old-woman oncoming-fire-engine pagoda pepper pepper-mill "
    "person-running person-walking pigeon pile-of-poo plastic-bottle police-officer pomegranate "
    "poppy porpoise portable-stereo prince princess raised-hand red-flag red-heart reusable-bag "
    "ringing-bell robot rubber-duck salt-mill santa-claus saw skier skull smartwatch sneaker "
    "sneaker-high snowboarder space-shuttle spouting-orca stamped-envelope submarine superhero "
    "tablet tape-cartridge tooth touch-tone-telephone town trash-bin triangular-flag trowel "
    "vr-headset washing-machine waving-hand wheelbarrow white-chess-bishop white-chess-king "
    "white-chess-knight white-chess-pawn white-chess-queen white-chess-rook woman yellow-heart "
)
_ALSO = frozenset(_ALSO_NAMES.split())

# Pictures in the categories of things that show none: views, signs, phases, repetitions.
_NOT_THINGS = re.compile(
    r"skin-tone|keycap|flag-|-suit$|(oclock|-thirty)$|cityscape|sunrise|sunset|night|milky|fog|"
    r"arrow|chart|speaker-|-speaker|control-|slider|level|musical-(note|score)|drop-of|"
    r"departure|arrival|mouse-trap|card-file|dividers|calendar-with|zzz|sparkles|dashing|"
    r"-face-with|with-slash|bookmark|vibration|link$|placard|elevator|x-ray|dna|bubbles|"
    r"identification|(in|out)box-tray|memo$|tray$|bus-stop|construction$|motorway|station$|"
    r"desert|national-park|camping|beach-with|stadium|railway-track|cyclone|water-wave|"
    r"globe-with|gibbous|quarter-moon|waning|new-moon|rainbow|comet|landslide|mirror-ball|"
    r"moon-viewing|white-cane|flower-playing|mahjong|joker|red-envelope|hot-springs|map-of|wedding|"
    r"wind-face|shooting-star|hamsa|nazar|carp-streamer|wind-chime|tanabata|thermometer-face|"
    r"microbe|paw-prints|pig-nose|fish-cake|horse-racing|pouring|knot$|front-facing-baby|"
    r"badminton-person|building-construction|houses|derelict|mountain-(rail|cable)|suspension|"
    r"aerial|roller-coaster|sun-behind|high-voltage|snow-capped|world-map|droplet|houses|"
    r"lightning$|with-rain$|with-snow$"
)
_KEPT = frozenset({"three-oclock", "ten-thirty", "bow-and-arrow"})

# Names that some sets give to a picture that has another name in `noto`.
_RENAMED = {
    "aubergine": "eggplant",
    "bactriancamel": "two-hump-camel",
    "basketballandhoop": "basketball",
    "bath": "bathtub",
    "beachumbrella": "umbrella-on-ground",
    "black-push-pin": "pushpin",
    "black-touch-tone-telephone": "touch-tone-telephone",
    "blackpushpin": "pushpin",
    "blackscissors": "scissors",
    "blacktelephone": "telephone",
    "boot": "womans-boot",
    "bouquet-of-flowers": "bouquet",
    "bouquetofflowers": "bouquet",
    "bull-horn": "megaphone",
    "bullhorn": "megaphone",
    "bunny": "rabbit-face",
    "bunnyside": "rabbit",
    "catside": "cat",
    "cellphone": "mobile-phone",
    "chilipepper": "hot-pepper",
    "clamshellmobile": "clam-shell-mobile",
    "daggerknife": "dagger",
    "dogside": "dog",
    "doveofpeace": "dove",
    "dragonhead": "dragon-face",
    "dragonside": "dragon",
    "dromedarycamel": "camel",
    "earofmaize": "ear-of-corn",
    "electrictorch": "flashlight",
    "europeancastle": "castle",
    "evergreen": "evergreen-tree",
    "fallingleaf": "fallen-leaf",
    "fatherchristmas": "santa-claus",
    "floppydisk2": "floppy-disk",
    "folder": "file-folder",
    "gem": "gem-stone",
    "hampster": "hamster",
    "heels": "high-heeled-shoe",
    "hocho": "kitchen-knife",
    "hourglass": "hourglass-done",
    "hourglassflowingsand": "hourglass-not-done",
    "housebuilding": "house",
    "housewithgarden": "house-with-garden",
    "izakayalantern": "red-paper-lantern",
    "keyboard": "computer-keyboard",
    "leftmagnifyingglass": "magnifying-glass-tilted-left",
    "leopardside": "leopard",
    "lock": "locked",
    "lower-left-pencil": "pencil",
    "lowerleftcrayon": "crayon",
    "lowerleftfountainpen": "fountain-pen",
    "lowerleftpaintbrush": "paintbrush",
    "lowerleftpen": "pen",
    "lowerleftpencil": "pencil",
    "mansshirt": "t-shirt",
    "mensrunner": "running-shoe",
    "mensshoe": "mans-shoe",
    "mouseside": "mouse",
    "moyai": "moai",
    "notebookdecorativecover": "notebook-with-decorative-cover",
    "oldpersonalcomputer": "old-personal-computer",
    "one-button-mouse": "computer-mouse",
    "onebuttonmouse": "computer-mouse",
    "openlock": "unlocked",
    "openmailboxraised": "open-mailbox-with-raised-flag",
    "optical-disc-icon": "optical-disk",
    "opticaldisc": "optical-disk",
    "personalcomputer": "laptop",
    "phoenix-bird": "phoenix",
    "piata": "pinata",
    "pigside": "pig",
    "pinkwallet": "purse",
    "pocket-calculator": "calculator",
    "poo": "pile-of-poo",
    "portablestereo": "portable-stereo",
    "present": "wrapped-gift",
    "racecar": "racing-car",
    "rightmagnifyingglass": "magnifying-glass-tilted-right",
    "ringingbell": "ringing-bell",
    "rowboat": "canoe",
    "sandals": "womans-sandal",
    "schoolsatchel": "backpack",
    "sheep": "ewe",
    "sliceofpizza": "pizza",
    "spurtingwhale": "spouting-whale",
    "steamlocomotive": "locomotive",
    "studiomic": "studio-microphone",
    "tennisball": "tennis",
    "threebuttonmouse": "computer-mouse",
    "tie": "necktie",
    "tigerside": "tiger",
    "toykotower": "tokyo-tower",
    "videocasette": "videocassette",
    "white-touch-tone-phone": "touch-tone-telephone",
    "wired-keyboard": "computer-keyboard",
    "wiredkeyboard": "computer-keyboard",
    "womansshirt": "womans-clothes",
}


class CommonNames:
    """The names of things in the set `noto`, by the names and code points that other sets use."""

    def __init__(self, package: Path) -> None:
        icons = read_json(package / "icons.json")
        categories = read_json(package / "metadata.json")["categories"]
        aliases = {name: str(alias["parent"]) for name, alias in icons.get("aliases", {}).items()}
        self._names = {name: name for name in icons["icons"]} | aliases
        self._squeezed = {name.replace("-", ""): to for name, to in self._names.items()}
        self._things = {name for category in _THINGS for name in categories.get(category, [])}
        self._characters = {
            _bare(points): name for points, name in read_json(package / "chars.json").items()
        }

    def of(self, name: str) -> str:
        """The common name of a picture, by its name in any set."""
        name = _RENAMED.get(name, name)
        return self._names.get(name) or self._squeezed.get(name.replace("-", "")) or name

    def of_characters(self, points: str) -> str:
        """The common name of code points such as "1f415-200d-1f9ba"; "" where they have none."""
        return self.of(self._characters.get(_bare(points), ""))

    def is_thing(self, name: str) -> bool:
        """Whether the picture of a common name shows a thing, which can be an object in a scene."""
        if name in _KEPT or name in _ALSO:
            return True
        return name in self._things and not _NOT_THINGS.search(name)


def _bare(points: str) -> str:
    """Code points without the variation selector, which only some sets write."""
    return "-".join(point for point in points.lower().split("-") if point != "fe0f")


def read_json(file: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def svg_of(icons: dict[str, Any], name: str) -> str:
    """The SVG document of a picture. icons: the content of the set's `icons.json`."""
    icon = icons["icons"][name]
    width, height, left, top = (
        icon.get(key, icons.get(key, default))
        for key, default in (("width", 16), ("height", 16), ("left", 0), ("top", 0))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">'
        f"{icon['body']}</svg>"
    )


def draw_icons(package: Path, names: CommonNames, out: Path) -> int:
    """Draw the things of an @iconify-json package into a directory; returns how many."""
    import resvg_py

    icons = read_json(package / "icons.json")
    drawn: set[str] = set()
    # Pictures that keep their name come first, so that no renamed picture takes their place.
    for name in sorted(icons["icons"], key=lambda name: (names.of(name) != name, name)):
        common = names.of(name)
        if common in drawn or icons["icons"][name].get("hidden") or not names.is_thing(common):
            continue
        drawn.add(common)
        file = out / f"{common}.png"
        if not file.exists():
            svg = svg_of(icons, name)
            file.write_bytes(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE)))
    return len(drawn)


def convert_pictures(package: Path, names: CommonNames, out: Path) -> int:
    """Convert the things of a package of `assets/<code points>.webp`; returns how many."""
    drawn: set[str] = set()
    for path in sorted((package / "assets").glob("*.webp")):
        common = names.of_characters(path.stem)
        if common in drawn or not names.is_thing(common):
            continue
        drawn.add(common)
        file = out / f"{common}.png"
        if not file.exists():
            with Image.open(path) as picture:
                size = (SIDE, SIDE)
                picture.convert("RGBA").resize(size, Image.Resampling.LANCZOS).save(file)
    return len(drawn)


def draw_sets(packages: Path, out: Path, draw_set: Callable[[Path, Path], int]) -> None:
    """Draw every set below a directory into its own folder below `out`, and print the counts.

    draw_set: takes an unpacked package and the folder of the set; returns how many it drew.
    """
    for package in sorted(path for path in packages.iterdir() if path.is_dir()):
        folder = out / package.name
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{package.name}: {draw_set(package, folder)} pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("packages", type=Path, help="unpacked npm packages, one folder per set")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    names = CommonNames(given.packages / NAMING_SET)

    def draw_set(package: Path, out: Path) -> int:
        write = draw_icons if (package / "icons.json").exists() else convert_pictures
        return write(package, names, out)

    draw_sets(given.packages, given.out, draw_set)


if __name__ == "__main__":
    main()
