"""PerMIR and PerMIS as `waldo prepare permir` writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from features.regions import load_mask
from search.evaluation.benchmarks.burst import prepare_permir
from search.evaluation.benchmarks.labelled_objects import MaskedPhoto, read_mask
from search.evaluation.benchmarks.permir import read_permir, read_permis
from search.query import Query
from tests.helpers.benchmarks.benchmark_folders import (
    HEIGHT,
    WIDTH,
    box_mask,
    save_burst,
    save_photo,
    save_streets,
    video,
)
from tests.helpers.refusal import refusal


@pytest.fixture
def burst(tmp_path: Path) -> Path:
    return save_streets(tmp_path / "BURST")


def test_permir_and_permis(burst: Path, tmp_path: Path) -> None:
    out = tmp_path / "permir"
    videos = prepare_permir(burst, out)
    assert [one.name for one in videos] == ["test/BDD/street", "val/BDD/street"]
    assert [[frame.index for frame in one.frames] for one in videos] == [[1, 17, 21], [3, 19, 23]]
    content = json.loads((out / "permir.json").read_text())
    assert content["seed"] == 0
    assert content["videos"][0]["track"] == 1
    assert content["videos"][0]["frames"][2]["image"] == "test/BDD/street/0021.jpg"
    assert not list(out.glob("*.partial"))
    # The folder is all that a run needs.
    burst.rename(tmp_path / "elsewhere")

    benchmark = read_permir(out)
    assert benchmark.protocol == "permir"
    photos = out / "photos"
    assert benchmark.gallery == [
        *(photos / "test/BDD/street" / f"{index:04}.jpg" for index in (17, 21)),
        *(photos / "val/BDD/street" / f"{index:04}.jpg" for index in (19, 23)),
    ]
    assert benchmark.gallery_classes == [{"car", "traffic light"}, {"car"}] * 2
    assert benchmark.scenes == []
    first, second = benchmark.queries
    mask = out / "masks/test/BDD/street/0001.png"
    assert first.query == Query(photos / "test/BDD/street/0001.jpg", "car", mask=mask)
    assert first.relevant.tolist() == [0, 1]
    assert second.relevant.tolist() == [2, 3]
    assert len(first.ignored) == 0
    assert first.confusable
    assert first.level is None
    np.testing.assert_array_equal(load_mask(mask, WIDTH, HEIGHT), box_mask(40))

    one, other = read_permis(out).objects
    assert (one.name, one.class_name) == ("test/BDD/street", "car")
    assert one.reference == MaskedPhoto(photos / "test/BDD/street/0001.jpg", mask)
    assert [target.photo for target in other.targets] == benchmark.gallery[2:]
    np.testing.assert_array_equal(read_mask(other.targets[0].mask), box_mask(36))


def test_the_query_is_the_largest_mask_and_the_reference_the_largest_box(tmp_path: Path) -> None:
    burst, out = tmp_path / "BURST", tmp_path / "permir"
    shown = [{"1": box_mask(20), "2": box_mask(9)} for _ in range(20)]
    shown[0]["1"] = box_mask(21)
    shown[0]["1"][5:12] = False
    shown += [{"1": box_mask(19)}, {"3": box_mask(30)}]
    shown[19]["3"] = box_mask(30)
    shown[1] = {"1": box_mask(5), "3": box_mask(6), "4": box_mask(6)}
    save_burst(burst, [video("v", shown, t4=9)])
    for index in range(len(shown)):
        save_photo(burst / "frames/val/BDD/v" / f"{index:04}.jpg", WIDTH, HEIGHT)
    [chosen] = prepare_permir(burst, out)
    assert chosen.track == 1
    assert chosen.frames[0].index == 0
    assert chosen.query == 1
    benchmark = read_permir(out)
    [benchmark_query] = benchmark.queries
    [instance] = read_permis(out).objects
    assert benchmark_query.query.photo == instance.targets[0].photo
    # Nothing else is in the gallery.
    assert benchmark.gallery == [instance.reference.photo, instance.targets[1].photo]
    assert benchmark_query.relevant.tolist() == [0, 1]
    assert not benchmark_query.confusable


def test_permir_that_is_not_whole(burst: Path, tmp_path: Path) -> None:
    out = tmp_path / "permir"
    for reader in (read_permir, read_permis):
        assert "holds no permir.json" in refusal(reader, out)
    out.write_text("a file where the folder should be")
    assert f"{out}: cannot be written" in refusal(prepare_permir, burst, out)
    out.unlink()
    prepare_permir(burst, out)
    assert "is there already" in refusal(prepare_permir, burst, out)
    listing = out / "permir.json"
    whole = listing.read_text()
    for damage, said in (
        ("[", "not JSON"),
        ("[]", "not laid out as `waldo prepare permir` writes it"),
        (whole.replace('"track"', '"trakt"'), "not laid out as `waldo prepare permir` writes it"),
        (whole.replace('"query": 0', '"query": 3'), "videos of 3 frames each"),
        ('{"videos": []}', "videos of 3 frames each"),
    ):
        listing.write_text(damage)
        for reader in (read_permir, read_permis):
            assert said in refusal(reader, out)
    listing.write_text(whole)
    mask = out / "masks/val/BDD/street/0019.png"
    Image.new("1", (WIDTH, HEIGHT + 1)).save(mask)
    assert refusal(read_permir, out).startswith(f"{mask}: is 64 x 33 pixels")
    mask.unlink()
    line = refusal(read_permis, out)
    assert line.startswith(str(mask))
    assert "1 of the 12" in line
