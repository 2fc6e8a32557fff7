"""The page of an answer: whole in itself, safe with any file name, honest about lost photos."""

import base64
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from features.errors import WaldoError
from features.frame import Frame
from features.maps import FeatureMaps
from search.answer import Answer, Match, Pair
from search.commands.pages.answer_page import render_answer, write_answer_page
from search.query import Query, SearchOptions
from search.reference import Reference
from search.segmentation.overlay import heatmap_over, mask_over
from tests.helpers.pictures import save_photo

FRAME = Frame(width=120, height=90, size=128, grid=16)


def answer(tmp_path: Path, names: list[str]) -> Answer:
    matches = []
    for rank, name in enumerate(names, start=1):
        save_photo(tmp_path / name, FRAME.width, FRAME.height, seed=rank)
        heatmap = np.random.default_rng(rank).random((16, 16)).astype(np.float32)
        matches.append(
            Match(
                rank,
                tmp_path / name,
                rank,
                1 / rank,
                0.5,
                0.9 / rank,
                ((10, 20, 60, 70), (80, 10, 110, 40))[: 1 + (rank == 2)],
                heatmap,
                FRAME,
                rank == 1,
                0,
            )
        )
    cells = np.zeros((16, 16), dtype=bool)
    cells[3:6, 4:9] = True
    maps = np.zeros((16, 16, 2), dtype=np.float16)
    return Answer(
        query=Query(tmp_path / names[0], "dog"),
        options=SearchOptions(),
        references=(Reference(FeatureMaps(maps, maps, FRAME, "hash"), cells, None),),
        matches=matches,
        best_confidence=0.45,
        n_photos=17,
        damaged=[],
        timing={"total": 0.5},
    )


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_page_is_whole_in_itself(tmp_path: Path) -> None:
    text = render_answer(answer(tmp_path, ["a.png", "b.png", "c.png"]))
    page = Tags(text)
    images = page.all("img")
    # The query's photo, then photo and heatmap of each match.
    assert len(images) == 1 + 2 * 3
    for image in images:
        kind, data = (image["src"] or "").split(",")
        assert kind == "data:image/jpeg;base64"
        decoded = Image.open(io.BytesIO(base64.b64decode(data)))
        assert decoded.size == (FRAME.width, FRAME.height)
        assert image["alt"]
        assert image["loading"] == "lazy"
    # It needs nothing else; but its pictures link to the photos themselves.
    links = {link["href"] for link in page.all("a")}
    assert links == {(tmp_path / name).as_uri() for name in ("a.png", "b.png", "c.png")}
    assert not re.search(r"src=\"(?!data:)", text)
    assert "url(" not in text
    first = ["10", "20", "50", "50"]
    another = ["80", "10", "30", "30"]
    found = [box for box in page.all("rect") if box["class"] == "found"][1:]  # after the legend's
    assert [[box[side] for side in ("x", "y", "width", "height")] for box in found] == [
        *(first, first, another, first)
    ]
    assert [words for words in page.words if "places" in words] == [
        f"{tmp_path / 'b.png'} · in 2 places"
    ]
    assert page.all("svg")[0]["viewbox"] == "0 0 120 90"
    assert text.count("the query photo</span>") == 1
    assert "17 photos" in "".join(page.words)


def test_what_may_be_chance_is_folded_away(tmp_path: Path) -> None:
    found = answer(tmp_path, ["a.png", "b.png", "c.png"])
    query, second, third = found.matches
    second, third = replace(second, probability=0.2), replace(third, probability=0.19)
    text = render_answer(replace(found, matches=[query, second, third]))
    shown, folded = text.split('<details class="chance">')
    assert "1 more that may be chance" in folded
    assert folded.count("<article>") == 1
    assert shown.count("<article>") == 2
    assert '<span class="word possible">possible</span>' in shown
    assert "Not found" not in text
    sure = replace(answer(tmp_path, ["a.png"]), options=SearchOptions(min_confidence=0.9))
    page = render_answer(replace(sure, matches=[]))
    assert "<strong>Not found</strong>None of 17 photos" in page
    assert "<article>" not in page


def test_what_was_asked_for_is_outlined(tmp_path: Path) -> None:
    one = answer(tmp_path, ["a.png", "b.png"])
    query = replace(
        one.query,
        box=(5, 6, 45, 36),
        also=(Query(tmp_path / "b.png", point=(30, 40)),),
        unlike=(Query(tmp_path / "gone.png", box=(1, 2, 3, 4)),),
    )
    text = render_answer(replace(one, query=query, references=one.references * 2))
    page = Tags(text)
    asked = next(box for box in page.all("rect") if box["class"] == "asked")
    assert (asked["x"], asked["y"], asked["width"], asked["height"]) == ("5", "6", "40", "30")
    assert [(place["cx"], place["cy"]) for place in page.all("circle")] == [("30", "40")] * 2
    captions = [words for words in page.words if ": " in words and words.endswith(".png")]
    assert captions == ["looked for: a.png", "the same object: b.png", "not this one: gone.png"]


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2 of #rgb or #rrggbb."""
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_its_background(tmp_path: Path) -> None:
    """A contrast of 4.5 : 1 at least (WCAG 2.2, level AA), in the light and in the dark."""
    text = render_answer(answer(tmp_path, ["a.png"]))
    themes = [
        dict(re.findall(r"--(\w+): (#\w+)", part)) for part in text.split("prefers-color")[:2]
    ]
    assert len(themes) == 2
    pairs = [(theme["back"], theme[name]) for theme in themes for name in ("text", "soft", "link")]
    words = re.findall(r"\.word[.\w]* {[^}]*background: (#\w+)", text)
    assert len(words) == 4
    for pair in [*pairs, *((back, "#fff") for back in words)]:
        dark, light = sorted(map(luminance, pair))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, pair


def test_file_names_are_only_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script> & \"quotes'.png".replace("/", "_")
    page = Tags(render_answer(answer(tmp_path, [name])))
    assert not page.all("script")
    assert any("<script>alert(1)<_script> & \"quotes'.png" in words for words in page.words)


def test_a_file_name_that_is_not_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write_answer_page(answer(tmp_path, [name]), tmp_path / "answer.html")
    page = Tags((tmp_path / "answer.html").read_text(encoding="utf-8"))
    assert "looked for: caf?.png" in page.words
    assert str(tmp_path / "caf?.png") in page.words  # the match


def test_every_photo_of_the_object_is_shown(tmp_path: Path) -> None:
    one = answer(tmp_path, ["a.png", "b.png"])
    both = replace(
        one,
        query=replace(one.query, also=(Query(tmp_path / "b.png"),)),
        references=one.references * 2,
    )
    page = Tags(render_answer(both))
    names = [image["alt"] for image in page.all("img")][:2]
    assert names == ["looked for: a.png", "the same object: b.png"]


def test_lost_photos_are_said_to_be_lost(tmp_path: Path) -> None:
    found = answer(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").unlink()
    text = render_answer(found)
    assert text.count("this photo is gone") == 1
    assert len(Tags(text).all("img")) == 1 + 2


def test_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(WaldoError, match="cannot be written"):
        write_answer_page(answer(tmp_path, ["a.png"]), tmp_path / "nowhere" / "answer.html")


def test_heatmap_is_brightest_at_its_peak() -> None:
    picture = Image.new("RGB", (240, 180), (100, 100, 100))
    heatmap = np.zeros((16, 16), dtype=np.float32)
    heatmap[3, 10] = 1.0
    heatmap[12:] = 9.0  # padding, which must not set the scale
    drawn = np.asarray(heatmap_over(picture, heatmap, FRAME)).astype(int)
    # Cell (3, 10) is at 15 pixels a cell; yellow there, dark blue elsewhere.
    assert (drawn[52, 157] > (180, 170, 40)).all()
    assert drawn[150, 30, 0] < 100
    assert drawn[150, 30, 2] > drawn[150, 30, 1]


def test_mask_fades_everything_else() -> None:
    picture = Image.new("RGB", (240, 180), (20, 40, 60))
    cells = np.zeros((16, 16), dtype=bool)
    cells[2:6, 4:10] = True
    drawn = np.asarray(mask_over(picture, cells, FRAME)).astype(int)
    np.testing.assert_allclose(drawn[60, 105], (20, 40, 60), atol=2)
    assert (drawn[150, 200] > 180).all()


def test_lines_join_the_places_of_each_pair(tmp_path: Path) -> None:
    """Both photos are white, with a spot of another colour at each place of a pair."""
    found = answer(tmp_path, ["a.png", "b.png"])
    places = (((35.0, 25.0), (110.0, 80.0)), ((52.0, 30.0), (15.0, 66.0)))
    colours = ((255, 0, 0), (0, 0, 255))
    for photo, name in enumerate(("a.png", "b.png")):
        picture = Image.new("RGB", (FRAME.width, FRAME.height), "white")
        for place, colour in zip(places, colours, strict=True):
            x, y = map(int, place[photo])
            picture.paste(colour, (x - 2, y - 2, x + 2, y + 2))
        picture.save(tmp_path / name)
    pairs = tuple(Pair(*place, 0.9 - 0.1 * n) for n, place in enumerate(places))
    own, other = found.matches
    text = render_answer(replace(found, matches=[own, replace(other, pairs=pairs)]))
    [drawn] = [each for each in Tags(text).all("img") if "is like it" in (each["alt"] or "")]
    data = base64.b64decode((drawn["src"] or "").split(",")[1])
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    ends = [
        (int(circle["cx"] or ""), int(circle["cy"] or "")) for circle in Tags(text).all("circle")
    ]
    assert len(ends) == 4
    for number, (x, y) in enumerate(ends):
        np.testing.assert_allclose(pixels[y, x], colours[number // 2], atol=60)
        assert (x > pixels.shape[1] / 2) == bool(number % 2)
    assert [words for words in Tags(text).words if words in ("0.90", "0.80")] == ["0.90", "0.80"]


def test_no_pairs_are_drawn_of_a_photo_that_is_gone_or_was_changed(tmp_path: Path) -> None:
    found = answer(tmp_path, ["a.png", "b.png", "c.png"])
    pairs = (Pair((35.0, 25.0), (60.0, 45.0), 0.9),)
    own, second, third = (replace(match, pairs=pairs) for match in found.matches)
    assert "1 place of the object" in render_answer(replace(found, matches=[second]))
    changed = replace(found, matches=[own, replace(second, changed=True), third])
    assert render_answer(changed).count("<summary>why") == 2
    (tmp_path / "a.png").unlink()  # the photo of the object
    assert "<summary>why" not in render_answer(replace(found, matches=[second, third]))
