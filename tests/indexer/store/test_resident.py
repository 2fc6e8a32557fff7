"""Maps held in memory give the answers that maps from disk give, and nothing is read twice."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.errors import WaldoError
from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.store import resident, shards
from indexer.store.manifest import read_manifest
from search import Query, SearchOptions, open_index
from search.scoring.scores import SCORES
from tests.helpers.command_line import CommandLine
from tests.helpers.pictures import save_photo
from tests.helpers.stores import run

CPU = torch.device("cpu")
PHOTOS, COPIES = 12, 3


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for i in range(PHOTOS):
        save_photo(folder / f"{i:02}.png", 60 + 9 * i, 150 - 9 * i, seed=i)
    for i in range(COPIES):
        shutil.copy(folder / f"{i:02}.png", folder / f"copy-{i}.png")
    return folder


@pytest.fixture(scope="module")
def by_pixels(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of small maps in several shards, to be copied."""
    directory = tmp_path_factory.mktemp("store") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 2**10)
        run(gallery, directory, quality="high")
    assert len(read_manifest(directory).shards) > 1
    return directory


@pytest.fixture(scope="module")
def by_tiny(
    tiny: FeatureExtractor, gallery: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index by the bundled model, to be read alone."""
    directory = tmp_path_factory.mktemp("tiny") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 2**17)
        index_photos([gallery], directory, tiny, batch_size=4)
    assert len(read_manifest(directory).shards) > 1
    return directory


@pytest.fixture
def index(by_pixels: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(by_pixels, tmp_path / "index"))


def damage(index: Path) -> None:
    """Flip a bit in maps that two photos share."""
    with IndexReader.open(index) as reader:
        shared = reader.read_maps(reader.ids).encoded[-1].tobytes()
    for file in read_manifest(index).shards:
        raw = bytearray((index / file.name).read_bytes())
        if (at := raw.find(shared)) >= 0:
            raw[at + 5] ^= 4
            (index / file.name).write_bytes(raw)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_same_maps_as_from_disk(index: Path, damaged: bool) -> None:
    if damaged:
        damage(index)
    steps: list[tuple[int, int]] = []
    with IndexReader.open(index) as disk, IndexReader.open(index) as ram:
        ram.hold_maps(CPU, lambda done, total: steps.append((done, total)))
        assert steps[-1] == (PHOTOS, PHOTOS)  # copies share theirs
        order = np.random.default_rng(1).permutation(disk.ids)
        for ids in (order, order[:1], order[:0]):
            expected, found = disk.read_maps(ids), ram.read_maps(ids)
            assert isinstance(found.encoded, torch.Tensor)
            assert found.ids.tolist() == expected.ids.tolist()
            assert np.array_equal(found.encoded.numpy(), expected.encoded)
            assert np.array_equal(found.codecs, expected.codecs)
            assert np.array_equal(found.valid, expected.valid)
            assert found.damaged == expected.damaged
        assert len(disk.read_maps(order).damaged) == 2 * damaged
        both = [reader.read_maps(order) for reader in (disk, ram)]
        for one, other in zip(disk.decode(both[0]), ram.decode(both[1]), strict=True):
            assert torch.equal(one, other)


def test_searches_give_the_same_answers_without_the_disk(
    by_tiny: Path, gallery: Path, tmp_path: Path
) -> None:
    index = Path(shutil.copytree(by_tiny, tmp_path / "index"))
    damage(index)
    query = Query(gallery / "03.png", class_name="dog", box=(5.0, 5.0, 50.0, 60.0))
    with open_index(index, "cpu") as disk, open_index(index, "cpu", maps="ram") as ram:
        expected = {name: disk.search(query, SearchOptions(top=3, score=name)) for name in SCORES}
        shutil.rmtree(index / "shards")
        for name, answer in expected.items():
            found = ram.search(query, SearchOptions(top=3, score=name))
            assert len(answer.matches) == 3
            assert found.damaged == answer.damaged != []
            for one, other in zip(found.matches, answer.matches, strict=True):
                assert np.array_equal(one.heatmap, other.heatmap)
                assert replace(one, heatmap=other.heatmap) == other


def test_too_little_memory_is_reported(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with IndexReader.open(index) as reader:
        needed = PHOTOS * reader.photo_bytes
        monkeypatch.setattr(resident, "free_memory", lambda device: needed)
        reader.hold_maps(CPU)
        monkeypatch.setattr(resident, "free_memory", lambda device: needed - 1)
        with pytest.raises(WaldoError, match=re.escape(f"of {PHOTOS} photos need")):
            reader.hold_maps(CPU)
        assert len(reader.read_maps(reader.ids).ids) == PHOTOS + COPIES


def test_free_memory_is_measured() -> None:
    free = resident.free_memory(CPU)
    assert free is None or 2**20 < free < 2**50


@pytest.mark.parametrize(("place", "words"), [("gpu", "choose ram"), ("disc", "disk, ram, gpu")])
def test_other_places_for_maps_are_refused(
    waldo: CommandLine, by_tiny: Path, gallery: Path, place: str, words: str
) -> None:
    line = waldo.refusal(
        *("query", gallery / "03.png", "--index", by_tiny, "--class", "dog"),
        *("--device", "cpu", "--maps", place),
    )
    assert f"maps {place}: " in line
    assert words in line


def test_the_command_line_answers_the_same(
    waldo: CommandLine, by_tiny: Path, gallery: Path
) -> None:
    asked = ("query", gallery / "03.png", "--index", by_tiny, "--class", "dog", "--json")
    answers = [json.loads(waldo(*asked, *more).out) for more in ((), ("--maps", "ram"))]
    assert answers[0]["matches"]
    assert answers[0]["matches"] == answers[1]["matches"]
