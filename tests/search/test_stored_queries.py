"""A query photo that the index holds is asked by its stored maps, and no model is loaded."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from features.extractor import FeatureExtractor
from features.photo import ModelInput
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from indexer.upkeep.remove import remove
from search.answer import Answer
from search.index import Index, open_index
from search.query import Query, SearchOptions
from search.reference import extract_maps, read_query_photo, stored_maps
from tests.helpers.stores import PixelExtractor, make_photos

DEMO = Path(__file__).parents[2] / "data" / "demo" / "photos"
PHOTO = DEMO / "001.jpg"
BOX = (55.0, 81.0, 290.0, 284.0)
ASKED = [Query(PHOTO, box=BOX), Query(PHOTO, box=(100.0, 120.0, 250.0, 250.0))]


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("features.diffusion.loading.read_parts", refuse)


@pytest.fixture
def extractions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The content hash of every photo that is extracted, in order."""
    seen: list[str] = []
    extract = FeatureExtractor.extract

    def counted(extractor: FeatureExtractor, inputs: list[ModelInput]) -> object:
        seen.extend(photo.content_hash for photo in inputs)
        return extract(extractor, inputs)

    monkeypatch.setattr(FeatureExtractor, "extract", counted)
    return seen


def extracted_answer(index: Path, tiny: FeatureExtractor, query: Query) -> Answer:
    """The answer of an index that does not know the query photo by its content."""
    with IndexReader.open(index) as reader:
        reader.find = lambda _: None  # type: ignore[method-assign]
        return Index(reader, tiny).search(query, SearchOptions(top=81))


@pytest.mark.parametrize("query", ASKED)
def test_the_answer_is_near_that_of_the_extracted_photo(
    query: Query, demo_index: Path, tiny: FeatureExtractor, extractions: list[str]
) -> None:
    with IndexReader.open(demo_index) as reader:
        answer = Index(reader, tiny).search(query, SearchOptions(top=81))
    assert extractions == []
    expected = extracted_answer(demo_index, tiny, query)
    assert extractions == [answer.references[0].maps.content_hash]
    assert answer.matches[0].path == expected.matches[0].path == PHOTO
    found = {match.id: match.score for match in answer.matches}
    exact = {match.id: match.score for match in expected.matches}
    assert found.keys() == exact.keys()
    # Scores differ by up to 0.7 here. The codec changes them by 0.012 at most.
    for number, score in exact.items():
        assert found[number] == pytest.approx(score, abs=0.03)


def test_no_weights_are_read(sample_index: Path, never_loaded: None) -> None:
    with open_index(sample_index, "cpu") as index:
        answer = index.search(ASKED[0], SearchOptions(top=3))
    assert answer.matches[0].path == PHOTO
    assert answer.matches[0].is_query


def test_a_query_imports_no_model_library(sample_index: Path) -> None:
    code = """
import sys
from dataclasses import replace
from hashlib import sha256
from search.commands.app import main
sys.argv = ["waldo", "query", *sys.argv[1:]]
try:
    main()
except SystemExit:
    print(sorted({"diffusers", "transformers", "huggingface_hub"} & set(sys.modules)))
"""
    box = ",".join(str(number) for number in BOX)
    ask = [str(PHOTO), "--box", box, "--index", str(sample_index), "--json"]
    run = subprocess.run(
        [sys.executable, "-c", code, *ask], capture_output=True, text=True, check=True
    )
    answer, imported = run.stdout.splitlines()
    assert json.loads(answer)["matches"][0]["path"] == str(PHOTO)
    assert imported == "[]"


def test_a_class_name_a_point_and_an_unknown_photo_need_the_model(
    sample_index: Path, small_tiny: FeatureExtractor, extractions: list[str], tmp_path: Path
) -> None:
    other = tmp_path / "other.jpg"
    other.write_bytes(PHOTO.read_bytes() + b"\0")  # the same picture with other bytes
    with IndexReader.open(sample_index) as reader:
        # each by an index of its own, which has kept nothing of earlier searches
        Index(reader, small_tiny).search(Query(PHOTO, "dog", box=BOX))
        assert len(extractions) == 1
        Index(reader, small_tiny).search(Query(other, box=BOX))
        assert len(extractions) == 2
        Index(reader, small_tiny).search(Query(PHOTO, point=(150.0, 150.0)))
        assert len(extractions) == 3
        both = Query(PHOTO, box=BOX, also=(Query(other, box=BOX),))
        answer = Index(reader, small_tiny).search(both)
        hashes = [reference.maps.content_hash for reference in answer.references]
        assert extractions[3:] == [hashes[1]]


def test_damaged_maps_are_not_asked_by(
    sample_index: Path, small_tiny: FeatureExtractor, extractions: list[str], tmp_path: Path
) -> None:
    index = shutil.copytree(sample_index, tmp_path / "index")
    [shard] = (index / "shards").glob("*.parquet")
    data = bytearray(shard.read_bytes())
    photo = read_query_photo([ASKED[0]], small_tiny)
    with IndexReader.open(index) as reader:
        assert stored_maps(photo, reader) is not None
        encoded = reader.read_maps([reader.find(photo.input.content_hash)]).encoded.tobytes()
    at = data.find(encoded[:64])
    assert at > 0
    data[at] ^= 1
    shard.write_bytes(data)
    with IndexReader.open(index) as reader:
        assert stored_maps(photo, reader) is None
        answer = Index(reader, small_tiny).search(ASKED[0])
    assert extractions == [photo.input.content_hash]
    assert len(answer.damaged) == 1


def test_photos_that_need_the_model_are_extracted_together(tmp_path: Path) -> None:
    extractor = PixelExtractor()
    index_photos(make_photos(tmp_path / "photos", 6), tmp_path / "index", extractor)
    known = sorted((tmp_path / "photos").iterdir())
    views = [Query(path, box=(0, 0, 9, 9)) for path in make_photos(tmp_path / "new", 12, first=9)]
    asked = Query(known[0], box=(0, 0, 9, 9), also=tuple(views[:10]), unlike=tuple(views[10:]))
    with Index(IndexReader.open(tmp_path / "index"), extractor) as index:
        extractor.batches.clear()
        found = index.search(asked).references
        assert extractor.batches == [12]
        # Each photo has its own features, and the last eight are remembered.
        for view, reference in zip((asked, *views[:10]), found, strict=True):
            assert reference.maps.content_hash == sha256(view.photo.read_bytes()).hexdigest()
        index.search(replace(asked, also=tuple(views[9:3:-1]), unlike=(views[0],)))
        assert extractor.batches == [12, 1]


def test_stored_maps_are_the_extracted_ones_where_no_codec_loses_anything(tmp_path: Path) -> None:
    extractor = PixelExtractor()
    photos = make_photos(tmp_path / "photos", 3)
    for quality, folder in (("none", "index"), ("small", "lossy")):
        index_photos([tmp_path / "photos"], tmp_path / folder, extractor, quality=quality)
    absent = make_photos(tmp_path / "absent", 1, first=9)[0]
    with IndexReader.open(tmp_path / "index") as reader:
        for photo in photos:
            asked = read_query_photo([Query(photo, box=(0, 0, 9, 9))], extractor)
            stored, [extracted] = stored_maps(asked, reader), extract_maps([asked], extractor)
            assert stored is not None
            assert stored.frame == extracted.frame
            assert stored.content_hash == extracted.content_hash
            assert np.array_equal(stored.appearance, extracted.appearance)
            assert np.array_equal(stored.semantic, extracted.semantic)
        unknown = read_query_photo([Query(absent, box=(0, 0, 9, 9))], extractor)
        assert stored_maps(unknown, reader) is None
    with IndexReader.open(tmp_path / "lossy") as reader:  # its codec loses too much
        assert reader.find(asked.input.content_hash) is not None
        assert stored_maps(asked, reader) is None


def test_a_photo_is_found_by_its_content_until_it_is_removed(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 3)
    copy = Path(shutil.copy(photos[1], tmp_path / "photos" / "copy.png"))
    index_photos([tmp_path / "photos"], tmp_path / "index", PixelExtractor())
    with IndexReader.open(tmp_path / "index") as reader:
        records = reader.photos(reader.ids)
        same = {record.path.name: record for record in records}
        for record in records:
            found = reader.find(record.content_hash)
            assert found is not None
            assert reader.photos([found])[0].content_hash == record.content_hash
        assert reader.find("0" * 64) is None
        asked = {"0" * 64, same[copy.name].content_hash, same[photos[2].name].content_hash}
        known = reader.has_content(reader.ids, asked).tolist()
        assert known == [record.content_hash in asked for record in records]
        assert sum(known) == 3
        assert not reader.has_content(reader.ids, []).any()
    remove(tmp_path / "index", [photos[0], copy])
    with IndexReader.open(tmp_path / "index") as reader:
        assert reader.find(same[photos[0].name].content_hash) is None
        assert reader.find(same[copy.name].content_hash) == same[photos[1].name].id
