"""The numbers that a model computes in, and its features, are those that its index tells."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from features.device import find_device
from features.diffusion.presets import InversionMethod
from features.errors import ModelError, WaldoError
from features.extractor import FeatureExtractor
from tests.helpers.models.pipelines import FAMILIES
from tests.helpers.models.simulated_cuda import SimulatedCuda
from tests.helpers.models.twins import Twins, assert_alike, index

INVERSIONS: tuple[InversionMethod, ...] = ("none", "ddim", "fixed-point")  # beside "noise"


def test_features_of_every_family_and_inversion(cuda: None, twins: Callable[[str], Twins]) -> None:
    """Families differ in the UNet and its conditions, inversions in how often it runs."""
    every_family = [(family, "noise") for family in FAMILIES]
    for family, inversion in [*every_family, *(("sdxl", inversion) for inversion in INVERSIONS)]:
        both = twins(family).with_settings(inversion=inversion, timestep=400, steps=1, iterations=2)
        photos = both.photos(2)
        found = both.gpu.extract(photos)
        assert_alike(found, both.cpu.extract(photos), 1e-2)


@pytest.mark.parametrize("family", ["pixart", "sd35", "flux", "flux2"])
def test_diffusion_transformers(family: str, cuda: None, twins: Callable[[str], Twins]) -> None:
    both = twins(family).with_settings(image_size=128)
    photos = both.photos(2)
    expected = both.cpu.extract(photos)
    assert_alike(both.gpu.extract(photos), expected, 1e-2)
    np.testing.assert_allclose(
        both.gpu.class_vector("dog"), both.cpu.class_vector("dog"), atol=1e-3
    )
    half = FeatureExtractor.load(both.cpu.model.name, "cuda", 2).changed(image_size=128)
    assert half.model.dtype == torch.float16
    assert_alike(half.extract(photos), expected, 0.2)
    near = half.class_vector("dog") - both.cpu.class_vector("dog")
    assert np.abs(near).max() < 0.1


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
