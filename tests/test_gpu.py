"""The product on a GPU: it answers as on a CPU, seldom waits, and survives full memory.

Where there is no GPU, it is a simulated one; waits and memory are only counted there.

The model computes in float32 on both, so that only the arithmetic of the two paths differs, unless
a test says otherwise.
"""

import contextlib
import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.device import find_device
from features.diffusion.presets import InversionMethod
from features.diffusion.vocabulary import nouns
from features.errors import LittleMemoryWarning, ModelError, WaldoError
from features.extractor import FeatureExtractor
from features.maps import FeatureMaps
from features.photo import ModelInput, load_model_input, load_photo
from features.vision.descriptors import ImageDescriptor
from indexer.codec.quality import QUALITIES
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from search.clock import Clock
from search.evaluation.benchmarks.benchmark import Benchmark, BenchmarkQuery
from search.evaluation.methods.methods import METHODS
from search.evaluation.metrics.masks import mask_iou
from search.evaluation.retrieval import run_methods
from search.index import Index, open_index
from search.localise import localise
from search.query import Query, SearchOptions
from search.reference import make_reference
from search.rerank import score_references
from search.scores import SCORES
from search.segmentation.cascade import prompted_by
from search.segmentation.frames import open_video
from search.segmentation.graph_cut import cut_object
from search.segmentation.match_masks import segment_matches
from search.segmentation.propagate import carry_labels
from search.segmentation.sam import Sam
from search.segmentation.segment import Segmentation, segment_photos
from tests.helpers.mask_models import save_sam
from tests.helpers.pipelines import FAMILIES
from tests.helpers.simulated_cuda import SimulatedCuda, simulated_cuda
from tests.helpers.video_folders import save_frames

DEMO = Path(__file__).parent.parent / "data" / "demo"
PHOTOS = sorted((DEMO / "photos").glob("*.jpg"))[:6]
CAT, CAT_BOX = DEMO / "query" / "cat.jpg", (172.0, 31.0, 333.0, 164.0)
SIZE = 96  # side of the model's input, pixels: small maps are quick

INVERSIONS: tuple[InversionMethod, ...] = ("none", "noise", "ddim", "fixed-point")

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def machine() -> Iterator[SimulatedCuda | None]:
    """One simulated GPU for all tests of this file, so that models are loaded once.

    None where there is a real one, which is used instead.
    """
    if torch.cuda.is_available():
        with torch.backends.cudnn.flags(allow_tf32=False):  # float32 is to be float32
            yield None
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with simulated_cuda() as gpu:
        yield gpu
    torch.set_num_threads(threads)


@pytest.fixture
def cuda(machine: SimulatedCuda | None) -> None:
    """A GPU, real or simulated, with nothing of earlier tests on it but models."""
    gc.collect()


@pytest.fixture
def gpu(machine: SimulatedCuda | None, cuda: None) -> Iterator[SimulatedCuda]:
    """A simulated GPU, which counts waits and memory."""
    if machine is None:
        pytest.skip("this is counted on the simulated GPU")
    machine.waits.clear()
    total = machine.total
    yield machine
    machine.total = total


@dataclass(frozen=True)
class Twins:
    """One model on both devices, with small maps."""

    cpu: FeatureExtractor
    gpu: FeatureExtractor

    def photos(self, count: int) -> list[ModelInput]:
        return [load_model_input(p, self.cpu.image_size, self.cpu.grid) for p in PHOTOS[:count]]

    def with_settings(self, **changes: object) -> "Twins":
        settings = replace(self.cpu.settings, **changes)
        return Twins(*(FeatureExtractor(one.model, settings, 2) for one in (self.cpu, self.gpu)))


@pytest.fixture(scope="module")
def twins(machine: SimulatedCuda | None, pipeline_folder: Folder) -> Callable[[str], Twins]:
    """By the name of the bundled model, or of a family of pipelines."""

    @cache
    def make(name: str) -> Twins:
        where = name if name == "tiny" else str(pipeline_folder(name))
        both = (FeatureExtractor.load(where, on, 2, "float32") for on in ("cpu", "cuda"))
        found = Twins(*both)
        return found.with_settings(image_size=SIZE) if name == "tiny" else found

    return make


@pytest.fixture(scope="module")
def tiny_twins(twins: Callable[[str], Twins]) -> Twins:
    return twins("tiny")


def index(extractor: FeatureExtractor, folder: Path, quality: str = "standard") -> Path:
    index_photos(PHOTOS, folder, extractor, batch_size=4, quality=quality)
    return folder


@pytest.fixture(scope="module")
def indexes(tiny_twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An index by the bundled model on the CPU, of each quality."""

    @cache
    def make(quality: str) -> Path:
        return index(tiny_twins.cpu, tmp_path_factory.mktemp(quality) / "index", quality)

    return make


def opened(folder: Path, extractor: FeatureExtractor, maps: str = "disk") -> Index:
    reader = IndexReader.open(folder)
    if maps == "gpu":
        reader.hold_maps(extractor.device)
    return Index(reader, extractor)


def assert_alike(found: list[FeatureMaps], expected: list[FeatureMaps], tolerance: float) -> None:
    """Maps are equal but for a share of their typical number."""
    for one, other in zip(found, expected, strict=True):
        for name in ("appearance", "semantic"):
            mine, theirs = (getattr(maps, name).astype(np.float32) for maps in (one, other))
            assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).mean()


# What the device costs


def test_features_of_every_family_and_inversion(cuda: None, twins: Callable[[str], Twins]) -> None:
    for family in FAMILIES:
        for inversion in INVERSIONS:
            both = twins(family).with_settings(
                inversion=inversion, timestep=400, steps=1, iterations=2
            )
            photos = both.photos(2)
            found = both.gpu.extract(photos)
            assert_alike(found, both.cpu.extract(photos), 1e-2)


def test_a_batch_of_photos_waits_for_its_result_alone(
    gpu: SimulatedCuda, twins: Callable[[str], Twins]
) -> None:
    both = twins("sdxl").with_settings(inversion="noise", timestep=400)
    photos = both.photos(3)
    _ = both.gpu.extract(photos[:1])  # the prompt is encoded once
    gpu.waits.clear()
    _ = both.gpu.extract(photos)
    assert Counter(kind for kind, _ in gpu.waits.elements()) == {"event": 2}


def test_an_evaluation_of_the_unet_waits_for_nothing(
    gpu: SimulatedCuda, twins: Callable[[str], Twins]
) -> None:
    for family in (*FAMILIES, "tiny"):
        model = twins(family).gpu.model
        conditioning = model.condition("a photo")
        channels = model.vae.config.latent_channels
        latents = torch.zeros(2, channels, 16, 16, device=model.device)
        _ = model.predict_noise(latents, 300, conditioning)
        gpu.waits.clear()
        _ = model.predict_noise(latents, 500, conditioning)
        assert gpu.waits == {}, family


def test_class_vectors_wait_for_their_result_alone(
    gpu: SimulatedCuda, twins: Callable[[str], Twins]
) -> None:
    names = [f"do{letter}g" for letter in "abcdefghij" * 13]
    for family in (*FAMILIES, "tiny"):
        both = twins(family)
        here, there = (
            each.model.class_vectors(nouns()[:130] if family == "tiny" else names, block)
            for each in (both.cpu, both.gpu)
            for block in [both.cpu.settings.block]
        )
        gpu.waits.clear()
        again = both.gpu.model.class_vectors(names, both.cpu.settings.block)
        assert len(again) == (0 if family == "tiny" else 130)
        np.testing.assert_allclose(there, here, atol=1e-4)
        assert Counter(kind for kind, _ in gpu.waits.elements()) == {"download": 1}, family


def test_maps_on_the_gpu_are_read_without_waiting(
    gpu: SimulatedCuda, tiny_twins: Twins, indexes: Callable[[str], Path]
) -> None:
    with IndexReader.open(indexes("standard")) as reader:
        expected = reader.read_maps(reader.ids[::-1]).encoded
        reader.hold_maps(tiny_twins.gpu.device)
        gpu.waits.clear()
        found = reader.read_maps(reader.ids[::-1]).encoded
        assert gpu.waits == {}
        np.testing.assert_array_equal(found.cpu().numpy(), expected)


# Precision


def test_half_precision_is_part_of_the_fingerprint(
    cuda: None, tiny_twins: Twins, tmp_path: Path
) -> None:
    usual = FeatureExtractor.load("tiny", "cuda", 2)
    assert usual.model.dtype == torch.float16
    in_float32 = FeatureExtractor.load("tiny", "cpu", 2).fingerprint()
    assert usual.fingerprint() == in_float32 | {"precision": "float16"}
    assert "precision" not in in_float32
    # An index keeps its precision on any device.
    there = FeatureExtractor.from_fingerprint(in_float32, "cuda")
    assert (there.model.device.type, there.model.dtype) == ("cuda", torch.float32)
    here = FeatureExtractor.from_fingerprint(usual.fingerprint(), "cpu", 2)
    assert here.fingerprint() == usual.fingerprint()
    assert here.model.dtype == torch.float32
    weight = next(here.model.unet.parameters())
    assert torch.equal(weight, weight.half().float())
    photos = tiny_twins.photos(2)
    small = [
        FeatureExtractor(one.model, tiny_twins.cpu.settings, 2).extract(photos)
        for one in (usual, here)
    ]
    assert_alike(*small, 0.1)
    # Photos of another precision do not come into an index.
    index(tiny_twins.cpu, tmp_path / "index")
    other = FeatureExtractor(usual.model, tiny_twins.cpu.settings, 2)
    with pytest.raises(WaldoError, match="precision: None in the index, float16 now"):
        index(other, tmp_path / "index")


@pytest.mark.parametrize("device", ["meta", "cuda:3", "nonsense"])
def test_a_device_that_cannot_compute_is_refused(gpu: SimulatedCuda, device: str) -> None:
    with pytest.raises(ModelError, match=f"device {device}: not usable here"):
        find_device(device)


def test_random_weights_are_the_same_everywhere(cuda: None, twins: Callable[[str], Twins]) -> None:
    for family in ("sdxl", "tiny"):
        both = twins(family)
        here, there = (one.model.with_random_weights(1) for one in (both.cpu, both.gpu))
        assert there.unet.dtype == both.gpu.model.unet.dtype
        for part in ("unet", "vae"):
            mine, theirs = (getattr(model, part).state_dict() for model in (here, there))
            assert all(torch.equal(mine[name], theirs[name].cpu()) for name in mine)
        before = both.gpu.model.unet.state_dict()
        assert any(not torch.equal(before[n].cpu(), v) for n, v in here.unet.state_dict().items())


# Indexes and searches


@pytest.mark.parametrize("quality", QUALITIES)
def test_an_index_holds_what_it_holds_by_the_cpu(
    cuda: None,
    tiny_twins: Twins,
    indexes: Callable[[str], Path],
    tmp_path: Path,
    quality: str,
) -> None:
    with (
        IndexReader.open(index(tiny_twins.gpu, tmp_path / "index", quality)) as there,
        IndexReader.open(indexes(quality)) as here,
    ):
        assert there.fingerprint == here.fingerprint
        maps = [reader.decode(reader.read_maps(reader.ids)) for reader in (there, here)]
        for mine, theirs in zip(*maps, strict=True):
            assert float((mine - theirs).abs().mean()) < 0.02 * float(theirs.abs().mean())


def scores_by_path(
    index: Index, query: Query, options: SearchOptions
) -> dict[Path, tuple[float, NDArray[np.float32]]]:
    answer = index.search(query, options)
    return {match.path: (match.score, match.heatmap) for match in answer.matches}


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("maps", ["disk", "gpu"])
def test_searches_answer_as_on_the_cpu(
    cuda: None,
    tiny_twins: Twins,
    indexes: Callable[[str], Path],
    quality: str,
    maps: str,
) -> None:
    query = Query(CAT, "cat", box=CAT_BOX)
    more = replace(
        query,
        class_name=None,
        also=(Query(PHOTOS[0], box=(20, 20, 150, 150)),),
        unlike=(Query(PHOTOS[1], point=(60, 60)),),
    )
    names = SCORES if quality == "standard" else ("consistent", "fused", "pdm")
    with (
        opened(indexes(quality), tiny_twins.cpu) as here,
        opened(indexes(quality), tiny_twins.gpu, maps) as there,
    ):
        for asked, name in [*((query, name) for name in names), (more, "consistent")]:
            options = SearchOptions(score=name)
            found, expected = (scores_by_path(each, asked, options) for each in (there, here))
            assert found.keys() == expected.keys()
            for path, (score, heat) in expected.items():
                scale = max(abs(value) for value, _ in expected.values())
                # A GPU compares cells in half precision, so some tokens choose another cell.
                assert found[path][0] == pytest.approx(score, abs=0.05 * scale), (name, path)
                np.testing.assert_allclose(found[path][1], heat, atol=0.01 * np.abs(heat).max())


# Masks, videos, evaluations


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
            found.append([mask for _, mask in segment_matches(one, answer)])
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
    places = np.arange(len(PHOTOS))
    query = BenchmarkQuery(Query(CAT, "cat", box=CAT_BOX), places == 1, places < 0, False)
    benchmark = Benchmark("folders", PHOTOS, None, [query], [])
    methods = [METHODS[name] for name in ("consistent", "late", "random-weights", "words")]
    found = [
        run_methods(benchmark, methods, extractor, tmp_path / str(extractor.device))
        for extractor in (tiny_twins.gpu, tiny_twins.cpu)
    ]
    for mine, theirs in zip(*(evaluation.results for evaluation in found), strict=True):
        np.testing.assert_allclose(
            np.array(mine.scores), np.array(theirs.scores), atol=0.02, err_msg=theirs.method.name
        )


# Full memory


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
    halved.extract(photos[:1])  # the prompt is encoded once
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
    tight = FeatureExtractor(tiny_twins.gpu.model, tiny_twins.cpu.settings, 1)
    tight.extract(photos[:1])
    gpu.total = gpu.used + 2**10
    with pytest.raises(ModelError, match="does not suffice for one of the photos"):
        tight.extract(photos)


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
