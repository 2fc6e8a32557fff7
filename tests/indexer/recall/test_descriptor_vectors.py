"""Columns of descriptors: added with the photos or later, shared by copies, kept by compaction.

What happens to them when a run is killed is in crash/test_killed_runs.py.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import indexer.ingest.commit as commit
import indexer.ingest.writer as writer
import indexer.recall.descriptor_vectors as descriptors
import indexer.store.shards as shards
from features.photo import load_photo
from indexer.errors import FingerprintError, IndexDamagedError
from indexer.ingest.build import index_photos
from indexer.ingest.progress import Progress
from indexer.reader import IndexReader
from indexer.recall.base_rule import RecallRule
from indexer.store.failures import read_failures
from indexer.store.manifest import Manifest, read_manifest
from indexer.upkeep.check import describe, verify
from indexer.upkeep.compact import compact
from indexer.upkeep.remove import remove
from tests.helpers.pictures import save_photo
from tests.helpers.stores import (
    PixelDescriptor,
    PixelExtractor,
    described,
    make_photos,
    rows,
    run,
    vectors_of,
)

COLOURS = PixelDescriptor()
LARGE = PixelDescriptor("large", dim=9)
# A file of vectors holds three of COLOURS.
SHARD_BYTES = 3 * (32 + 4 * 5)


def vector_of(path: Path, descriptor: PixelDescriptor) -> bytes:
    """What the descriptor gives for one photo by itself."""
    [vector] = descriptor.describe([descriptor.prepare(load_photo(path))])
    return vector.tobytes()


def expected(index: Path, *of: PixelDescriptor) -> dict[str, dict[str, bytes]]:
    """The vectors of all photos that the index holds."""
    return {d.name: {path: vector_of(Path(path), d) for path in rows(index)} for d in of}


def files_of(index: Path) -> list[str]:
    return sorted(path.name for path in (index / "descriptors").iterdir())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine photos, and a copy of one."""
    folder = tmp_path / "photos"
    make_photos(folder, 9)
    shutil.copy(folder / "photo-006.png", folder / "photo-006a.png")
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"


def test_a_column_is_made_with_the_photos(photos: Path, index: Path) -> None:
    colours, large = PixelDescriptor(), PixelDescriptor("large", dim=9)
    report = run(photos, index, descriptors=[colours, large])
    assert (report.new, report.described, report.failed) == (10, 9, 0)
    # Once for the content that two photos share.
    assert sum(colours.batches) == sum(large.batches) == 9
    assert max(colours.batches) <= 4
    assert described(index) == expected(index, COLOURS, LARGE)
    assert verify(index) == []
    extractor = PixelExtractor()
    report = run(photos, index, extractor, descriptors=[colours, large])
    assert (report.unchanged, report.described, extractor.batches) == (10, 0, [])
    assert sum(colours.batches) == 9


def test_a_column_is_made_later(photos: Path, index: Path) -> None:
    run(photos, index)
    held = read_manifest(index)
    before = rows(index)
    extractor, colours = PixelExtractor(), PixelDescriptor()
    report = run(photos, index, extractor, descriptors=[colours])
    assert (report.unchanged, report.described, report.new) == (10, 9, 0)
    assert extractor.batches == []  # only the descriptor is computed
    assert sum(colours.batches) == 9
    assert rows(index) == before
    manifest = read_manifest(index)
    assert (manifest.shards, manifest.photos) == (held.shards, held.photos)
    assert described(index) == expected(index, COLOURS)
    large = PixelDescriptor("large", dim=9)
    run(photos, index, descriptors=[colours, large])
    assert (sum(colours.batches), sum(large.batches)) == (9, 9)
    assert described(index) == expected(index, COLOURS, LARGE)
    assert verify(index) == []


def test_progress_counts_what_is_described(photos: Path, index: Path) -> None:
    """Adding a descriptor to a large index takes long, so the progress bar has to move."""
    run(photos, index)
    told: list[Progress] = []
    index_photos([photos], index, PixelExtractor(), descriptors=[COLOURS], on_progress=told.append)
    assert (told[-1].new, told[-1].skipped, told[-1].done) == (10, 0, 10)


def test_a_column_is_kept_up_to_date(photos: Path, index: Path) -> None:
    """New, changed, moved, copied, deleted and restored photos."""
    colours = PixelDescriptor()
    run(photos, index, descriptors=[colours])
    make_photos(photos, 2, first=20)
    save_photo(photos / "photo-002.png", 50, 50, seed=90)
    (photos / "photo-003.png").rename(photos / "photo-030.png")
    shutil.copy(photos / "photo-007.png", photos / "photo-031.png")
    (photos / "photo-005.png").rename(photos.parent / "away.png")
    report = run(photos, index, descriptors=[colours])
    assert (report.new, report.changed, report.moved, report.removed) == (3, 1, 1, 1)
    assert (sum(colours.batches), report.described) == (9 + 3, 3)
    assert described(index) == expected(index, COLOURS)
    (photos.parent / "away.png").rename(photos / "photo-005.png")
    assert run(photos, index, descriptors=[colours]).new == 1
    assert sum(colours.batches) == 9 + 3
    assert described(index) == expected(index, COLOURS)
    assert verify(index) == []


def test_photos_that_were_added_without_the_descriptor(photos: Path, index: Path) -> None:
    run(photos, index, descriptors=[COLOURS])
    make_photos(photos, 2, first=20)
    run(photos, index)
    assert len(described(index)["colours"]) == 10
    [column] = describe(index)["descriptors"]
    assert column == {"name": "colours", "dim": 5, "photos": 10}
    assert verify(index) == []
    assert run(photos, index, descriptors=[COLOURS]).described == 2
    assert described(index) == expected(index, COLOURS)
    assert describe(index)["descriptors"][0]["photos"] == 12


def test_only_photos_beneath_the_sources_are_described(tmp_path: Path, index: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_photos(first, 3)
    make_photos(second, 3, first=5)
    run([first, second], index)
    run(second, index, descriptors=[COLOURS])
    assert {Path(path).parent for path in described(index)["colours"]} == {second}
    run(first, index, descriptors=[COLOURS])
    assert described(index) == expected(index, COLOURS)


def test_commits_while_only_describing(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_MAX_VECTORS", 3)
    run(photos, index)
    run(photos, index, batch_size=2, descriptors=[COLOURS])
    [column] = read_manifest(index).descriptors
    assert [file.rows for file in column.files] == [3, 3, 3]
    assert described(index) == expected(index, COLOURS)
    assert verify(index) == []


def test_a_run_that_stops_keeps_what_is_described(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, index)

    class Stopping(PixelDescriptor):
        def describe(self, inputs: list[np.ndarray]) -> np.ndarray:
            if sum(self.batches) == 8:
                raise KeyboardInterrupt
            return super().describe(inputs)

    with pytest.raises(KeyboardInterrupt):
        run(photos, index, descriptors=[Stopping()])
    assert len(described(index)["colours"]) == 9  # eight contents, one of them twice
    assert verify(index) == []
    colours = PixelDescriptor()
    assert run(photos, index, descriptors=[colours]).described == 1
    assert described(index) == expected(index, COLOURS)


def test_a_photo_without_finite_numbers(photos: Path, index: Path) -> None:
    path = photos / "photo-004.png"
    shown = COLOURS.prepare(load_photo(path)).tobytes()
    report = run(photos, index, descriptors=[PixelDescriptor(no_vector_of=shown)])
    assert (report.new, report.failed, report.described) == (10, 1, 8)
    [failure] = read_failures(index)
    assert (failure.path, failure.reason) == (str(path), "colours gave no finite numbers for it")
    assert str(path) in rows(index)
    assert str(path) not in described(index)["colours"]
    assert verify(index) == []
    # Every run tries again.
    report = run(photos, index, descriptors=[PixelDescriptor()])
    assert (report.failed, report.described, read_failures(index)) == (0, 1, [])
    assert described(index) == expected(index, COLOURS)


def test_another_version_is_refused(photos: Path, index: Path) -> None:
    run(photos, index, descriptors=[COLOURS])
    held = (index / "manifest.json").read_bytes()
    with pytest.raises(FingerprintError, match="revision: 1 in the index, 2 now"):
        run(photos, index, descriptors=[PixelDescriptor(revision="2")])
    assert (index / "manifest.json").read_bytes() == held
    assert verify(index) == []


def test_an_index_without_descriptors_has_no_trace_of_them(photos: Path, index: Path) -> None:
    run(photos, index)
    assert "descriptors" not in json.loads((index / "manifest.json").read_text())
    assert not (index / "descriptors").exists()
    assert describe(index)["descriptors"] == []


def test_compaction(photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", SHARD_BYTES)
    monkeypatch.setattr(commit, "_MAX_VECTORS", 2)
    run(photos, index, descriptors=[COLOURS, LARGE])
    # A copy still uses the content of photo-006; nothing uses that of photo-001 and photo-002.
    for name in ("photo-001", "photo-002", "photo-006"):
        (photos / f"{name}.png").unlink()
    run(photos, index, descriptors=[COLOURS, LARGE])
    before = described(index)
    assert before == expected(index, COLOURS, LARGE)
    with IndexReader.open(index) as reader:  # keeps what it opened
        assert compact(index).changed
        assert len(vectors_of(reader.descriptor_recall("colours"))) == 7
    assert described(index) == before
    colours, large = read_manifest(index).descriptors
    assert [file.rows for file in colours.files] == [3, 3, 1]
    assert sum(file.rows for file in large.files) == 7
    assert verify(index) == []
    compact(index)  # deletes what the reader had open
    assert not compact(index).changed
    assert set(files_of(index)) == {
        Path(file.name).name for file in read_manifest(index).files() if "descr" in file.name
    }
    assert run(photos, index, descriptors=[COLOURS, LARGE]).described == 0


def test_compaction_of_vectors_alone(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that was added later has small files; nothing else is to be done."""
    run(photos, index)
    compact(index)
    held = read_manifest(index)
    monkeypatch.setattr(commit, "_MAX_VECTORS", 2)
    run(photos, index, batch_size=1, descriptors=[COLOURS])
    assert len(read_manifest(index).descriptors[0].files) > 1
    assert describe(index)["compact_has_work"]
    before = described(index)
    assert compact(index).changed
    manifest = read_manifest(index)
    assert (manifest.shards, manifest.photos) == (held.shards, held.photos)
    [file] = manifest.descriptors[0].files
    assert file.rows == 9
    assert described(index) == before
    assert verify(index) == []
    assert not describe(index)["compact_has_work"]


def test_removal(photos: Path, index: Path) -> None:
    run(photos, index, descriptors=[COLOURS])
    remove(index, [photos / "photo-000.png", photos / "photo-006.png"])
    found = described(index)
    assert found == expected(index, COLOURS)
    assert len(found["colours"]) == 8
    assert describe(index)["descriptors"][0]["photos"] == 8
    assert verify(index) == []
    compact(index)
    assert described(index) == found
    assert verify(index) == []
    remove(index, [photos])
    compact(index)
    assert read_manifest(index).descriptors[0].files == ()
    assert run(photos, index, descriptors=[COLOURS]).described == 9
    assert described(index) == expected(index, COLOURS)


@pytest.mark.parametrize("rule", [RecallRule(), RecallRule(delta_rows=0)])
def test_base_and_delta(
    photos: Path, index: Path, rule: RecallRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that lacks much is written anew, and results do not depend on where a vector lies."""
    refresh = descriptors.refresh_descriptors

    def refreshed(*arguments: object) -> tuple:
        return refresh(*arguments, rule=rule)

    monkeypatch.setattr(writer, "refresh_descriptors", refreshed)
    run(photos, index, descriptors=[COLOURS])
    first = read_manifest(index).descriptors[0].recall
    assert first is not None
    assert first.file.rows == 10
    make_photos(photos, 9, first=20)
    run(photos, index, descriptors=[COLOURS])
    second = read_manifest(index).descriptors[0].recall
    assert second is not None
    assert second.file.rows == (10 if rule.delta_rows else 19)
    with IndexReader.open(index) as reader:
        recall = reader.descriptor_recall("colours")
        assert recall.ids.shape == (19,)
        records = {r.id: r for r in reader.photos(reader.ids)}
        query = np.frombuffer(vector_of(photos / "photo-022.png", COLOURS), np.float32)
        found, scores = recall.search(query, 5)
        by_hand = {
            number: float(np.frombuffer(vector_of(record.path, COLOURS), np.float32) @ query)
            for number, record in records.items()
        }
        best = sorted(by_hand, key=lambda number: (-by_hand[number], number))
        assert found.tolist() == best[:5]
        np.testing.assert_allclose(scores, [by_hand[n] for n in best[:5]], atol=1e-6)
    assert verify(index) == []


def test_recall_works_without_its_base(photos: Path, index: Path) -> None:
    run(photos, index, descriptors=[COLOURS])
    before = described(index)
    [base] = (index / "descriptors").glob("*.faiss")
    base.unlink()
    assert described(index) == before
    assert any(base.name in problem for problem in verify(index))
    run(photos, index, descriptors=[COLOURS])
    assert described(index) == before
    assert verify(index) == []


@pytest.mark.parametrize("pattern", ["*.parquet", "*.faiss"])
def test_every_flipped_byte_is_found(photos: Path, index: Path, pattern: str) -> None:
    run(photos, index, descriptors=[COLOURS])
    [path] = (index / "descriptors").glob(pattern)
    whole = path.read_bytes()
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        problems = verify(index)
        assert problems
        assert all(str(path) in problem for problem in problems)
    path.write_bytes(whole)
    assert verify(index) == []


def test_lost_vectors_are_made_again(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_MAX_VECTORS", 3)
    run(photos, index)
    run(photos, index, batch_size=1, descriptors=[COLOURS])
    paths = sorted((index / "descriptors").glob("*.parquet"))
    damaged = bytearray(paths[1].read_bytes())
    damaged[len(damaged) // 2] ^= 255
    paths[1].write_bytes(damaged)
    [problem] = verify(index)
    assert "delete that file and run `waldo index` again" in problem
    with pytest.raises(IndexDamagedError, match=r"delete that file and run `waldo index` again"):
        compact_vectors(index)
    paths[1].unlink()
    colours = PixelDescriptor()
    report = run(photos, index, descriptors=[colours])
    assert report.described == sum(colours.batches) == 3
    assert described(index) == expected(index, COLOURS)
    assert verify(index) == []


def compact_vectors(index: Path) -> None:
    """A compaction that has to read a damaged file leaves the manifest as it was."""
    held = (index / "manifest.json").read_bytes()
    try:
        compact(index)
    finally:
        assert (index / "manifest.json").read_bytes() == held


def test_a_lost_photo_table_takes_the_base_with_it(photos: Path, index: Path) -> None:
    run(photos, index, descriptors=[COLOURS])
    [path] = (index / "photos").iterdir()
    path.unlink()
    run(photos, index, descriptors=[COLOURS])
    assert described(index) == expected(index, COLOURS)
    assert verify(index) == []


def test_the_manifest_reads_as_it_was_written(photos: Path, index: Path) -> None:
    run(photos, index, descriptors=[COLOURS, LARGE])
    manifest = Manifest.load_if_present(index)
    assert manifest is not None
    assert [column.name for column in manifest.descriptors] == ["colours", "large"]
    assert [column.dim for column in manifest.descriptors] == [5, 9]
    assert manifest.descriptors[1].fingerprint == LARGE.fingerprint()
    for column in manifest.descriptors:
        assert column.recall is not None
        names = [file.name for file in (*column.files, column.recall.file)]
        assert all((index / name).is_file() for name in names)
