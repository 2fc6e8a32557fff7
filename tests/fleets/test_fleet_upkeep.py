"""`info`, `verify`, `compact` and `remove` on a fleet, through the library and the command line."""

import json
import shutil
from pathlib import Path

import pytest

from features.errors import WaldoError
from indexer.fleet.fleet_build import index_collection
from indexer.fleet.fleet_reader import open_collection
from indexer.parts import FLEET_FORMAT, parts_of, read_fleet
from indexer.reader import IndexReader
from indexer.upkeep.check import describe
from indexer.upkeep.every_part import (
    compact_collection,
    describe_collection,
    remove_from_collection,
    verify_collection,
)
from tests.helpers.command_line import CommandLine
from tests.helpers.stores import PixelDescriptor, PixelExtractor, make_photos

PHOTOS = 20
PARTS = 3


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A fleet of the photos that lie beside it in photos."""
    make_photos(tmp_path / "photos", PHOTOS)
    update(tmp_path / "fleet")
    return tmp_path / "fleet"


def update(fleet: Path) -> None:
    sources, descriptors = [fleet.parent / "photos"], [PixelDescriptor()]
    index_collection(sources, fleet, PixelExtractor(), parts=PARTS, descriptors=descriptors)


def paths(fleet: Path) -> list[str]:
    with open_collection(fleet) as reader:
        return sorted(Path(path).name for path in reader.paths())


def test_it_is_described_as_one_collection(fleet: Path, waldo: CommandLine) -> None:
    index_collection([fleet.parent / "photos"], fleet.parent / "one", PixelExtractor())
    one, many = describe_collection(fleet.parent / "one"), describe_collection(fleet)
    assert one == describe(fleet.parent / "one")
    assert many.keys() - one.keys() == {"parts"}
    for name in ("photos", "map_rows", "model", "grid", "codec", "sources", "failures", "recall"):
        assert many[name] == one[name], name
    assert many["shards"] == many["parts"] == PARTS
    assert many["descriptors"] == [{"name": "colours", "dim": 5, "photos": PHOTOS}]
    assert "20 photos" in waldo("info", "--index", fleet).out
    assert "a fleet of 3 parts" in waldo("info", "--index", fleet).out


def test_what_is_damaged_is_named(fleet: Path, waldo: CommandLine) -> None:
    assert [*verify_collection(fleet)] == []
    first, second, third = parts_of(fleet)
    [shard] = (second / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[-10] ^= 1
    shard.write_bytes(content)
    codec = fleet / "fleet-codec.safetensors"
    codec.write_bytes(codec.read_bytes()[:-1] + b"x")
    shutil.rmtree(third)
    problems = [*verify_collection(fleet)]
    assert str(codec) in problems[0]
    assert str(third) in problems[-1]
    assert "missing" in problems[-1]
    assert all(str(second) in problem for problem in problems[1:-1])
    assert len(problems) > 2
    assert waldo("verify", "--index", fleet).code == 1
    with pytest.raises(WaldoError, match="copy codec-1"):  # the lost part needs it
        update(fleet)
    shutil.copy(first / "codec-1.safetensors", codec)
    shard.unlink()
    update(fleet)
    assert [*verify_collection(fleet)] == []


def test_photos_are_removed_from_every_part_or_none(fleet: Path, waldo: CommandLine) -> None:
    photos = fleet.parent / "photos"
    gone = [photos / f"photo-{number:03}.png" for number in (1, 2, 3, 4, 5, 6)]
    with pytest.raises(WaldoError, match="nothing was removed"):
        remove_from_collection(fleet, [*gone, photos / "no.png"])
    assert len(paths(fleet)) == PHOTOS
    report = remove_from_collection(fleet, gone)
    assert (report.removed, report.total) == (6, PHOTOS - 6)
    assert paths(fleet) == sorted({path.name for path in photos.iterdir()} - {p.name for p in gone})
    shown = json.loads(waldo("remove", photos, "--index", fleet, "--json").out)
    assert (shown["removed"], shown["total"]) == (PHOTOS - 6, 0)
    assert "no photo in this index" in waldo.refusal(
        "query", gone[0], "--class", "dog", "--index", fleet
    )


def test_compacting_frees_what_was_removed(fleet: Path, waldo: CommandLine) -> None:
    photos = fleet.parent / "photos"
    remove_from_collection(fleet, [photos / f"photo-{number:03}.png" for number in range(8)])
    left = paths(fleet)
    assert describe_collection(fleet)["compact_has_work"]
    report = compact_collection(fleet)
    assert report.changed
    assert (report.index_dir, report.photos, report.dropped) == (fleet, PHOTOS - 8, 8)
    assert report.bytes_after < report.bytes_before
    assert describe_collection(fleet)["dead_map_rows"] == 0
    assert paths(fleet) == left
    assert [*verify_collection(fleet)] == []
    again = json.loads(waldo("compact", "--index", fleet, "--json").out)
    assert not again["changed"]
    assert again["index_dir"] == str(fleet)
    update(fleet)
    assert len(paths(fleet)) == PHOTOS


def test_a_part_may_lose_all_its_photos(fleet: Path) -> None:
    first = parts_of(fleet)[0]
    with IndexReader.open(first) as reader:
        own = [Path(path) for path in reader.paths()]
    remove_from_collection(fleet, own)
    compact_collection(fleet)
    assert len(paths(fleet)) == PHOTOS - len(own)
    update(fleet)
    assert len(paths(fleet)) == PHOTOS
    assert [*verify_collection(fleet)] == []


def test_another_format_and_a_damaged_file_are_refused(fleet: Path, waldo: CommandLine) -> None:
    file = fleet / "fleet.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "format": FLEET_FORMAT + 1}))
    assert "update waldo" in waldo.refusal("info", "--index", fleet)
    file.write_text("{")
    assert "cannot be read" in waldo.refusal("verify", "--index", fleet)
    file.write_text(json.dumps(values))
    assert read_fleet(fleet) is not None


def test_the_command_line_makes_a_fleet(tmp_path: Path, waldo: CommandLine) -> None:
    photos, fleet = tmp_path / "photos", tmp_path / "fleet"
    make_photos(photos, 4)
    made = waldo("index", photos, "--index", fleet, "--parts", 2)
    assert made.code == 0, made
    assert f"4 photos in {fleet}: 4 new" in made.out
    make_photos(photos, 1, first=4)
    report = json.loads(waldo("index", photos, "--index", fleet, "--json").out)
    assert (report["new"], report["unchanged"], report["total"]) == (1, 4, 5)
    refused = waldo.refusal("index", photos, "--index", fleet, "--parts", 3)
    assert "a fleet of 2 parts" in refused
    refused = waldo.refusal("index", photos, "--index", fleet, "--codec", "none")
    assert "made with codec standard" in refused
