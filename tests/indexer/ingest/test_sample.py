"""Which codec encodes which photos: it is fitted on a sample, and joined by another one later."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.maps import FeatureMaps
from features.photo import ModelInput
from indexer.codec.codec import Codec
from indexer.codec.quality import DEFAULT_QUALITY, bytes_per_photo
from indexer.errors import FingerprintError
from indexer.ingest import sample as sample_module
from indexer.ingest.sample import choose_sample, is_due, photos_to_fit
from indexer.ingest.sources import Found, Source
from indexer.reader import IndexReader
from indexer.store.manifest import read_manifest
from indexer.upkeep.check import verify
from tests.helpers.stores import PixelExtractor, make_photos, maps_of, run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos", 3)
    return tmp_path / "photos"


class Counting(PixelExtractor):
    """Records which photos are extracted, and how often the vocabulary is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.extracted: list[str] = []
        self.vocabularies = 0

    def extract(self, inputs: Sequence[ModelInput]) -> list[FeatureMaps]:
        self.extracted += [photo.content_hash for photo in inputs]
        return super().extract(inputs)

    def vocabulary_vectors(self) -> NDArray[np.float32]:
        self.vocabularies += 1
        return super().vocabulary_vectors()


def assert_close_maps(index: Path, photos: Sequence[Path]) -> None:
    """The stored maps of every photo are near those of its own file, whichever codec it has."""
    with IndexReader.open(index) as reader:
        records = {record.path: record.id for record in reader.photos(reader.ids)}
        batch = reader.read_maps([records[path] for path in photos])
        assert batch.damaged == []
        decoded = [maps.numpy() for maps in reader.decode(batch)]
    for number, path in enumerate(photos):
        own = maps_of(path, PixelExtractor())
        valid = own.frame.valid()
        for maps, kept in zip((own.appearance, own.semantic), decoded, strict=True):
            right = maps[valid].astype(np.float64)
            found = kept[number].reshape(maps.shape)[valid]
            assert np.linalg.norm(found - right) < 0.1 * np.linalg.norm(right)


def test_the_sample_is_extracted_once(photos: Path, index: Path) -> None:
    extractor = Counting()
    run(photos, index, extractor, quality="high")
    assert len(extractor.extracted) == 3 == len(set(extractor.extracted))
    manifest = read_manifest(index)
    assert [file.rows for file in manifest.codecs] == [3]
    assert {shard.codec for shard in manifest.shards} == {manifest.codecs[0].number}
    assert manifest.photo_bytes == bytes_per_photo("high", 4, 6)
    assert verify(index) == []


@pytest.mark.parametrize(("quality", "times"), [("none", 0), ("high", 1), ("small", 1)])
def test_the_vocabulary_is_made_only_for_a_codec_that_is_fitted_to_it(
    photos: Path, index: Path, quality: str, times: int
) -> None:
    """A text encoder takes minutes for thousands of nouns."""
    extractor = Counting()
    run(photos, index, extractor, quality=quality)
    assert extractor.vocabularies == times


def test_photos_of_the_sample_leave_batches_full(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.ingest.build.photos_to_fit", lambda *_: 5)
    make_photos(tmp_path / "many", 16)
    extractor = PixelExtractor()
    run(tmp_path / "many", index, extractor, batch_size=4, quality="high")
    # The five photos of the sample, and then the other eleven.
    assert extractor.batches == [4, 1, 4, 4, 3]
    assert verify(index) == []


def test_the_default_quality(photos: Path, index: Path) -> None:
    run(photos, index, quality=None)
    assert read_manifest(index).quality == DEFAULT_QUALITY
    run(photos, index, quality=None)


def test_another_quality_is_refused(photos: Path, index: Path) -> None:
    run(photos, index, quality="high")
    with pytest.raises(FingerprintError, match="made with codec high, not small"):
        run(photos, index, quality="small")


def test_a_large_addition_gets_a_codec_of_its_own(photos: Path, index: Path) -> None:
    run(photos, index, quality="high")
    make_photos(photos, 8, first=3)
    run(photos, index, quality="high")
    assert len(read_manifest(index).codecs) == 1  # 11 photos are less than four times three
    make_photos(photos, 2, first=11)
    run(photos, index, quality="high")
    first, second = read_manifest(index).codecs
    assert (first.rows, second.rows) == (3, 13)
    assert [s.codec for s in read_manifest(index).shards] == [first.number] * 2 + [second.number]
    assert_close_maps(index, sorted(photos.iterdir()))
    assert verify(index) == []


def test_the_mean_is_the_samples(photos: Path, index: Path) -> None:
    run(photos, index)
    pooled = [maps_of(path, PixelExtractor()).pooled() for path in sorted(photos.iterdir())]
    codec = Codec.load(index / read_manifest(index).codecs[0].name)
    np.testing.assert_allclose(codec.mean, np.mean(pooled, axis=0), atol=1e-6)


def test_a_lost_codec_costs_the_maps_it_encoded_and_no_more(photos: Path, index: Path) -> None:
    run(photos, index, quality="high")
    make_photos(photos, 10, first=3)
    run(photos, index, quality="high")
    (index / read_manifest(index).codecs[0].name).unlink()
    assert any("codec" in line for line in verify(index))
    extractor = PixelExtractor()
    report = run(photos, index, extractor, quality="high")
    assert (report.changed, report.unchanged) == (3, 10)
    assert sum(extractor.batches) == 3
    assert verify(index) == []
    assert_close_maps(index, sorted(photos.iterdir()))


def test_a_sample_that_cannot_be_read(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "_MOST_PHOTOS", 1)
    found = [Found(Source("folder", photos), p.name, 1, 1) for p in sorted(photos.iterdir())]
    (photos / choose_sample(found, 1)[0].relative).write_bytes(b"broken")
    report = run(photos, index, quality="high")
    assert (report.new, report.failed) == (2, 1)
    assert verify(index) == []


def test_choose_sample_is_spread_and_does_not_depend_on_order(tmp_path: Path) -> None:
    source = Source("folder", tmp_path)
    found = [Found(source, f"{n // 100}/{n}.jpg", 1, 1) for n in range(1000)]
    chosen = choose_sample(found, 100)
    assert chosen == choose_sample(found[::-1], 100)
    assert len({item.relative.split("/")[0] for item in chosen}) == 10
    assert choose_sample(found[:5], 100) == sorted(
        choose_sample(found[:5], 5), key=sample_module._key
    )


def test_how_many_photos() -> None:
    assert photos_to_fit(24, 128) == 256
    assert photos_to_fit(32, 640) == 102  # raw maps of 2.5 MiB each
    assert is_due(None, 1, 24, 128)
