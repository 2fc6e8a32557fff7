"""The sample collection: complete, labelled inside its photos, small, and licensed."""

import json
from collections import Counter
from pathlib import Path

from PIL import Image

DEMO = Path(__file__).parents[1] / "data" / "demo"
LABELS = json.loads((DEMO / "labels.json").read_text(encoding="utf-8"))


def test_every_photo_is_labelled_and_every_label_has_its_photo() -> None:
    files = {path.relative_to(DEMO).as_posix() for path in (DEMO / "photos").iterdir()}
    assert files == set(LABELS["photos"])
    assert {p.relative_to(DEMO).as_posix() for p in (DEMO / "query").iterdir()} == set(
        LABELS["query"]
    )
    assert sum((DEMO / name).stat().st_size for name in files) < 4 * 1024 * 1024


def test_boxes_lie_inside_their_photos() -> None:
    for name, items in (LABELS["photos"] | LABELS["query"]).items():
        with Image.open(DEMO / name) as photo:
            width, height = photo.size
        for item in items:
            x0, y0, x1, y1 = item["box"]
            assert 0 <= x0 < x1 <= width, name
            assert 0 <= y0 < y1 <= height, name


def test_every_object_is_in_three_photos_and_has_look_alikes() -> None:
    items = [item for listed in LABELS["photos"].values() for item in listed]
    photos = Counter(item["instance"] for item in items)
    assert min(photos.values()) >= 3
    members = Counter(cls for _, cls in {(i["instance"], i["class"]) for i in items})
    assert len(members) >= 6
    assert min(members.values()) >= 3


def test_the_query_is_in_the_collection_and_every_object_has_its_credit() -> None:
    items = [item for listed in LABELS["photos"].values() for item in listed]
    credits = (DEMO / "LICENSES.md").read_text(encoding="utf-8")
    for query in LABELS["query"].values():
        assert query[0]["instance"] in {item["instance"] for item in items}
    for item in items:
        assert f"| {item['instance']} | `" in credits
