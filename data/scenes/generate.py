"""Makes the scenes benchmark: photos/, masks/, labels.json, and the credits for its drawings.

    python -m data.scenes.generate --pictures DIR                     # the test split
    python -m data.scenes.generate --pictures DIR --split validation
    python -m data.scenes.generate --pictures DIR --split train --out DIR

DIR is the folder that `training/prepare.sh` filled with pictures. The test and validation splits
use drawings that the bundled model never saw; the train split uses those that it was trained on.
Every backdrop is painted by `data/backdrops.py`, which training does not use. The same pictures and
seed give the same scenes.

Each class has a family of instances at each of three levels of difficulty:

- easy: different drawings of the class;
- medium: one drawing in the same colours, with other shares and another pattern;
- hard: one drawing in the same colours and shares, with another pattern.

Every target is shown in one query scene, where it is the only object of its class, and in two
gallery scenes, each with a look-alike: an instance of its family that is not a target.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.backdrops import PAINTERS
from data.scenes.painting import Palette, paint, random_palette, random_shares
from training import compositor, pictures
from training.compositor import Cutout, Scene, Style

HERE = Path(__file__).resolve().parent
LEVELS = ("easy", "medium", "hard")
SIZES = ((240, 180), (180, 240), (224, 224), (240, 160), (200, 240))
# Objects are not mirrored, because a mirrored pattern would be another instance.
STYLE = Style(
    light=0.5, perspective=0.5, rotation=0.2, flip=0.0, occlusion=0.15, degrade=0.35, shadow=0.3
)
# The size of an object as a share of the scene's. Gallery scenes have more objects.
QUERY_REACH, GALLERY_REACH = (0.45, 0.65), (0.4, 0.62)

# Packages whose licences allow their pictures to be distributed within scenes (see LICENSES.md).
# Others do not qualify: Tux Paint's pictures are GPL, OpenMoji's are share-alike.
SHIPPED = {
    "openclipart-png": "public domain (Open Clip Art Library)",
    "@iconify-json/noto": "Apache 2.0, Google (Noto Emoji)",
    "@iconify-json/noto-v1": "Apache 2.0, Google (Noto Emoji, first version)",
    "@iconify-json/fluent-emoji": "MIT, Microsoft (Fluent Emoji)",
    "@lobehub/fluent-emoji-3d": "MIT, Microsoft (Fluent Emoji)",
    "@iconify-json/twemoji": "CC BY 4.0, Twitter (Twemoji)",
    "@iconify-json/fxemoji": "Apache 2.0, Mozilla (FxEmojis)",
    "@iconify-json/emojione": "CC BY 4.0, JoyPixels (EmojiOne 2)",
}
# A class whose instances do not have one appearance.
LEFT_OUT = {"person"}


@dataclass(frozen=True)
class Amounts:
    """The size of a split: the number of classes, and of targets per class by level."""

    classes: int
    targets: dict[str, int]


AMOUNTS = {
    "test": Amounts(24, {"easy": 2, "medium": 3, "hard": 3}),
    "validation": Amounts(16, {"easy": 1, "medium": 2, "hard": 2}),
    "train": Amounts(24, {"easy": 2, "medium": 3, "hard": 3}),
}


class Drawings:
    """The cut-outs of a split by class, one of each design, in a fixed order.

    used: the names of the drawings that were taken, with the packages that they come from.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.by_class: dict[str, list[Cutout]] = {}
        self.used: dict[str, str] = {}
        self._origins: dict[str, str] = {}
        designs: set[str] = set()
        for source in pictures.find_cutouts(root):
            name, design = source.class_name, pictures.group_of(source.name)
            if source.split != split or source.origin not in SHIPPED or design in designs:
                continue
            cutout = None if name in LEFT_OUT | {None} else pictures.load_cutout(source, 200)
            if cutout is not None:
                designs.add(design)
                self._origins[source.name] = source.origin
                self.by_class.setdefault(str(name), []).append(cutout)

    def take(self, class_name: str, place: int, instance: str) -> Cutout:
        """A drawing of a class under the name of an instance. place: its number in the class."""
        drawing = self.by_class[class_name][place]
        self.used[drawing.instance] = self._origins[drawing.instance]
        return Cutout(instance, class_name, drawing.rgba)

    def others(self, rng: np.random.Generator, class_name: str) -> list[Cutout]:
        """Zero to two objects of other classes, none of which is an easy target."""
        names = [name for name in sorted(self.by_class) if name != class_name]
        count = int(rng.choice([0, 1, 2], p=[0.3, 0.5, 0.2]))
        picked = [names[int(rng.integers(len(names)))] for _ in range(count)]
        return [self.take(name, -1, f"other-{number}") for number, name in enumerate(picked, 1)]


class Family:
    """The instances of one class at one level. targets: how many of them are searched for."""

    def __init__(
        self,
        rng: np.random.Generator,
        drawings: Drawings,
        class_name: str,
        level: str,
        targets: int,
    ) -> None:
        self.rng, self.drawings, self.class_name, self.level = rng, drawings, class_name, level
        self.palette = random_palette(rng)
        self.count = 0
        self.targets = [
            self._drawn(number) if level == "easy" else self._painted() for number in range(targets)
        ]

    def look_alike(self) -> Cutout:
        """An instance that is not a target: another drawing, or a newly painted one."""
        if self.level != "easy":
            return self._painted()
        drawings = len(self.drawings.by_class[self.class_name])
        return self._drawn(int(self.rng.integers(len(self.targets), drawings)))

    def _name(self, number: int) -> str:
        return f"{self.class_name.replace(' ', '-')}-{self.level}-{number}"

    def _drawn(self, place: int) -> Cutout:
        return self.drawings.take(self.class_name, place, self._name(place + 1))

    def _painted(self) -> Cutout:
        self.count += 1
        palette = self.palette
        if self.level == "medium":
            palette = Palette(palette.colours, random_shares(self.rng))
        name = self._name(self.count)
        return paint(self.rng, self.drawings.take(self.class_name, 0, name), palette, name)


def compose(rng: np.random.Generator, chosen: list[Cutout], reach: tuple[float, float]) -> Scene:
    """A scene in which the first two of the chosen objects cover more than 2 % each."""
    while True:
        size = SIZES[int(rng.integers(len(SIZES)))]
        backdrop = PAINTERS[int(rng.integers(len(PAINTERS)))](rng, size)
        placements = compositor.scatter(rng, chosen, size, STYLE, reach)
        scene = compositor.compose(rng, backdrop, placements[::-1], STYLE)
        seen = {item.instance: int(item.mask.sum()) for item in scene.objects}
        if all(seen[cutout.instance] > 0.02 * size[0] * size[1] for cutout in chosen[:2]):
            return scene


class Writer:
    """Writes scenes into a folder, and collects their labels."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.labels: dict[str, list[dict[str, object]]] = {"queries": [], "gallery": []}
        for folder in ("photos", "masks"):
            shutil.rmtree(out / folder, ignore_errors=True)
            (out / folder).mkdir(parents=True)

    def add(self, kind: str, name: str, scene: Scene, names: list[str], **facts: object) -> None:
        """Write a scene and its labels; the mask has the objects of `names` as 1, 2, ..."""
        mask = np.zeros(scene.image.shape[:2], np.uint8)
        by_name = {item.instance: item for item in scene.objects}
        for number, instance in enumerate(names, 1):
            mask[by_name[instance].mask] = number
        photo, cover = f"photos/{name}.jpg", f"masks/{name}.png"
        Image.fromarray(scene.image).save(self.out / photo, quality=75)
        palette = Image.fromarray(mask, "P")
        palette.putpalette([0, 0, 0, 230, 60, 60, 60, 160, 230, 240, 200, 60, 120, 200, 90])
        palette.save(self.out / cover)
        self.labels[kind].append({"photo": photo, "mask": cover, **facts})

    def finish(self) -> None:
        """Write labels.json, with one line per scene."""
        lists = []
        for kind, entries in self.labels.items():
            lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
            lists.append(f' "{kind}": [\n{lines}\n ]')
        text = "{\n" + ",\n".join(lists) + "\n}\n"
        (self.out / "labels.json").write_text(text, encoding="utf-8")


def write_licences(file: Path, used: dict[str, str]) -> None:
    """Write the credits for the drawings. used: their packages by name."""
    lines = [
        "# Licences of the scenes",
        "",
        "The photos in `photos/` are composed by `data/scenes/generate.py` on backdrops painted by",
        "`data/backdrops.py`. Their objects are the drawings below, warped, lit anew, and many of",
        "them painted anew. Each photo may be used under the licences of the drawings in it.",
        "",
        "| package | licence | drawings |",
        "|---|---|---|",
    ]
    for package, licence in SHIPPED.items():
        names = sorted(name.partition("/")[2] for name, origin in used.items() if origin == package)
        if names:
            lines.append(f"| {package} | {licence} | {', '.join(names)} |")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the scenes benchmark.")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--split", choices=sorted(AMOUNTS), default="test")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=11)
    given = parser.parse_args()
    out = given.out or (HERE if given.split == "test" else HERE / given.split)
    amounts = AMOUNTS[given.split]
    drawings = Drawings(given.pictures, given.split)
    counts = {name: len(cutouts) for name, cutouts in drawings.by_class.items()}
    enough = max(amounts.targets["easy"] + 1, 2)
    fit = sorted(name for name, count in counts.items() if count >= enough)
    classes = sorted(sorted(fit, key=lambda name: -counts[name])[: amounts.classes])
    rng = np.random.default_rng(given.seed)
    writer = Writer(out)
    gallery: list[tuple[Scene, list[Cutout]]] = []
    for class_name in classes:
        for level in LEVELS:
            family = Family(rng, drawings, class_name, level, amounts.targets[level])
            for target in family.targets:
                alone = [target, *drawings.others(rng, class_name)]
                scene = compose(rng, alone, QUERY_REACH)
                facts = {"level": level, "class": class_name, "instance": target.instance}
                writer.add("queries", f"query-{target.instance}", scene, [target.instance], **facts)
                for _ in range(2):
                    crowd = [target, family.look_alike(), *drawings.others(rng, class_name)]
                    gallery.append((compose(rng, crowd, GALLERY_REACH), crowd))
    for number, place in enumerate(rng.permutation(len(gallery)), 1):
        scene, crowd = gallery[int(place)]
        objects = [{"instance": item.instance, "class": item.class_name} for item in crowd]
        names = [item.instance for item in crowd]
        writer.add("gallery", f"{number:03d}", scene, names, objects=objects)
    writer.finish()
    write_licences(out / "LICENSES.md", drawings.used)
    print(f"{len(classes)} classes: {', '.join(classes)}")


if __name__ == "__main__":
    main()
