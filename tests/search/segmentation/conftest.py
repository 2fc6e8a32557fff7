"""A scene with an object, and a photo that shows the object too."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A query of the scenes benchmark, and a photo with its object."""
    scenes = ROOT / "data" / "scenes" / "validation"
    labels = json.loads((scenes / "labels.json").read_text())
    query = next(q for q in labels["queries"] if q["level"] == "easy")
    shown = next(
        entry
        for entry in labels["gallery"]
        if query["instance"] in [item["instance"] for item in entry["objects"]]
    )
    return {
        "photo": scenes / query["photo"],
        "mask": scenes / query["mask"],
        "target": scenes / shown["photo"],
    }
