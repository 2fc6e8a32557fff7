"""A pre-trained text-to-image diffusion model: the parts of a pipeline that Waldo uses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.device import (
    Precision,
    computing_type,
    find_device,
    upload,
    usual_precision,
)
from features.diffusion.architecture import Architecture
from features.diffusion.dit.dit_architecture import DiTArchitecture
from features.diffusion.words import Vocabulary
from features.errors import ModelError, RegionError

if TYPE_CHECKING:
    import torch


# Photos per batch of the VAE, which computes in float32 and takes most of the memory.
_PHOTOS_AT_ONCE = 8


@dataclass(frozen=True)
class Conditioning:
    """A prompt as the denoiser takes it.

    states: (prompts, tokens, width) text encoder output. pooled: (prompts, width) for SDXL, SD3 and
    Flux, else None. sizes: (1, 6), the original size, the crop's corner and the target size, each
    (height, width) in pixels, for SDXL, else None. mask: (prompts, tokens), 1 for tokens and 0 for
    padding that is not to be attended to, for PixArt, else None. Features are taken under one
    prompt.
    """

    states: "torch.Tensor"
    pooled: "torch.Tensor | None" = None
    sizes: "torch.Tensor | None" = None
    mask: "torch.Tensor | None" = None


@dataclass(frozen=True)
class Parts:
    """What is read of a pipeline: modules of diffusers and transformers, with their weights.

    denoiser: the UNet or the transformer. tokenizers, text_encoders: as many of each as the
    architecture lists. alphas_cumprod: (1000,) float64, the product of (1 - beta): how much of the
    clean latent remains; None for a rectified flow, which has no such schedule.
    """

    denoiser: Any
    vae: Any
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    alphas_cumprod: "torch.Tensor | None"


class DiffusionModel(ABC):
    """The parts of a text-to-image pipeline that features need; a subclass for each family.

    name: the preset's name, hub id or folder by which it was loaded. revision: the hub's commit, or
    "sha256:..." over the weight files of a local folder. architecture: what its configuration says.
    These are known at once. The device is looked for, and the weights are read, when they are first
    used; whatever uses them raises ModelError where they cannot be. All tensors returned are
    float32 on `device` unless stated otherwise; latents are (batch, channels, height, width),
    scaled to unit variance as the denoiser expects them. takes_any_shape: whether the denoiser sees
    photos without padding, as transformers do.
    """

    takes_any_shape = False

    architecture: Architecture | DiTArchitecture

    def __init__(
        self,
        name: str,
        revision: str,
        architecture: Architecture | DiTArchitecture,
        device: str,
        vocabulary: Vocabulary,
        read: "Callable[[torch.device, Precision], Parts]",
        precision: Precision | None = None,
    ) -> None:
        """device: "auto" (a GPU where there is one), or any torch device. vocabulary: of the first
        tokenizer. read: reads the weights onto a device in a precision; raises ModelError.
        precision: None for what is usual on the device.
        """
        self.name = name
        self.revision = revision
        self.architecture = architecture
        self._device_name = device
        self.vocabulary = vocabulary
        self._read = read
        self._precision = precision

    @cached_property
    def device(self) -> "torch.device":
        return find_device(self._device_name)

    @cached_property
    def precision(self) -> Precision:
        """That of the weights of the denoiser and the text encoders."""
        return self._precision or usual_precision(self._device_name)

    @property
    def dtype(self) -> "torch.dtype":
        """What the denoiser and the text encoders compute in."""
        return computing_type(self.device, self.precision)

    @cached_property
    def _parts(self) -> Parts:
        parts = self._read(self.device, self.precision)
        if self._blocks_of(parts.denoiser) != self.architecture.dims:
            raise ModelError(
                f"{self.name}: its {self.architecture.denoiser} has other transformer blocks than "
                "its config.json says"
            )
        return parts

    def load(self) -> None:
        """Read the weights now. Raises ModelError."""
        _ = self._parts

    @property
    def denoiser(self) -> Any:
        """The UNet or the transformer."""
        return self._parts.denoiser

    @property
    def vae(self) -> Any:
        return self._parts.vae

    def _text_encoders(self) -> list[Any]:
        """The text encoders, on the device."""
        return [encoder.to(self.device) for encoder in self._parts.text_encoders]

    def put_text_encoders_away(self) -> None:
        """Take the text encoders from the device, until a text is read again.

        Those of SDXL take 1.5 GiB, and T5 takes 9, which photos can use.
        """
        for encoder in self._parts.text_encoders:
            encoder.to("cpu")

    @property
    def alphas_cumprod(self) -> "torch.Tensor":
        alphas = self._parts.alphas_cumprod
        assert alphas is not None  # a rectified flow does without
        return alphas

    @property
    def rules(self) -> Mapping[str, str]:
        """What decides the numbers beside weights and settings, for the fingerprint."""
        return {}

    def encode_photos(self, pixels: NDArray[np.uint8]) -> "torch.Tensor":
        """Clean latents z0 of (batch, height, width, 3) uint8 sRGB pixels."""
        import torch

        weight = next(self.vae.parameters())
        photos = upload(pixels, weight.device)
        found = []
        with torch.inference_mode():
            for some in photos.split(_PHOTOS_AT_ONCE):
                image = some.to(weight.dtype).permute(0, 3, 1, 2)
                encoded = self.vae.encode(image / 127.5 - 1.0)
                # The mode, not a sample: the same photo gives the same latent.
                latents = encoded.latents if "latents" in encoded else encoded.latent_dist.mode()
                found.append(self._scaled(latents.float()))
            return torch.cat(found)

    def _scaled(self, latents: "torch.Tensor") -> "torch.Tensor":
        """Latents of the VAE as the denoiser takes them."""
        config = self.vae.config
        scaled: torch.Tensor = (
            latents - (config.get("shift_factor") or 0.0)
        ) * config.scaling_factor
        return scaled

    def add_noise(
        self, latents: "torch.Tensor", noise: "torch.Tensor", timestep: int
    ) -> "torch.Tensor":
        """Noisy latents at a timestep, by the model's schedule."""
        alpha = float(self.alphas_cumprod[timestep])
        return alpha**0.5 * latents + (1.0 - alpha) ** 0.5 * noise

    @abstractmethod
    def condition(self, prompt: str | list[str]) -> Conditioning:
        """The conditioning of a prompt, as the pipeline makes it.

        Several prompts give their conditionings in one batch.
        """

    @abstractmethod
    def features(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning, block: str
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """F_A and F_S, each (batch, cells, d), at a block (PDM Eq. 1 and 2)."""

    @abstractmethod
    def class_vector(self, name: str, block: str, timestep: int = 0) -> "torch.Tensor":
        """C, (d,): the block's text keys, averaged over the tokens of the class name.

        timestep: of the features, for families whose text keys depend on it. Raises RegionError
        where the model knows no token of the name.
        """

    @abstractmethod
    def class_vectors(self, names: list[str], block: str, timestep: int = 0) -> NDArray[np.float32]:
        """The class vectors of the names of which the model knows a token, (n, d), in order."""

    @staticmethod
    @abstractmethod
    def _blocks_of(denoiser: Any) -> dict[str, int]:
        """The channels of the queries of all blocks that features can be taken from, by path."""

    def check_class_name(self, name: str) -> None:
        """Raise RegionError where the model certainly knows no word of a class name.

        Neither weights nor torch are needed for this.
        """
        if not self.vocabulary.knows(self.vocabulary.in_singular(name)):
            raise self._unknown(name)

    def _unknown(self, name: str) -> RegionError:
        near = self.vocabulary.near(name)
        advice = f"did you mean {' or '.join(near)}?" if near else "use another word for it."
        return RegionError(
            f"class name {name!r}: the model {self.name} knows none of its words; {advice} "
            "`waldo models --words` lists what it knows; a mask, a box or a point needs no word"
        )

    def with_random_weights(self, seed: int = 0) -> "DiffusionModel":
        """The architecture of this model with newly initialised weights, as a baseline.

        The same seed gives the same weights. Its revision is "random:SEED".
        """

        def read(*_: object) -> Parts:
            return _with_new_weights(self._parts, seed)

        return type(self)(
            *(self.name, f"random:{seed}", self.architecture, self._device_name),
            vocabulary=self.vocabulary,
            read=read,
            precision=self._precision,
        )


def _with_new_weights(parts: Parts, seed: int) -> Parts:
    """Copies of the modules, initialised as the seed decides, whatever their device and precision:
    the numbers are drawn on the CPU in float32.
    """
    import copy

    import torch

    modules = copy.deepcopy([parts.denoiser, parts.vae, *parts.text_encoders])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in modules:
            for layer in module.modules():
                weight = next(layer.parameters(), None)
                if hasattr(layer, "reset_parameters") and weight is not None:
                    device, dtype = weight.device, weight.dtype
                    layer.to("cpu", torch.float32)
                    layer.reset_parameters()
                    layer.to(device, dtype)
    denoiser, vae, *text_encoders = modules
    return replace(parts, denoiser=denoiser, vae=vae, text_encoders=tuple(text_encoders))
