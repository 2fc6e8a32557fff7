"""Re-ranking: each candidate is read once, however many references and scores there are."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from features.extractor import FeatureExtractor
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.clock import Clock
from search.index import Index
from search.query import Query, SearchOptions
from search.reference import Reference, make_reference, make_references
from search.scoring.rerank import combine, score_references
from search.scoring.scores import SCORES
from search.segmentation.mask_files import write_match_masks
from tests.helpers.pictures import save_photo

COUNT = 24
BOX = (10.0, 10.0, 60.0, 50.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    return [save_photo(folder / f"{i:02}.png", 96, 80, seed=i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def directory(
    photos: list[Path], small_tiny: FeatureExtractor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("store") / "index"
    index_photos([photos[0].parent], directory, small_tiny, batch_size=4)
    return directory


@pytest.fixture
def reader(directory: Path) -> Iterator[IndexReader]:
    with IndexReader.open(directory) as opened:
        yield opened


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The id of every photo whose maps are read from disk, in order."""
    seen: list[int] = []
    read_maps = IndexReader.read_maps

    def counted(reader: IndexReader, ids: np.ndarray) -> object:
        seen.extend(np.asarray(ids).tolist())
        return read_maps(reader, ids)

    monkeypatch.setattr(IndexReader, "read_maps", counted)
    return seen


@pytest.fixture
def extractions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The content hash of every photo that is extracted, in order."""
    seen: list[str] = []
    extract = FeatureExtractor.extract

    def counted(extractor: FeatureExtractor, inputs: list) -> object:
        seen.extend(photo.content_hash for photo in inputs)
        return extract(extractor, inputs)

    monkeypatch.setattr(FeatureExtractor, "extract", counted)
    return seen


def test_three_more_photos_read_each_candidate_once(
    photos: list[Path], reader: IndexReader, small_tiny: FeatureExtractor, reads: list[int]
) -> None:
    also = tuple(Query(photos[i], "dog", box=BOX) for i in (1, 2, 3))
    unlike = (Query(photos[4], "dog", box=BOX),)
    with Index(reader, small_tiny) as index:
        options = SearchOptions(top=5)
        answer = index.search(Query(photos[0], "dog", box=BOX, also=also, unlike=unlike), options)
    # All candidates once, to score them; the two matches that ask, and all once more by these; then
    # those that are shown, to find the object in them.
    assert sorted(reads[:COUNT]) == sorted(reader.ids.tolist())
    assert sorted(reads[COUNT + 2 : 2 * COUNT + 2]) == sorted(reader.ids.tolist())
    found, fitted = np.split(np.array(reads[2 * COUNT + 2 :]), [len(answer.matches)])
    assert found.tolist() == [match.id for match in answer.matches]
    assert sorted(fitted) == sorted({*fitted} & {*found})  # each once at most
    best = {match.path: match.reference for match in answer.matches[:4]}
    assert best == {photos[i].resolve(): i for i in range(4)}


def test_masks_of_matches_extract_no_photo_again(
    photos: list[Path],
    reader: IndexReader,
    small_tiny: FeatureExtractor,
    extractions: list[str],
    tmp_path: Path,
) -> None:
    query = Query(photos[0], "dog", box=BOX, also=(Query(photos[1], "dog", box=BOX),))
    with Index(reader, small_tiny) as index:
        answer = index.search(query, SearchOptions(top=3))
        written, failures = write_match_masks(
            tmp_path / "masks", index.reader, index.extractor.device, answer
        )
    assert len(written) == 3
    assert failures == []
    hashes = [reference.maps.content_hash for reference in answer.references]
    assert extractions == hashes


def test_one_photo_asked_in_several_ways_is_extracted_once(
    photos: list[Path], small_tiny: FeatureExtractor, extractions: list[str]
) -> None:
    views = [Query(photos[0], box=BOX), Query(photos[0], "dog"), Query(photos[0], "dog")]
    references = make_references(views, small_tiny, [None, None, 0.3])
    assert len(extractions) == 1
    assert references[0].class_vector is None
    for view, reference in zip(views[:2], references[:2], strict=True):
        np.testing.assert_array_equal(make_reference(view, small_tiny).cells, reference.cells)
    expected = small_tiny.class_cells(references[2].maps, "dog", 0.3)
    np.testing.assert_array_equal(references[2].cells, expected)
    assert (references[1].cells != references[2].cells).any()


def test_many_references_and_scores_equal_each_by_itself(
    photos: list[Path],
    reader: IndexReader,
    small_tiny: FeatureExtractor,
    reads: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Fewer wanted vectors may have another kernel, with another choice between almost equal cells.
    monkeypatch.setenv("WALDO_KERNEL", "float32")
    made: list[Reference] = [make_reference(Query(p, box=BOX), small_tiny) for p in photos[:10]]
    references = [reference.for_scoring(torch.device("cpu")) for reference in made]
    scores = [SCORES[name] for name in ("consistent", "late", "pdm")]
    ids, clock, done = reader.ids[::-1], Clock(), list[int]()
    together = score_references(
        reader, ids, references, scores, clock, on_photos=lambda count: done.append(count)
    )
    assert sorted(reads) == sorted(ids.tolist())
    np.testing.assert_array_equal(together.ids, ids)
    assert together.damaged == []
    assert done[0] == 0
    assert set(clock.seconds) == {"fetch", "consistent", "late", "pdm"}
    for row, reference in enumerate(references):
        for score in scores:
            alone = score_references(reader, ids, [reference], [score], Clock())
            found = together.by_score[score.name][row]
            np.testing.assert_allclose(found, alone.by_score[score.name][0], atol=1e-5, rtol=1e-5)


def test_threads_of_their_own_for_blocks_change_no_score(
    photos: list[Path],
    reader: IndexReader,
    small_tiny: FeatureExtractor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WALDO_KERNEL", "float32")
    reference = make_reference(Query(photos[0], box=BOX), small_tiny).for_scoring(
        torch.device("cpu")
    )
    scores = [SCORES[name] for name in ("consistent", "pdm")]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(score_references(reader, reader.ids, [reference], scores, Clock()))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for score in scores:
        one, three = (scored.by_score[score.name] for scored in found)
        np.testing.assert_allclose(three, one, atol=1e-5, rtol=1e-5)


def test_no_candidate_gives_no_score(
    photos: list[Path], reader: IndexReader, small_tiny: FeatureExtractor
) -> None:
    reference = make_reference(Query(photos[0], box=BOX), small_tiny).for_scoring(
        torch.device("cpu")
    )
    nothing = np.empty(0, dtype=np.int64)
    scored = score_references(reader, nothing, [reference], [SCORES["late"]], Clock(), "score")
    assert scored.ids.shape == (0,)
    assert scored.by_score["late"].shape == (1, 0)


def test_an_unwanted_object_costs_half_of_the_difference() -> None:
    wanted = np.array([[0.5, 0.2, 0.9], [0.4, 0.6, 0.1]], dtype=np.float32)
    unwanted = np.array([[0.7, 0.1, 0.9]], dtype=np.float32)
    np.testing.assert_allclose(combine(wanted, unwanted), [0.4, 0.6, 0.9], atol=1e-6)
    np.testing.assert_array_equal(combine(wanted, unwanted[:0]), wanted.max(axis=0))
