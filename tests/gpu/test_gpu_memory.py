"""Full memory: work goes on in smaller parts, or ends in one line."""

import contextlib
import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.diffusion.vocabulary import nouns
from features.errors import LittleMemoryWarning, ModelError, WaldoError
from features.extractor import FeatureExtractor
from features.photo import load_photo
from features.vision.descriptors import ImageDescriptor
from indexer.reader import IndexReader
from search.clock import Clock
from search.index import open_index
from search.query import Query
from search.ranking.localise import localise
from search.reference import make_reference
from search.scoring.rerank import score_references
from search.scoring.scores import SCORES
from search.segmentation.cascade import prompted_by
from search.segmentation.frames import open_video
from search.segmentation.propagate import carry_labels
from search.segmentation.sam import Sam
from search.segmentation.segment import segment_photos
from tests.helpers.benchmarks.video_folders import save_frames
from tests.helpers.models.mask_models import save_sam
from tests.helpers.models.simulated_cuda import SimulatedCuda
from tests.helpers.models.twins import CAT, CAT_BOX, PHOTOS, Twins, assert_alike, opened

Folder = Callable[[str], Path]


def test_resident_maps_leave_memory_for_searches(
    gpu: SimulatedCuda, tiny_twins: Twins, indexes: Callable[[str], Path]
) -> None:
    tiny_twins.gpu.get_ready()
    with IndexReader.open(indexes("none")) as reader:
        needed = len(PHOTOS) * reader.photo_bytes
    gpu.total = gpu.used + needed
    with pytest.raises(WaldoError, match="are free for them on cuda"):
        opened(indexes("none"), tiny_twins.gpu, "gpu")
    gpu.total = gpu.used + 2 * needed
    opened(indexes("none"), tiny_twins.gpu, "gpu").close()


def test_resident_maps_leave_memory_for_a_model_that_is_not_read_yet(
    gpu: SimulatedCuda, indexes: Callable[[str], Path]
) -> None:
    before = gpu.used
    with open_index(indexes("none"), "cuda", "gpu") as index:
        maps = len(PHOTOS) * index.reader.photo_bytes
        assert gpu.used - before > 2 * maps


def test_full_memory_halves_a_batch_and_goes_on(
    gpu: SimulatedCuda, tiny_twins: Twins, indexes: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = FeatureExtractor(tiny_twins.gpu.model, tiny_twins.cpu.settings, 4)
    photos = tiny_twins.photos(6)
    expected = whole.extract(photos)
    before = gpu.used
    gpu.peak = before
    whole.extract(photos)
    halved = FeatureExtractor(tiny_twins.gpu.model, tiny_twins.cpu.settings, 4)
    tight = FeatureExtractor(tiny_twins.gpu.model, tiny_twins.cpu.settings, 1)
    for extractor in (halved, tight):
        extractor.extract(photos[:1])  # the prompt is encoded once
    gpu.total = before + (gpu.peak - before) // 3
    with pytest.warns(LittleMemoryWarning, match="going on with") as told:
        found = halved.extract(photos)
    assert_alike(found, expected, 1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is not said again
        again = halved.extract(photos)
    assert_alike(again, expected, 1e-2)
    assert halved.batch_size == 4
    assert len(told) <= 2
    gpu.total = gpu.used + 2**10
    with pytest.raises(ModelError, match="does not suffice for one of the photos"):
        tight.extract(photos)


@pytest.mark.parametrize(("fitting", "expected"), [(99, 32), (13, 8), (1.5, 1)])
def test_the_batch_follows_the_free_memory(
    gpu: SimulatedCuda, tiny_twins: Twins, fitting: float, expected: int
) -> None:
    one, any_size = (
        FeatureExtractor(tiny_twins.gpu.model, tiny_twins.cpu.settings, size) for size in (1, None)
    )
    photos = tiny_twins.photos(1)
    one.extract(photos)
    gpu.peak = before = gpu.used
    one.extract(photos)
    # A fifth of the free memory is left to what cannot be told beforehand.
    gpu.total = before + int(1.01 * fitting / 0.8 * (gpu.peak - before))
    assert any_size.batch_size == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        any_size.extract(photos)
    assert FeatureExtractor(tiny_twins.cpu.model, tiny_twins.cpu.settings).batch_size == 8


def test_text_encoders_leave_the_gpu_after_the_prompt(
    gpu: SimulatedCuda, tiny_twins: Twins
) -> None:
    cpu, there = tiny_twins.cpu, tiny_twins.gpu
    _ = there.class_vector("cat")
    with_them = gpu.used
    extractor = FeatureExtractor(there.model, cpu.settings, 1)
    maps = extractor.extract(tiny_twins.photos(1))
    gc.collect()
    [encoder] = cpu.model._parts.text_encoders
    size = sum(w.nbytes for w in {id(w): w for w in encoder.state_dict().values()}.values())
    assert with_them - gpu.used > 0.9 * size
    # They come back when a class is named, and leave again when all nouns are read.
    np.testing.assert_allclose(there.class_vector("cat"), cpu.class_vector("cat"), atol=1e-4)
    assert gpu.used >= with_them
    there.vocabulary_vectors()
    gc.collect()
    assert with_them - gpu.used > 0.9 * size
    assert_alike(extractor.extract(tiny_twins.photos(1)), maps, 1e-6)


def test_full_memory_halves_what_is_scored_at_once(
    gpu: SimulatedCuda, tiny_twins: Twins, indexes: Callable[[str], Path]
) -> None:
    reference = make_reference(Query(CAT, box=CAT_BOX), tiny_twins.gpu)
    asked = [reference.for_scoring(tiny_twins.gpu.device)]
    with IndexReader.open(indexes("none")) as reader:

        def score() -> NDArray[np.float32]:
            found = score_references(reader, reader.ids, asked, [SCORES["late"]], Clock())
            return found.by_score["late"]

        score()
        gpu.waits.clear()
        gpu.peak = before = gpu.used
        expected = score()
        # A block of photos waits for its result alone.
        assert Counter(kind for kind, _ in gpu.waits.elements()) == {"download": 1}
        gpu.total = before + (gpu.peak - before) // 2
        with pytest.warns(LittleMemoryWarning, match="candidates at a time"):
            np.testing.assert_allclose(score(), expected, atol=1e-3)
        gpu.total = gpu.used + 2**10
        with pytest.warns(LittleMemoryWarning), pytest.raises(ModelError, match="the candidates"):
            score()


def test_a_model_that_does_not_fit(gpu: SimulatedCuda) -> None:
    extractor = FeatureExtractor.load("tiny", "cuda", 2)
    gpu.total = gpu.used + 2**20
    with pytest.raises(ModelError, match="device's memory does not suffice for it") as raised:
        extractor.get_ready()
    assert "\n" not in str(raised.value)


def drained(work: Callable[..., Iterable[object]], *arguments: object) -> list[object]:
    return list(work(*arguments))


STAGES = ("prompt", "class name", "nouns", "places", "labels", "descriptors", "sam", "sam2")


@pytest.mark.parametrize("stage", STAGES)
def test_after_full_memory_at_any_stage_work_goes_on(
    gpu: SimulatedCuda,
    tiny_twins: Twins,
    indexes: Callable[[str], Path],
    made_once: Callable[..., Path],
    descriptor_folder: Folder,
    tmp_path: Path,
    stage: str,
) -> None:
    """Each raises the error of which the command line makes one line, and leaves nothing behind."""
    extractor = tiny_twins.gpu
    with contextlib.ExitStack() as stack:
        work: Callable[[], object]
        if stage in ("prompt", "class name", "nouns"):
            block = extractor.settings.block
            work = {
                "prompt": lambda: extractor.model.condition("a photo"),
                "class name": lambda: extractor.model.class_vector("cat", block),
                "nouns": lambda: extractor.model.class_vectors(nouns()[:70], block),
            }[stage]
        elif stage == "places":
            reader = stack.enter_context(IndexReader.open(indexes("standard")))
            asked = make_reference(Query(CAT, box=CAT_BOX), extractor)
            tokens = [asked.for_scoring(extractor.device)]
            maps, which = reader.read_maps(reader.ids), np.zeros(len(PHOTOS), np.int64)
            least = np.zeros(len(PHOTOS), np.float32)
            work = partial(localise, reader, maps, tokens, which, SCORES["consistent"], least)
        elif stage == "labels":
            [first, *_] = save_frames(tmp_path / "frames", [{1: (8 * i, 10)} for i in range(3)])
            start = load_photo(tmp_path / "frames" / "00000.jpg")
            frames = list(open_video(tmp_path / "frames").frames())[1:]
            work = partial(drained, carry_labels, start, first, frames, extractor)
        elif stage == "descriptors":
            described = ImageDescriptor.load(str(descriptor_folder("dinov2")), "cuda", 2)
            work = partial(described.describe, [described.prepare(load_photo(CAT))])
        else:
            sam = Sam.load(str(made_once(f"gpu-{stage}", lambda at: save_sam(stage, at))), "cuda")
            reference = make_reference(Query(CAT, box=CAT_BOX), extractor)
            work = partial(
                drained, segment_photos, reference, PHOTOS[:1], extractor, prompted_by(sam)
            )
        _ = work()
        gc.collect()
        before, total = gpu.used, gpu.total
        gpu.total = gpu.used
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LittleMemoryWarning)
            with pytest.raises((ModelError, torch.OutOfMemoryError)):
                work()
        gpu.total = total
        gc.collect()
        assert gpu.used == before
        _ = work()
