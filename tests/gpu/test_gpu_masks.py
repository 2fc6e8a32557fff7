"""Masks, videos and evaluations are as on the CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.photo import load_photo
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.methods.methods import METHODS
from search.evaluation.metrics.masks import mask_iou
from search.evaluation.retrieval import run_methods
from search.query import Query, SearchOptions
from search.reference import make_reference
from search.segmentation.cascade import prompted_by
from search.segmentation.frames import open_video
from search.segmentation.graph_cut import cut_object
from search.segmentation.match_masks import segment_matches
from search.segmentation.propagate import carry_labels
from search.segmentation.sam import Sam
from search.segmentation.segment import Segmentation, segment_photos
from tests.helpers.benchmarks.query_results import whole_scores
from tests.helpers.benchmarks.video_folders import save_frames
from tests.helpers.models.mask_models import save_sam
from tests.helpers.models.twins import CAT, CAT_BOX, PHOTOS, Twins, opened


def same_masks(found: list[Segmentation], expected: list[Segmentation]) -> None:
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.score == pytest.approx(theirs.score, abs=0.01)
        assert mask_iou(mine.mask, theirs.mask) > 0.95


def test_masks_of_matches(cuda: None, tiny_twins: Twins, indexes: Callable[[str], Path]) -> None:
    found = []
    for extractor in (tiny_twins.gpu, tiny_twins.cpu):
        with opened(indexes("standard"), extractor) as one:
            answer = one.search(Query(CAT, box=CAT_BOX), SearchOptions(top=2))
            given = one.reader, answer.references, extractor.device, answer.matches
            found.append([mask for _, mask in segment_matches(*given)])
    same_masks(*found)


@pytest.mark.parametrize("kind", ["cut", "sam", "sam2"])
def test_segmentation(
    cuda: None, tiny_twins: Twins, made_once: Callable[..., Path], kind: str
) -> None:
    found = []
    for extractor in (tiny_twins.gpu, tiny_twins.cpu):
        draw = cut_object
        if kind != "cut":
            folder = made_once(f"gpu-{kind}", lambda folder: save_sam(kind, folder))
            draw = prompted_by(Sam.load(str(folder), str(extractor.device)))
        reference = make_reference(Query(CAT, box=CAT_BOX), extractor)
        masks = [mask for _, mask in segment_photos(reference, PHOTOS[:2], extractor, draw)]
        found.append(masks)
    same_masks(*found)


def test_labels_carried_through_a_video(cuda: None, tiny_twins: Twins, tmp_path: Path) -> None:
    places = [{1: (8 * i, 10), 2: (60, 4 * i)} for i in range(5)]
    [first, *_] = save_frames(tmp_path / "frames", places)
    photo = load_photo(tmp_path / "frames" / "00000.jpg")
    found = []
    for extractor in (tiny_twins.gpu, tiny_twins.cpu):
        frames = list(open_video(tmp_path / "frames").frames())[1:]
        found.append([ids for _, ids in carry_labels(photo, first, frames, extractor)])
    for mine, theirs in zip(*found, strict=True):
        assert np.mean(mine == theirs) > 0.99
        assert set(np.unique(theirs)) == {0, 1, 2}


def test_evaluations(cuda: None, tiny_twins: Twins, tmp_path: Path) -> None:
    query = BenchmarkQuery(
        Query(CAT, "cat", box=CAT_BOX), np.array([1]), np.empty(0, dtype=np.int64), False
    )
    benchmark = Benchmark("folders", PHOTOS, None, [query], [])
    methods = [METHODS[name] for name in ("consistent", "late", "random-weights", "words")]
    found = [
        run_methods(benchmark, methods, extractor, tmp_path / str(extractor.device))
        for extractor in (tiny_twins.gpu, tiny_twins.cpu)
    ]
    for mine, theirs in zip(*(evaluation.results for evaluation in found), strict=True):
        np.testing.assert_allclose(
            whole_scores(mine.queries),
            whole_scores(theirs.queries),
            atol=0.02,
            err_msg=theirs.method.name,
        )
