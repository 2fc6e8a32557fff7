"""Inverting a photo's latent on the bundled model, and sampling it back."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from features.diffusion.inversion import inversion_timesteps, invert
from features.diffusion.presets import FeatureSettings, InversionMethod
from features.extractor import FeatureExtractor
from features.photo import load_model_input

DEMO = Path(__file__).parents[3] / "data" / "demo" / "photos"

Inverted = Callable[[InversionMethod, int, int], tuple[FeatureSettings, torch.Tensor]]


@pytest.fixture(scope="module")
def latents(tiny: FeatureExtractor) -> torch.Tensor:
    """Two photos at 64 pixels: the UNet takes any size, and small ones are quick."""
    inputs = [load_model_input(path, 64, 8) for path in sorted(DEMO.iterdir())[:2]]
    return tiny.model.encode_photos(np.stack([photo.pixels for photo in inputs]))


def settings_for(tiny: FeatureExtractor, method: InversionMethod, **kwargs: int) -> FeatureSettings:
    return replace(tiny.settings, inversion=method, **kwargs)


@pytest.fixture(scope="module")
def inverted(tiny: FeatureExtractor, latents: torch.Tensor) -> Inverted:
    """The settings and the result of a method in so many steps, of so many iterations each."""

    @cache
    def make(
        method: InversionMethod, steps: int, iterations: int
    ) -> tuple[FeatureSettings, torch.Tensor]:
        settings = settings_for(tiny, method, timestep=600, steps=steps, iterations=iterations)
        conditioning = tiny.model.condition(settings.prompt)
        return settings, invert(tiny.model, latents, settings, conditioning, ["x"] * len(latents))

    return make


def sampled_back(
    tiny: FeatureExtractor, noisy: torch.Tensor, settings: FeatureSettings
) -> torch.Tensor:
    """Deterministic DDIM sampling down the inversion's own timesteps (DDIM Eq. 12, sigma 0)."""
    conditioning = tiny.model.condition(settings.prompt)
    alphas = tiny.model.alphas_cumprod
    down = list(reversed(inversion_timesteps(settings)))
    for timestep, following in zip(down, [*down[1:], None], strict=True):
        alpha = float(alphas[timestep])
        target = 1.0 if following is None else float(alphas[following])
        noise = tiny.model.predict_noise(noisy, timestep, conditioning)
        clean = (noisy - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        noisy = target**0.5 * clean + (1 - target) ** 0.5 * noise
    return noisy


def psnr(latents: torch.Tensor, other: torch.Tensor) -> float:
    peak = float(latents.max() - latents.min())
    return float(10 * torch.log10(peak**2 / (latents - other).square().mean()))


@pytest.mark.parametrize(("steps", "iterations"), [(4, 6), (8, 3)])
def test_fixed_point_inversion_beats_ddim(
    tiny: FeatureExtractor,
    latents: torch.Tensor,
    inverted: Inverted,
    steps: int,
    iterations: int,
) -> None:
    quality = {}
    methods: tuple[InversionMethod, ...] = ("ddim", "fixed-point")
    for method in methods:
        settings, noisy = inverted(method, steps, iterations)
        quality[method] = psnr(latents, sampled_back(tiny, noisy, settings))
    assert quality["fixed-point"] > quality["ddim"] + 3.0, quality


def test_each_iteration_comes_nearer_to_the_fixed_point(
    tiny: FeatureExtractor, latents: torch.Tensor
) -> None:
    """The largest |f(z) - z| / |z| of the first of four steps falls."""
    alpha = float(tiny.model.alphas_cumprod[150])
    conditioning = tiny.model.condition(tiny.settings.prompt)
    residuals = []
    for iterations in range(1, 7):
        settings = settings_for(tiny, "fixed-point", timestep=150, steps=1, iterations=iterations)
        noisy = invert(tiny.model, latents, settings, conditioning, ["x"] * len(latents))
        noise = tiny.model.predict_noise(noisy, 150, conditioning)
        again = alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise
        change = (again - noisy).flatten(1).norm(dim=1) / noisy.flatten(1).norm(dim=1)
        residuals.append(float(change.max()))
    assert all(later < earlier for earlier, later in itertools.pairwise(residuals)), residuals


def test_one_step_noising_depends_on_content_alone(
    tiny: FeatureExtractor, latents: torch.Tensor
) -> None:
    settings = settings_for(tiny, "noise", timestep=261)
    conditioning = tiny.model.condition(tiny.settings.prompt)
    hashes = [f"photo {i}" for i in range(len(latents))]
    forward = invert(tiny.model, latents, settings, conditioning, hashes)
    backward = invert(tiny.model, latents.flip(0), settings, conditioning, hashes[::-1])
    torch.testing.assert_close(forward, backward.flip(0), rtol=0, atol=0)
    # Noise of unit variance, weighted as the schedule says.
    alpha = float(tiny.model.alphas_cumprod[261])
    noise = (forward - alpha**0.5 * latents) / (1 - alpha) ** 0.5
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)


def test_timesteps_end_where_features_are_taken() -> None:
    settings = FeatureSettings(512, "block", 999, "fixed-point", steps=4)
    assert inversion_timesteps(settings) == [250, 500, 749, 999]
