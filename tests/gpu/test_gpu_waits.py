"""What the device costs: how often the program waits for it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from features.diffusion.vocabulary import nouns
from indexer.ingest.build import index_photos
from indexer.reader import IndexReader
from tests.helpers.models.pipelines import FAMILIES
from tests.helpers.models.simulated_cuda import SimulatedCuda
from tests.helpers.models.twins import PHOTOS, Twins


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


def test_photos_of_several_codecs_are_told_apart_without_waiting(
    gpu: SimulatedCuda, tiny_twins: Twins, tmp_path: Path
) -> None:
    for photos in (PHOTOS[:1], PHOTOS):
        index_photos(photos, tmp_path / "index", tiny_twins.cpu)
    with IndexReader.open(tmp_path / "index") as reader:
        expected = [part.encoded for _, part in reader.read_maps(reader.ids).by_codec()]
        assert len(expected) == 2
        reader.hold_maps(tiny_twins.gpu.device)
        gpu.waits.clear()
        found = [part.encoded for _, part in reader.read_maps(reader.ids).by_codec()]
        assert gpu.waits == {}
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine.cpu().numpy(), theirs)
