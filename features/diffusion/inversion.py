"""From a clean latent to a noisy one that belongs to the same photo.

Notation: z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) e, a_t the cumulative product of the noise schedule.
A deterministic (DDIM) sampling step from t down to s is

    z_s = sqrt(a_s / a_t) (z_t - sqrt(1 - a_t) e(z_t, t)) + sqrt(1 - a_s) e(z_t, t)

and inversion looks for the z_t that this step maps to a known z_s.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from features.device import upload
from features.diffusion.model import Conditioning, DiffusionModel
from features.diffusion.presets import FeatureSettings
from features.diffusion.unet_model import UNetModel

if TYPE_CHECKING:
    import torch


def inversion_timesteps(settings: FeatureSettings) -> list[int]:
    """The timesteps visited, ascending, the last one `settings.timestep`."""
    return [round(settings.timestep * i / settings.steps) for i in range(1, settings.steps + 1)]


def invert(
    model: DiffusionModel,
    latents: "torch.Tensor",
    settings: FeatureSettings,
    conditioning: Conditioning,
    content_hashes: Sequence[str],
) -> "torch.Tensor":
    """Noisy latents at `settings.timestep`, by `settings.inversion`; shaped as the clean ones.

    latents: clean, (batch, channels, height, width). content_hashes: one per photo; they alone seed
    the noise, never the place in the batch.
    """
    if settings.inversion == "none":
        return latents
    if settings.inversion == "noise":
        noise = _content_noise(latents, content_hashes)
        return model.add_noise(latents, noise, settings.timestep)
    assert isinstance(model, UNetModel)  # the settings of other models are checked
    iterations = 1 if settings.inversion == "ddim" else settings.iterations
    alpha_from = 1.0
    for timestep in inversion_timesteps(settings):
        alpha_to = float(model.alphas_cumprod[timestep])
        latents = _invert_step(
            model, latents, timestep, alpha_from, alpha_to, conditioning, iterations
        )
        alpha_from = alpha_to
    return latents


def _invert_step(
    model: UNetModel,
    start: "torch.Tensor",
    timestep: int,
    alpha_from: float,
    alpha_to: float,
    conditioning: Conditioning,
    iterations: int,
) -> "torch.Tensor":
    """One step up, solving z = f(z) with f(z) = A start + B e(z, t) by fixed-point iteration.

    One iteration from z = start is DDIM inversion, which takes the noise at the wrong end of the
    step. More iterations follow AIDI's accelerated form (Pan et al., ICCV 2023): the next z is the
    mean of the last two values of f, which damps the oscillation of the plain iteration.
    """
    keep = (alpha_to / alpha_from) ** 0.5
    gain = (1.0 - alpha_to) ** 0.5 - keep * (1.0 - alpha_from) ** 0.5
    current, previous = start, None
    for _ in range(iterations):
        noise = model.predict_noise(current, timestep, conditioning)
        value = keep * start + gain * noise
        current = value if previous is None else (value + previous) / 2
        previous = value
    return current


def _content_noise(latents: "torch.Tensor", content_hashes: Sequence[str]) -> "torch.Tensor":
    """Gaussian noise shaped as `latents`; each photo's is drawn from the seed of its content."""
    import torch

    noises = []
    for content_hash in content_hashes:
        seed = int.from_bytes(hashlib.sha256(content_hash.encode()).digest()[:8], "big") >> 1
        # Always drawn on the CPU, because a GPU gives other numbers for the same seed.
        generator = torch.Generator().manual_seed(seed)
        noises.append(torch.randn(latents.shape[1:], generator=generator))
    return upload(torch.stack(noises).numpy(), latents.device)
