"""The names of pictures, their classes and their splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from training import emoji, names, pictures


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("teapot_ganson", "teapot"),
        ("teiera_tazza_architetto__01", None),
        ("gatto_cat_architetto_fra_01", "cat"),
        ("A red headed cep.", "mushroom"),
        ("hot_dog_juliane_krug_r", "hot dog"),
        ("jean_victor_balin", None),
        ("Zaino_per_montagna", "backpack"),
        ("dog-face", "dog"),
        ("teddy-bear", "stuffed animal"),
        ("sport-utility-vehicle", "car"),
        ("soccer-ball", "soccer ball"),
        ("bell-pepper", "pepper"),
        ("computer-mouse", "computer mouse"),
        ("fish-cake-with-swirl", None),
        ("white-cane", None),
        ("hammer-and-wrench", None),
        ("dog tag", None),
    ],
)
def test_names_give_classes_only_when_they_are_clear(text: str, expected: str | None) -> None:
    assert names.class_of(text) == expected


def test_versions_of_a_drawing_are_in_one_split() -> None:
    versions = ["cone1_ganson", "cone1_bw_ganson"], ["home0", "home7", "home15"]
    for group in versions:
        assert len({pictures.split_of(f"openclipart/{name}") for name in group}) == 1


def test_splits_hold_their_share() -> None:
    splits = [pictures.split_of(f"openclipart/drawing-{i}-of-it") for i in range(3000)]
    assert splits.count("train") / 3000 == pytest.approx(0.8, abs=0.03)
    assert splits.count("test") / 3000 == pytest.approx(0.1, abs=0.03)


def test_vocabulary_holds_every_class_and_no_word_twice() -> None:
    words = names.vocabulary()
    assert len(words) == len(set(words))
    for name in names.CLASSES:
        assert set(name.replace("-", " ").split()) <= set(words)
    assert names.BACKGROUND in words


@pytest.mark.parametrize(
    "versions",
    [
        ["noto/dog", "noto-v1/dog"],
        ["fluent-emoji/red-apple", "fluent-emoji-3d/red-apple", "fluent-emoji/green-apple"],
        ["emojione/hourglass-done", "emojione-v1/hourglass-not-done"],
        ["twemoji/magnifying-glass-tilted-left", "twemoji/magnifying-glass-tilted-right"],
    ],
)
def test_one_design_is_in_one_group(versions: list[str]) -> None:
    assert len({pictures.group_of(name) for name in versions}) == 1


def test_drawings_of_different_sets_are_in_different_groups() -> None:
    sets = ("noto", "fluent-emoji", "twemoji", "openmoji", "fxemoji", "emojione")
    assert len({pictures.group_of(f"{name}/dog") for name in sets}) == len(sets)


def test_splits_are_pinned() -> None:
    expected = {
        "openclipart/brown_fish": "test",
        "openclipart/zebra": "train",
        "openclipart/teapot_ganson": "train",
        "tuxpaint/hammer": "train",
        "tuxpaint/green_fedora": "test",
    }
    assert {name: pictures.split_of(name) for name in expected} == expected
    icons = [f"tabler/icon-{i}-of-it" for i in range(50)]
    assert {pictures.split_of(name) for name in icons} == {"train"}


SQUARE = '<path fill="#c00" d="M2 2h12v12H2z"/>'


def _package(root: Path, name: str, icons: dict[str, str], **more: object) -> None:
    """An unpacked package of SVG pictures, by name and body, with more keys of icons.json."""
    folder = root / name
    folder.mkdir(parents=True)
    bodies = {title: {"body": body} for title, body in icons.items()}
    (folder / "icons.json").write_text(json.dumps({"icons": bodies, **more}))
    categories = {
        "Animals & Nature": ["dog", "red-apple"],
        "Objects": ["running-shoe", "left-arrow", "laptop"],
        "Smileys & Emotion": ["grinning-face", "robot"],
    }
    (folder / "metadata.json").write_text(json.dumps({"categories": categories}))
    characters = {"1f436": "dog", "1f5a5-fe0f": "laptop"}
    (folder / "chars.json").write_text(json.dumps(characters))


def _packages(root: Path) -> None:
    """Three small sets of pictures, some of which show no thing."""
    own = dict.fromkeys(
        ["dog", "red-apple", "running-shoe", "left-arrow", "laptop", "grinning-face", "robot"],
        SQUARE,
    )
    aliases = {"aliases": {"personal-computer": {"parent": "laptop"}}}
    _package(root, "noto", own, **aliases)
    _package(root, "fxemoji", {"redapple": SQUARE, "grin": SQUARE, "dogside": SQUARE})
    webp = root / "fluent-emoji-3d" / "assets"
    webp.mkdir(parents=True)
    for points in ("1f436", "1f5a5", "1f600"):
        picture = Image.new("RGBA", (64, 64))
        picture.paste((0, 120, 0, 255), (8, 8, 56, 56))
        picture.save(webp / f"{points}.webp")


def test_pictures_of_things_are_named_alike_in_every_set(tmp_path: Path) -> None:
    _packages(tmp_path)
    names_of_things = emoji.CommonNames(tmp_path / "noto")
    assert names_of_things.of("redapple") == "red-apple"
    assert names_of_things.of("dogside") == "dog"
    assert names_of_things.of("personal-computer") == "laptop"
    assert names_of_things.of_characters("1f5a5") == "laptop"
    assert names_of_things.of_characters("1f600") == ""
    things = ["dog", "robot", "left-arrow", "grinning-face", "no-such-thing"]
    assert [names_of_things.is_thing(name) for name in things] == [True, True, False, False, False]


def test_code_points_become_pictures(tmp_path: Path) -> None:
    _packages(tmp_path)
    package = tmp_path / "fluent-emoji-3d"
    assert emoji.convert_pictures(package, emoji.CommonNames(tmp_path / "noto"), tmp_path) == 2
    with Image.open(tmp_path / "dog.png") as picture:
        assert picture.mode == "RGBA"
        assert picture.size == (emoji.SIDE, emoji.SIDE)


def test_drawn_emoji_are_found_with_class_and_origin(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    _packages(tmp_path)
    known = emoji.CommonNames(tmp_path / "noto")
    for name in ("noto", "fxemoji"):
        out = tmp_path / "pictures" / "emoji" / name
        out.mkdir(parents=True)
        emoji.draw_icons(tmp_path / name, known, out)
    found = {source.name: source for source in pictures.find_cutouts(tmp_path / "pictures")}
    assert {name: source.class_name for name, source in found.items()} == {
        "noto/dog": "dog",
        "noto/laptop": "laptop",
        "noto/red-apple": "apple",
        "noto/robot": "robot",
        "noto/running-shoe": "shoe",
        "fxemoji/dog": "dog",
        "fxemoji/red-apple": "apple",
    }
    assert found["noto/dog"].origin == "@iconify-json/noto"
    assert found["noto/dog"].split == pictures.split_of("noto-v1/dog")
    cutout = pictures.load_cutout(found["noto/dog"], 64)
    assert cutout is not None
    # Cropped to the red square in the middle.
    assert cutout.rgba.shape == (64, 64, 4)
    assert tuple(cutout.rgba[32, 32]) == (204, 0, 0, 255)
