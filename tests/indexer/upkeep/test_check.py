"""`verify` finds any damage, names the file, and says how to repair it; the repair works."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import indexer.store.shards as shards
from indexer.errors import IndexDamagedError, IndexMissingError
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import describe, verify
from tests.helpers.stores import PixelExtractor, flip, make_photos, maps_of, rows, run


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * 2 * (4 * 4 * 6 * 2))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen photos and their index, made once."""
    folder = tmp_path_factory.mktemp("check")
    make_photos(folder / "photos", 13)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 5 * 2 * (4 * 4 * 6 * 2))
        run(folder / "photos", folder / "index")
    return folder


@pytest.fixture
def photos(original: Path) -> Path:
    return original / "photos"


@pytest.fixture
def index(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original / "index", tmp_path / "index"))


def test_a_sound_index_has_no_problems(index: Path) -> None:
    assert verify(index) == []


def kinds(index: Path) -> list[str]:
    """One file of each kind that the manifest names."""
    manifest = read_manifest(index)
    files = [manifest.shards[1], manifest.photos[1], manifest.recall.file, manifest.codecs[0]]
    return [file.name for file in files]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.99])
def test_any_flipped_bit_is_found_and_can_be_repaired(
    index: Path, photos: Path, kind: int, where: float
) -> None:
    before = rows(index)
    path = index / kinds(index)[kind]
    flip(path, int(where * path.stat().st_size))
    problems = verify(index)
    assert any(str(path) in p and "run `waldo index` again over" in p for p in problems), problems
    assert all("\n" not in problem for problem in problems)
    path.unlink()
    assert any(str(path) in problem for problem in verify(index))
    run(photos, index)
    assert verify(index) == []
    after = rows(index)
    assert {p: row[1:] for p, row in after.items()} == {p: row[1:] for p, row in before.items()}
    if kind != 1:  # ids are in the photo table: what is lost there is new
        assert after == before


@pytest.mark.parametrize("kind", range(4), ids=["shard", "photos", "recall", "codec"])
def test_flipped_bytes_anywhere_are_found(index: Path, kind: int) -> None:
    """Where they lie does not matter, nor does it upset any of the parsers."""
    path = index / kinds(index)[kind]
    whole = path.read_bytes()
    chance = np.random.default_rng(kind)
    edges = [*range(12), *range(len(whole) - 12, len(whole))]
    for at in [*edges, *chance.integers(0, len(whole), 60).tolist()]:
        raw = bytearray(whole)
        raw[at] ^= 1 << int(chance.integers(8))
        path.write_bytes(raw)
        problems = verify(index)
        assert any(str(path) in p and "waldo index" in p for p in problems), (at, problems)
    path.write_bytes(whole)
    assert verify(index) == []


@pytest.mark.parametrize("kind", range(4), ids=["shard", "photos", "recall", "codec"])
def test_files_cut_short_anywhere_are_found(index: Path, kind: int) -> None:
    path = index / kinds(index)[kind]
    whole = path.read_bytes()
    lengths = np.random.default_rng(kind).integers(0, len(whole), 15)
    for length in [0, len(whole) - 1, *lengths.tolist()]:
        path.write_bytes(whole[:length])
        problems = verify(index)
        assert any(str(path) in p and "waldo index" in p for p in problems), (length, problems)
    path.unlink()
    assert any(str(path) in problem and "waldo index" in problem for problem in verify(index))


def test_a_flipped_bit_in_a_map_is_never_returned_as_data(index: Path, photos: Path) -> None:
    bad = maps_of(photos / "photo-007.png", PixelExtractor())
    path = index / read_manifest(index).shards[1].name
    flip(path, path.read_bytes().index(bad.semantic.tobytes()) + 30)
    with IndexReader.open(index) as reader:
        batch = reader.read_maps([2, 7, 8])
        assert batch.ids.tolist() == [2, 8]
        assert batch.encoded.shape == (2, 2 * 16 * 6 * 2)
        assert batch.valid.sum(axis=1).tolist() == [16, 12]  # photo 7 has 4 valid cells
        other = maps_of(photos / "photo-008.png", PixelExtractor())
        assert batch.encoded[1].tobytes() == other.appearance.tobytes() + other.semantic.tobytes()
        [line] = batch.damaged
    assert str(index) in line
    assert "shards/000003.parquet row 2" in line
    assert any("row 2: its checksum differs" in problem for problem in verify(index))


@pytest.mark.parametrize("cut", [1, 200])
def test_a_shard_cut_short_is_found_by_the_next_run(index: Path, photos: Path, cut: int) -> None:
    before = rows(index)
    path = index / read_manifest(index).shards[0].name
    path.write_bytes(path.read_bytes()[:-cut])
    assert any(str(path) in problem for problem in verify(index))
    assert run(photos, index).changed == 5  # seen without being told
    assert rows(index) == before


def test_a_damaged_photo_table_is_refused_by_name(index: Path) -> None:
    path = index / read_manifest(index).photos[0].name
    path.write_bytes(b"no parquet")
    with pytest.raises(IndexDamagedError, match=r"photos/000002.parquet.*waldo index"):
        IndexReader.open(index)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x"}', '{"format": 2}'])
def test_a_damaged_manifest_is_one_clear_line(index: Path, text: str) -> None:
    (index / "manifest.json").write_text(text)
    [problem] = verify(index)
    assert "manifest.json" in problem
    with pytest.raises(IndexDamagedError, match=r"manifest\.json"):
        IndexReader.open(index)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"next_id": 3}, "ids that are not below"),
        ({"sources": []}, "unknown source"),
        ({"recall": None}, ""),
    ],
)
def test_counts_that_contradict_the_files_are_reported(
    index: Path, change: dict, words: str
) -> None:
    raw = json.loads((index / "manifest.json").read_text())
    (index / "manifest.json").write_text(json.dumps(raw | change))
    problems = verify(index)
    assert any(words in p for p in problems) if words else problems == []


def test_rows_that_contradict_the_manifest_are_reported(index: Path) -> None:
    raw = json.loads((index / "manifest.json").read_text())
    raw["shards"][0]["rows"] = 4
    raw["photos"][2]["rows"] = 7
    (index / "manifest.json").write_text(json.dumps(raw))
    problems = verify(index)
    assert any("shards/000002.parquet: 5 rows, not 4" in problem for problem in problems)
    assert any("photos/000004.parquet: 3 rows, not 7" in problem for problem in problems)


@pytest.mark.parametrize("column", ["ids", "checksums", "maps"])
def test_a_layout_that_is_not_the_shards_is_reported(index: Path, column: str) -> None:
    raw = json.loads((index / "manifest.json").read_text())
    raw["layouts"]["3"][column] -= 1
    (index / "manifest.json").write_text(json.dumps(raw))
    assert any(
        "shards/000003.parquet: its columns lie elsewhere than the manifest says" in problem
        for problem in verify(index)
    )
    with IndexReader.open(index) as reader:
        batch = reader.read_maps(reader.ids)
        assert batch.ids.tolist() == [0, 1, 2, 3, 4, 10, 11, 12]
        assert all("shards/000003.parquet row" in line for line in batch.damaged)


def test_shards_that_were_swapped_are_reported(index: Path) -> None:
    one, two = (index / file.name for file in read_manifest(index).shards[:2])
    one.rename(index / "held")
    two.rename(one)
    (index / "held").rename(two)
    assert len(verify(index)) >= 2
    with IndexReader.open(index) as reader:
        assert len(reader.read_maps(reader.ids).damaged) == 10


def test_failures_that_cannot_be_read_are_reported(index: Path) -> None:
    (index / "failures.jsonl").write_text('{"path": "/a.jpg", "reason": "r"}\nnonsense\n')
    assert any("failures.jsonl" in problem for problem in verify(index))


def test_leftovers_of_a_killed_writer_go_and_the_users_files_stay(
    index: Path, photos: Path
) -> None:
    left = ["shards/000009.parquet", "shards/000009.parquet.tmp", "photos/000009.parquet"]
    left += ["recall-9.faiss", "recall-9.faiss.tmp"]
    left += ["manifest.json.tmp"]
    kept = ["README.txt", "shards/notes.txt"]
    for name in left + kept:
        (index / name).write_bytes(b"x")
    run(photos, index)
    assert not [name for name in left if (index / name).exists()]
    assert all((index / name).exists() for name in kept)
    assert verify(index) == []


def test_describe(index: Path, photos: Path) -> None:
    description = describe(index)
    assert description["photos"] == 13
    assert description["deleted"] == 0
    assert description["shards"] == 3
    assert description["model"] == "pixels"
    assert description["format"] == 2
    assert description["failures"] == 0
    assert description["sources"] == [str(photos)]
    assert (description["small_shards"], description["map_rows"]) == (1, 13)
    assert (description["dead_map_rows"], description["compact_has_work"]) == (0, True)
    assert description["recall"] == "flat"
    assert (description["codec"], description["bytes_per_photo"]) == ("none", 2 * 16 * 6 * 2)
    assert description["bytes"] == description["bytes_on_disk"]
    assert description["bytes"] == sum(
        (index / file.name).stat().st_size for file in read_manifest(index).files()
    )
    (index / "shards" / "000099.parquet").write_bytes(bytes(100))
    later = describe(index)
    assert (later["bytes"], later["bytes_on_disk"]) == (
        description["bytes"],
        description["bytes"] + 100,
    )
    assert json.loads(json.dumps(description)) == description


def test_no_index(tmp_path: Path) -> None:
    for function in (describe, verify):
        with pytest.raises(IndexMissingError):
            function(tmp_path)
