"""Makes the sample collection of `make demo`: photos/, query/, labels.json, LICENSES.md.

    python -m data.demo.generate --pictures DIR

DIR is the folder into which `training/prepare.sh` unpacks Debian's `openclipart-png`. All objects
are drawings in the public domain that the bundled model never saw in training; all backdrops are
painted by `data/backdrops.py`. The same seed and pictures give the same collection.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from data.backdrops import PAINTERS
from training import compositor, pictures
from training.compositor import Cutout, Scene, Style

HERE = Path(__file__).resolve().parent

# The openclipart file names by class; the instances are named dog-1, dog-2, ... in this order.
OBJECTS = {
    "dog": ("dog_03_drawn_with_strai_01", "dog_05_drawn_with_strai_01",
            "dog_01_drawn_with_strai_01", "dog_06_drawn_with_strai_01"),
    "cat": ("gatto_cat_architetto_fra_01", "gatto_cat_architetto_fra_02",
            "gatto_cat_architetto_fra_03", "gatto_cat_architetto_fra_04"),
    "cup": ("mug", "zielony_kubek_herbaty_-_01", "cup_rollandin_francesco_"),
    "car": ("car_jamin_ellis_", "dodge_neon_green_ganson", "toyota_land_cruiser_ganson", "car"),
    "fish": ("brown_fish_01", "pescetto_arancione_archi_01", "yellow_gourami_01", "pescetto"),
    "bird": ("flamand_jean-victor_bali_01", "puffin-md", "Colombo", "gabbiano_architetto_fran_01"),
    "ice cream": ("cone_alt3", "cone_alt_2",
                  "glace_7_jean-victor_bali_01", "glace_05_jean-victor_bal_01"),
}  # fmt: skip
SCENES_EACH = 3
SIZES = ((384, 288), (288, 384), (400, 267), (320, 320), (384, 288), (300, 400), (400, 300))
STYLE = Style(
    light=0.45, perspective=0.45, rotation=0.12, flip=0.3, occlusion=0.0, degrade=0.25, shadow=0.35
)
QUERY_OF = "cat-1"


def load_objects(root: Path) -> list[Cutout]:
    """The cut-outs of OBJECTS, named by their instances; a training picture is refused."""
    sources = {s.name: s for s in pictures.find_cutouts(root)}
    loaded = []
    for class_name, stems in OBJECTS.items():
        for number, stem in enumerate(stems, 1):
            source = sources[f"openclipart/{stem}"]
            if source.split == "train":
                raise SystemExit(f"{source.name} is a training picture; choose another")
            cutout = pictures.load_cutout(source, 400)
            if cutout is None:
                raise SystemExit(f"{source.name} cannot be used as an object")
            name = f"{class_name.replace(' ', '-')}-{number}"
            loaded.append(Cutout(name, class_name, cutout.rgba))
    return loaded


def paint_scene(
    rng: np.random.Generator, chosen: list[Cutout], painter: int, size: tuple[int, int]
) -> Scene:
    """A scene with some objects, the first in front. painter: the number of the backdrop."""
    background = PAINTERS[painter](rng, size)
    placements = compositor.scatter(rng, chosen, size, STYLE, (0.42, 0.66))
    return compositor.compose(rng, background, placements[::-1], STYLE)


def describe(scene: Scene) -> list[dict[str, object]]:
    """The labels of the objects of a scene of which at least 400 pixels are visible."""
    return [
        {"instance": item.instance, "class": item.class_name, "box": list(item.box)}
        for item in reversed(scene.objects)
        if int(item.mask.sum()) >= 400
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the sample collection of `make demo`.")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    objects = load_objects(given.pictures)
    for folder in ("photos", "query"):
        shutil.rmtree(given.out / folder, ignore_errors=True)
        (given.out / folder).mkdir(parents=True)
    scenes: list[Scene] = []
    for index, cutout in enumerate(objects):
        places = rng.permutation(len(PAINTERS))[:SCENES_EACH]
        for turn, painter in enumerate(places):
            others = [o for o in objects if o.class_name != cutout.class_name]
            count = int(rng.choice([0, 1, 2], p=[0.35, 0.45, 0.2]))
            picked = [others[int(i)] for i in rng.choice(len(others), count, replace=False)]
            size = SIZES[(index + 3 * turn) % len(SIZES)]
            scenes.append(paint_scene(rng, [cutout, *picked], int(painter), size))
    labels: dict[str, object] = {}
    for number, place in enumerate(rng.permutation(len(scenes)), 1):
        name = f"photos/{number:03d}.jpg"
        scene = scenes[int(place)]
        Image.fromarray(scene.image).save(given.out / name, quality=84)
        labels[name] = describe(scene)
    wanted = next(o for o in objects if o.instance == QUERY_OF)
    scene = paint_scene(np.random.default_rng(given.seed + 1), [wanted], 5, (384, 288))
    query = f"query/{wanted.class_name}.jpg"
    Image.fromarray(scene.image).save(given.out / query, quality=90)
    text = json.dumps({"query": {query: describe(scene)}, "photos": labels}, indent=1)
    (given.out / "labels.json").write_text(text + "\n", encoding="utf-8")
    write_licences(given.out / "LICENSES.md")


def write_licences(file: Path) -> None:
    """Write the credits: the drawing of each instance."""
    lines = [
        "# Licences of the sample collection",
        "",
        "The photos in `photos/` and `query/` are composed by `generate.py`. Their backgrounds are",
        "painted by `data/backdrops.py` and need no credit. Their objects are drawings of the Open",
        "Clip Art Library, which their authors dedicated to the public domain (Creative Commons",
        "Public Domain Dedication), as packaged in Debian's `openclipart-png`; file names carry",
        "the authors' names. The photos are likewise dedicated to the public domain (CC0 1.0).",
        "",
        "| object | drawing |",
        "|---|---|",
    ]
    for class_name, stems in OBJECTS.items():
        for number, stem in enumerate(stems, 1):
            lines.append(f"| {class_name.replace(' ', '-')}-{number} | `{stem}.png` |")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
