"""Recurring objects of the sample collection: stored, resumed, extended, named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import search.recurring.linking as linking
from indexer.errors import IndexDamagedError
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.region_links import RegionLinks, read_links
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from indexer.upkeep.compact import compact
from indexer.upkeep.remove import remove
from search.recurring.linking import link_photos, stored_links
from search.recurring.recurrence import recurring_objects
from tests.helpers.command_line import CommandLine
from tests.helpers.stores import PixelExtractor, make_photos


@pytest.fixture
def index(linked_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(linked_index, tmp_path / "index"))


def links_of(index: Path) -> RegionLinks:
    with IndexReader.open(index) as reader:
        return stored_links(reader)


def photos_of(index: Path) -> list[list[str]]:
    with IndexReader.open(index) as reader:
        return [[p.record.path.name for p in one.photos] for one in recurring_objects(reader)]


def test_objects_are_in_two_photos_or_more_and_sorted(index: Path) -> None:
    with IndexReader.open(index) as reader:
        found = recurring_objects(reader)
    assert found
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    counts = [len(one.photos) for one in found]
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= 2
    for one in found:
        assert len({photo.record.id for photo in one.photos}) == len(one.photos)
        assert one.cover.strength == max(photo.strength for photo in one.photos)


def test_nothing_is_compared_twice(index: Path) -> None:
    before = read_manifest(index)
    assert link_photos(index) == 0
    assert read_manifest(index) == before


def test_a_run_that_stops_goes_on_and_finds_the_same(
    index: Path, small_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Path(shutil.copytree(small_index, tmp_path / "again"))
    monkeypatch.setattr(linking, "_COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(linking, "_PHOTOS", 8)
    steps = 0

    def stop(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps % 3 == 0:
            raise KeyboardInterrupt

    for _ in range(100):
        try:
            link_photos(again, on_step=stop)
            break
        except KeyboardInterrupt:
            continue
    assert steps > 3
    assert verify(again) == []
    assert photos_of(again) == photos_of(index)


def test_photos_that_go_leave_the_objects(index: Path) -> None:
    with IndexReader.open(index) as reader:
        gone = recurring_objects(reader)[0].cover.record.path
    remove(index, [gone])
    assert gone.name not in {name for names in photos_of(index) for name in names}
    assert link_photos(index) == 0


def test_photos_that_come_are_compared_with_those_before(index: Path) -> None:
    whole = links_of(index)
    kept = np.arange(len(whole.contents)) % 2 == 0
    with IndexReader.open(index) as reader:
        file, basis = read_links(index / reader.manifest.links.name)  # type: ignore[union-attr]
        fingerprint = reader.fingerprint
    linking.commit_links(index, file.of_photos(kept), basis, fingerprint)
    assert link_photos(index) == (~kept).sum()
    found = links_of(index)
    assert found.compared.all()
    assert len(found.contents) == len(whole.contents)
    old_and_new = found.photos[found.pairs] < kept.sum()
    assert (old_and_new.sum(axis=1) == 1).any()


def test_compacting_keeps_objects(index: Path) -> None:
    before = photos_of(index)
    with IndexReader.open(index) as reader:
        number = reader.ids.tolist()[-1]
        path = reader.photos([number])[0].path
    remove(index, [path])
    compact(index)
    assert verify(index) == []
    after = photos_of(index)
    assert len(after) >= len(before) - 1


def test_a_damaged_file_is_reported_and_made_again(index: Path) -> None:
    file = read_manifest(index).links
    assert file is not None
    path = index / file.name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert [problem for problem in verify(index) if file.name in problem]
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IndexDamagedError, match="waldo objects"), IndexReader.open(index) as reader:
        recurring_objects(reader)
    assert link_photos(index) > 0
    assert verify(index) == []


def test_links_of_another_version_are_made_again(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "_VERSION", linking._VERSION + 1)
    assert len(links_of(index).contents) == 0


@pytest.mark.parametrize("count", [1, 2])
def test_few_photos_have_no_objects(count: int, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", count)
    index_photos([tmp_path / "photos"], tmp_path / "index", PixelExtractor())
    assert link_photos(tmp_path / "index") == count
    assert photos_of(tmp_path / "index") == []


def test_copies_of_a_photo_count_once(tmp_path: Path) -> None:
    [first, *_] = make_photos(tmp_path / "photos", 3)
    shutil.copy(first, first.with_name("copy.png"))
    index_photos([tmp_path / "photos"], tmp_path / "index", PixelExtractor())
    assert link_photos(tmp_path / "index") == 3


def test_an_index_without_links_has_no_objects(sample_index: Path) -> None:
    assert photos_of(sample_index) == []


def test_the_command_lists_shows_and_names(index: Path, waldo: CommandLine, tmp_path: Path) -> None:
    page = tmp_path / "objects.html"
    listed = waldo("objects", "--index", index, "--html", page, "--json")
    objects = json.loads(listed.out)["objects"]
    assert [len(one["photos"]) for one in objects] == list(map(len, photos_of(index)))
    assert page.read_text(encoding="utf-8").count("<figure>") == len(objects)
    assert waldo("objects", "--index", index, "--name", "1=Rex").code == 0
    with IndexReader.open(index) as reader:
        views = reader.named("Rex").views
    first = [photo["path"] for photo in objects[0]["photos"]]
    assert [str(view.photo) for view in views] == first[:5]
    assert verify(index) == []


@pytest.mark.parametrize("text", ["Rex", "x=Rex", "0=Rex", "999=Rex", "1=", "1=a/b"])
def test_what_names_no_object_is_refused(index: Path, waldo: CommandLine, text: str) -> None:
    waldo.refusal("objects", "--index", index, "--name", text)
