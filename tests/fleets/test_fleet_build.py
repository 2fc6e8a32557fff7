"""Making a fleet and bringing it up to date: its rows are those of a single index."""

import os
import shutil
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import indexer.ingest.commit as commit
from features.errors import WaldoError
from indexer.errors import FingerprintError, IndexDamagedError, IndexMissingError, SourceError
from indexer.fleet import new_fleet
from indexer.fleet.fleet_build import index_collection, stored_settings
from indexer.fleet.fleet_reader import open_collection
from indexer.fleet.shares import common_sizes, divide_listing
from indexer.ingest.progress import IndexReport, Progress
from indexer.ingest.sources import list_photos, open_sources
from indexer.parts import part_ids, part_of_id, parts_of, read_fleet, usual_parts
from indexer.store.failures import read_failures
from indexer.store.manifest import read_manifest
from indexer.upkeep.every_part import verify_collection
from tests.helpers.killed import run_until_killed
from tests.helpers.stores import PixelDescriptor, PixelExtractor, make_photos

PHOTOS = 24
PARTS = 3


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", PHOTOS)
    return tmp_path / "photos"


def build(
    photos: Path, index: Path, extractor: PixelExtractor | None = None, parts: int | None = PARTS
) -> IndexReport:
    """Make or update a fleet, with small batches and a codec that loses something."""
    chosen = extractor or PixelExtractor()
    descriptors = [PixelDescriptor()]
    return index_collection(
        [photos], index, chosen, parts=parts, batch_size=2, descriptors=descriptors
    )


def rows(index: Path) -> dict[str, tuple[bytes, ...]]:
    """What a collection knows of every photo, by its path: without its id."""
    with open_collection(index) as reader:
        records, batch = reader.photos(reader.ids), reader.read_maps(reader.ids)
        assert batch.damaged == []
        [name] = reader.descriptors
        vectors = vectors_of(reader.recall, 12), vectors_of(reader.descriptor_recall(name), 5)
        assert [str(record.path) for record in records] == list(reader.paths())
        return {
            str(record.path): (
                bytes(batch.encoded[at]),
                batch.valid[at].tobytes(),
                record.content_hash.encode(),
                *(found[record.id].tobytes() for found in vectors),
            )
            for at, record in enumerate(records)
        }


def vectors_of(recall: object, dim: int) -> dict[int, np.ndarray]:
    """The vectors of a recall index, got back through its own search with unit vectors."""
    columns = []
    for axis in np.eye(dim, dtype=np.float32):
        ids, scores = recall.search(axis, len(recall))  # type: ignore[attr-defined, arg-type]
        columns.append(scores[np.argsort(ids)])
    return dict(zip(np.sort(ids).tolist(), np.stack(columns, axis=1), strict=True))


def test_rows_are_those_of_a_single_index(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "one", parts=None)
    extractor = PixelExtractor()
    report = build(photos, tmp_path / "fleet", extractor)
    assert (report.new, report.total, report.described) == (PHOTOS, PHOTOS, PHOTOS)
    assert sum(extractor.batches) == PHOTOS  # those that the codec was fitted to only once
    assert rows(tmp_path / "fleet") == rows(tmp_path / "one")
    assert [*verify_collection(tmp_path / "fleet")] == []
    left = {path.name for path in (tmp_path / "fleet").iterdir()}
    assert left == {".lock", ".readers", "fleet.json", "fleet-codec.safetensors", "parts"}


def test_ids_tell_the_part_and_every_part_has_the_same_codec(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "fleet")
    fleet = read_fleet(tmp_path / "fleet")
    assert fleet is not None
    with open_collection(tmp_path / "fleet") as reader:
        assert reader.ids.tolist() == sorted(reader.ids.tolist())
        for record in reader.photos(reader.ids):
            number = part_of_id(record.id)
            assert number == fleet.part_of(record.size, str(record.path))
            assert part_ids(number)[0] <= record.id < part_ids(number)[1]
        with pytest.raises(KeyError):
            reader.photos([part_ids(PARTS)[0]])
    codecs = {(folder / "codec-1.safetensors").read_bytes() for folder in fleet.folders}
    assert codecs == {(tmp_path / "fleet" / "fleet-codec.safetensors").read_bytes()}


def test_a_later_run_works_on_the_differences(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "fleet")
    before = (tmp_path / "fleet" / "fleet.json").read_bytes()
    with open_collection(tmp_path / "fleet") as reader:
        id_of = dict(zip(reader.paths(), reader.ids.tolist(), strict=True))
        asked = [*reversed(id_of), str(photos / "none.png")]
        assert reader.with_paths(asked).tolist() == [id_of.get(path, -1) for path in asked]
    (photos / "photo-003.png").unlink()
    (photos / "later").mkdir()
    moved = (photos / "photo-004.png").rename(photos / "later" / "moved.png")
    copy = photos / "later" / "copy.png"
    shutil.copy2(photos / "photo-005.png", copy)
    make_photos(photos, 4, first=PHOTOS)
    extractor = PixelExtractor()
    report = build(photos, tmp_path / "fleet", extractor, parts=None)
    assert (report.new, report.removed, report.moved) == (5, 1, 1)
    assert (report.unchanged, report.total) == (PHOTOS - 2, PHOTOS + 4)
    assert sum(extractor.batches) == 4  # neither the one that moved, nor the copy
    assert (tmp_path / "fleet" / "fleet.json").read_bytes() == before
    with open_collection(tmp_path / "fleet") as reader:
        now = dict(zip(reader.paths(), reader.ids, strict=True))
        original = now[str(photos / "photo-005.png")]
        assert reader.copies_of(original) == [now[str(copy)]]
        distinct = reader.distinct()
        assert distinct is not None
        assert set(now.values()) - set(distinct.tolist()) == {now[str(copy)]}
    assert now[str(moved)] == id_of[str(photos / "photo-004.png")]


def test_a_photo_that_changes_its_size_may_change_its_part(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "fleet")
    for number in range(6):
        other = photos / f"photo-{number + 6:03}.png"
        shutil.copy(other, photos / f"photo-{number:03}.png")
    report = build(photos, tmp_path / "fleet")
    assert report.new == report.removed > 0
    assert report.new + report.changed == 6
    assert report.total == PHOTOS
    build(photos, tmp_path / "one", parts=None)
    assert {path: values[2] for path, values in rows(tmp_path / "fleet").items()} == {
        path: values[2] for path, values in rows(tmp_path / "one").items()
    }


def test_the_usual_number_of_parts_grows_with_the_listing() -> None:
    assert [usual_parts(files) for files in (1, 800_000, 800_001, 10_000_000, 10**9)] == [
        *(16, 16, 17, 200, 10_000)
    ]


def test_no_other_codec_is_fitted_when_the_collection_grows(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", 5)
    build(tmp_path / "photos", tmp_path / "fleet")
    make_photos(tmp_path / "photos", 100, first=5)
    build(tmp_path / "photos", tmp_path / "fleet")
    assert [len(read_manifest(part).codecs) for part in parts_of(tmp_path / "fleet")] == [1] * PARTS


def test_photos_of_one_size_are_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompressed pictures of one shape; a copy, which may lie in another part, is no match."""
    sizes = array("q", [10] * 30 + [20] * 5 + list(range(100, 200)))
    assert common_sizes(sizes, parts=4, most=6) == {10}
    assert common_sizes(sizes, parts=4) == frozenset()
    photos = tmp_path / "photos"
    for path in make_photos(photos, PHOTOS):
        whole = path.read_bytes()
        path.write_bytes(whole + bytes(20_000 - len(whole)))  # PNG readers stop at its end
    shutil.copy2(photos / "photo-000.png", photos / "x-copy.png")
    monkeypatch.setattr(new_fleet, "common_sizes", partial(common_sizes, most=3))
    build(photos, tmp_path / "fleet")
    with open_collection(tmp_path / "fleet") as reader:
        assert len(np.unique(part_of_id(reader.ids))) == PARTS
        distinct = reader.distinct()
        assert distinct is not None
        assert len(distinct) == PHOTOS
    assert build(photos, tmp_path / "fleet").unchanged == PHOTOS + 1


def test_what_cannot_be_read_is_counted_once(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes((photos / "photo-000.png").read_bytes()[:60])
    (photos / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    report = build(photos, tmp_path / "fleet")
    assert (report.new, report.failed) == (PHOTOS, 2)
    names = [Path(one.path).name for one in read_failures(tmp_path / "fleet")]
    assert names == ["broken.png", "dangling.png"]
    (photos / "dangling.png").unlink()
    assert build(photos, tmp_path / "fleet").failed == 1
    names = [Path(one.path).name for one in read_failures(tmp_path / "fleet")]
    assert names == ["broken.png"]


def test_a_lost_share_is_no_empty_one(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "fleet")
    fleet = read_fleet(tmp_path / "fleet")
    assert fleet is not None
    sources = open_sources([photos], tmp_path / "fleet")
    shares = divide_listing(fleet, sources, list_photos(sources, tmp_path / "fleet"))
    assert shares.total == PHOTOS
    found = [entry for number in range(PARTS) for entry in shares.of(number).entries()]
    assert sorted(map(repr, found)) == sorted(map(repr, list_photos(sources, tmp_path / "fleet")))
    shares.delete()
    assert not (tmp_path / "fleet" / "listing").exists()
    for number in range(PARTS):
        with pytest.raises(FileNotFoundError):
            shares.of(number)


def test_progress_is_that_of_one_run(photos: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    index_collection(
        [photos],
        tmp_path / "fleet",
        PixelExtractor(),
        parts=PARTS,
        batch_size=2,
        on_progress=seen.append,
    )
    indexing = [progress for progress in seen if progress.stage == "index"]
    done = [progress.done for progress in indexing]
    assert done == sorted(done)
    assert done[-1] == indexing[-1].new == PHOTOS
    assert {progress.total for progress in indexing} == {PHOTOS}
    parts = [progress.parts for progress in indexing if progress.parts is not None]
    assert len(parts) == len(indexing)
    assert {one.total for one in parts} == {PARTS}
    assert sorted({one.done for one in parts}) == [*range(PARTS + 1)]


def test_an_interrupted_run_goes_on(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "whole")
    extracted = 0
    for stop_at in (3, 9, 17):  # while the codec is fitted, and then in two of the parts

        def stop(count: int, most: int = stop_at - extracted) -> None:
            if count >= most:
                raise KeyboardInterrupt

        extractor = PixelExtractor(before=stop)
        with pytest.raises(KeyboardInterrupt):
            build(photos, tmp_path / "fleet", extractor)
        extracted += sum(extractor.batches)
    extractor = PixelExtractor()
    build(photos, tmp_path / "fleet", extractor)
    assert extracted + sum(extractor.batches) == PHOTOS  # nothing twice
    assert rows(tmp_path / "fleet") == rows(tmp_path / "whole")


def killed_before(step: int, work: Callable[[], object]) -> None:
    """Do some work, and be killed before the given step that changes the disk."""
    count = 0

    def counted(function: Callable) -> Callable:
        def wrapper(*arguments: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), 9)
            return function(*arguments, **named)

        return wrapper

    os.fsync = counted(os.fsync)
    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    work()


def test_a_fleet_that_was_killed_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_MAX_VECTORS", 2)  # several commits for each part
    make_photos(tmp_path / "photos", 8)
    build(tmp_path / "photos", tmp_path / "one", parts=None)
    expected = rows(tmp_path / "one")
    for step in (2, 5, 8, 10, 12, 30, 60):
        fleet = tmp_path / f"fleet-{step}"
        work = partial(build, tmp_path / "photos", fleet, parts=2)
        run_until_killed(partial(killed_before, step, work))
        work()
        assert rows(fleet) == expected
        assert [*verify_collection(fleet)] == []


def test_lost_files_are_made_again(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "fleet")
    expected = rows(tmp_path / "fleet")
    first, second, third = parts_of(tmp_path / "fleet")
    shutil.rmtree(first)
    (second / "codec-1.safetensors").unlink()
    with pytest.raises(IndexMissingError, match="part of the fleet is missing"):
        open_collection(tmp_path / "fleet")
    extractor = PixelExtractor()
    build(photos, tmp_path / "fleet", extractor)
    assert 0 < sum(extractor.batches) < PHOTOS  # of the first part alone
    assert rows(tmp_path / "fleet") == expected
    shutil.rmtree(third)
    build(photos, third, parts=None)  # another index in the place of a part
    for refused in (
        partial(open_collection, tmp_path / "fleet"),
        partial(build, photos, tmp_path / "fleet"),
    ):
        with pytest.raises(IndexDamagedError, match="no part of this fleet"):
            refused()


def test_settings_are_those_of_the_fleet(photos: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    assert stored_settings(fleet) is None
    build(photos, fleet)
    stored = stored_settings(fleet)
    assert stored is not None
    assert stored.fingerprint == PixelExtractor().fingerprint()
    assert [column.name for column in stored.descriptors] == ["colours"]
    with pytest.raises(FingerprintError):
        build(photos, fleet, PixelExtractor(model="others"))
    with pytest.raises(WaldoError, match="a fleet of 3 parts"):
        build(photos, fleet, parts=4)
    build(photos, tmp_path / "one", parts=None)
    with pytest.raises(WaldoError, match="is an ordinary index"):
        build(photos, tmp_path / "one")
    with pytest.raises(WaldoError, match="from 1 to"):
        build(photos, tmp_path / "other", parts=0)
    with pytest.raises(IndexMissingError, match="holds other files"):
        build(photos, tmp_path)
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "a.png").write_bytes((photos / "photo-000.png").read_bytes()[:60])
    with pytest.raises(SourceError, match="can be read"):
        build(tmp_path / "unreadable", tmp_path / "other")


def test_a_fleet_within_its_source_is_not_listed(photos: Path) -> None:
    build(photos, photos / "fleet")
    report = build(photos, photos / "fleet")
    assert (report.unchanged, report.passed_over, report.failed) == (PHOTOS, 0, 0)
