"""Icons as labelled stickers for training."""

import json
from pathlib import Path

import numpy as np
import pytest

from training import icons, pictures

# A ring of four strokes around nothing.
FRAME = '<path fill="none" stroke="currentColor" stroke-width="2" d="M4 4h16v16H4z"/>'


@pytest.mark.parametrize(
    ("icon", "phrase"),
    [
        ("dog-side-outline", "dog-side"),
        ("trash-bin-2-bold", "trash-bin"),
        ("mouse", "computer-mouse"),
        ("chart-pie", None),
        ("table", None),
        ("trend-up", None),
        ("three-blind-mouse-holes", None),
    ],
)
def test_the_thing_in_the_name_of_an_icon(icon: str, phrase: str | None) -> None:
    assert icons.phrase_of(icon) == phrase


def test_one_style_of_each_icon_and_a_few_of_each_class() -> None:
    chosen = icons.choose(["cat", "cat-fill", "cat-bold-duotone", "heart-plus", "fish-line"])
    assert chosen == {"cat": "cat-fill", "fish": "fish-line"}
    dogs = ["dog", *(f"{kind}-dog" for kind in ("big", "old", "sad", "sly", "tan", "wee"))]
    assert list(icons.choose(dogs)) == ["dog", "big-dog", "old-dog", "sad-dog", "sly-dog"]


def test_lines_become_stickers_for_training(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    package = tmp_path / "tabler"
    package.mkdir()
    drawn = {"icons": {"box": {"body": FRAME}}, "width": 24, "height": 24}
    (package / "icons.json").write_text(json.dumps(drawn))
    (package / "info.json").write_text(json.dumps({"palette": False}))
    out = tmp_path / "pictures" / "icons" / "tabler"
    out.mkdir(parents=True)
    assert icons.draw_set(package, out) == 1
    (found,) = pictures.find_cutouts(tmp_path / "pictures")
    assert (found.name, found.class_name, found.split) == ("tabler/box", "box", "train")
    assert found.origin == "@iconify-json/tabler"
    cutout = pictures.load_cutout(found, 160)
    assert cutout is not None
    # The inside of the frame is opaque, in another colour than the frame.
    middle, edge = cutout.rgba[80, 80].astype(int), cutout.rgba[80, 5].astype(int)
    assert middle[3] == edge[3] == 255
    assert np.abs(middle[:3] - edge[:3]).max() > 30
