"""Inputs as people have them: photos that are gone, odd names, lists of any encoding."""

import json
from pathlib import Path

import pytest

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        save_photo(folder / f"photo {i}.jpg", 120, 90, seed=i)
    (folder / "broken.jpg").write_bytes((folder / "photo 0.jpg").read_bytes()[:500])
    (folder / "notes.pdf").write_bytes(b"%PDF-1.4 \0 not a picture")
    return folder


@pytest.fixture(scope="module")
def index(photos: Path, tiny: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read alone; copy it for anything else."""
    directory = tmp_path_factory.mktemp("store") / "index"
    index_photos([photos], directory, tiny)
    return directory


def test_a_photo_that_cannot_be_read_does_not_end_a_list(
    waldo: CommandLine, photos: Path, index: Path, tmp_path: Path
) -> None:
    """Nor does one that is wanted beside each photo of the list."""
    sound = photos / "photo 1.jpg"
    wrong = [tmp_path / "gone.jpg", tmp_path, photos / "broken.jpg", photos / "notes.pdf"]
    asked = [json.dumps({"photo": str(path), "point": [60, 45]}) for path in (*wrong, sound)]
    asked.append(json.dumps({"photo": str(sound), "mask": str(tmp_path / "gone.png")}))
    asked.append(json.dumps({"photo": str(sound), "mask": str(photos / "broken.jpg")}))
    (tmp_path / "list.txt").write_text("\n".join([*asked, str(sound)]) + "\n")
    ask = ("query", tmp_path / "list.txt", "--index", index, "--point", "50,40", "--json")

    result = waldo(*ask)

    assert result.code == 2
    answered = [json.loads(line)["query"] for line in result.out.splitlines()]
    assert [(q["photo"], q["point"]) for q in answered] == [
        (str(sound), [60, 45]),
        (str(sound), [50, 40]),
    ]
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 6
    for path, line in zip(wrong, errors, strict=False):
        assert str(path) in line

    for option in ("--also", "--not"):
        result = waldo(*ask, option, f"{tmp_path / 'gone.jpg'}@1,1")
        errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert (result.code, result.out, len(errors)) == (2, "", 8)
