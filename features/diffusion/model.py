"""A pre-trained text-to-image diffusion model: the parts of a pipeline that Waldo uses."""

from collections.abc import Callable
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
from features.diffusion.capture import capture, transformer_block, transformer_blocks
from features.diffusion.words import Vocabulary
from features.errors import ModelError, RegionError

if TYPE_CHECKING:
    import torch


# Names per batch of the text encoder.
_NAMES_AT_ONCE = 64
# Photos per batch of the VAE, which computes in float32 and takes most of the memory.
_PHOTOS_AT_ONCE = 8


@dataclass(frozen=True)
class Conditioning:
    """A prompt as the UNet takes it.

    states: (prompts, tokens, width) text encoder output. pooled: (prompts, width), and sizes: (1,
    6), the original size, the crop's corner and the target size, each (height, width) in pixels;
    both for SDXL, else None. Features are taken under one prompt.
    """

    states: "torch.Tensor"
    pooled: "torch.Tensor | None"
    sizes: "torch.Tensor | None"


@dataclass(frozen=True)
class Parts:
    """What is read of a pipeline: modules of diffusers and transformers, with their weights.

    tokenizers, text_encoders: one of each, or two for SDXL. alphas_cumprod: (1000,) float64, the
    product of (1 - beta): how much of the clean latent remains.
    """

    unet: Any
    vae: Any
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    alphas_cumprod: "torch.Tensor"


class DiffusionModel:
    """The parts of a pipeline of the Stable Diffusion family that features need.

    name: the preset's name, hub id or folder by which it was loaded. revision: the hub's commit, or
    "sha256:..." over the weight files of a local folder. architecture: what its configuration says.
    These are known at once. The device is looked for, and the weights are read, when they are first
    used; whatever uses them raises ModelError where they cannot be. All tensors returned are
    float32 on `device` unless stated otherwise; latents are (batch, channels, height, width),
    scaled to unit variance as the UNet expects them.
    """

    def __init__(
        self,
        name: str,
        revision: str,
        architecture: Architecture,
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
        """That of the weights of the UNet and the text encoders."""
        return self._precision or usual_precision(self._device_name)

    @property
    def dtype(self) -> "torch.dtype":
        """What the UNet and the text encoders compute in."""
        return computing_type(self.device, self.precision)

    @cached_property
    def _parts(self) -> Parts:
        parts = self._read(self.device, self.precision)
        said = {block.path: block.dim for block in self.architecture.blocks}
        if transformer_blocks(parts.unet) != said:
            raise ModelError(
                f"{self.name}: its UNet has other transformer blocks than its config.json says"
            )
        return parts

    def load(self) -> None:
        """Read the weights now. Raises ModelError."""
        _ = self._parts

    @property
    def unet(self) -> Any:
        return self._parts.unet

    @property
    def vae(self) -> Any:
        return self._parts.vae

    def _text_encoders(self) -> list[Any]:
        """The text encoders, on the device."""
        return [encoder.to(self.device) for encoder in self._parts.text_encoders]

    def put_text_encoders_away(self) -> None:
        """Take the text encoders from the device, until a text is read again.

        Those of SDXL take 1.5 GiB, which photos can use.
        """
        for encoder in self._parts.text_encoders:
            encoder.to("cpu")

    @property
    def alphas_cumprod(self) -> "torch.Tensor":
        return self._parts.alphas_cumprod

    def encode_photos(self, pixels: NDArray[np.uint8]) -> "torch.Tensor":
        """Clean latents z0 of (batch, size, size, 3) uint8 sRGB pixels."""
        import torch

        weight = next(self.vae.parameters())
        photos = upload(pixels, weight.device)
        shift = self.vae.config.get("shift_factor") or 0.0
        found = []
        with torch.inference_mode():
            for some in photos.split(_PHOTOS_AT_ONCE):
                image = some.to(weight.dtype).permute(0, 3, 1, 2)
                encoded = self.vae.encode(image / 127.5 - 1.0)
                # The mode, not a sample: the same photo gives the same latent.
                latents = encoded.latents if "latents" in encoded else encoded.latent_dist.mode()
                found.append((latents.float() - shift) * self.vae.config.scaling_factor)
            return torch.cat(found)

    def condition(self, prompt: str | list[str]) -> Conditioning:
        """The conditioning of a prompt, padded to the text encoder's length as in the pipeline.

        Several prompts give their conditionings in one batch.
        """
        import torch

        states: list[torch.Tensor] = []
        pooled: torch.Tensor | None = None
        is_xl = self.unet.config.addition_embed_type == "text_time"
        parts = self._parts
        for tokenizer, encoder in zip(parts.tokenizers, self._text_encoders(), strict=True):
            ids = upload(self._tokenize(tokenizer, prompt).numpy(), self.device)
            with torch.inference_mode():
                output = encoder(ids, output_hidden_states=True)
            if is_xl:
                # SDXL was trained on the states before the last layer, of both encoders.
                states.append(output.hidden_states[-2])
                pooled = output[0]
            else:
                states.append(output[0])
        joined = torch.cat(states, dim=-1).to(self.dtype)
        if pooled is None:
            return Conditioning(joined, None, None)
        size = float(self.architecture.native_size)
        sizes = upload(np.array([[size, size, 0, 0, size, size]], np.float32), self.device)
        return Conditioning(joined, pooled.to(self.dtype), sizes.to(self.dtype))

    def check_class_name(self, name: str) -> None:
        """Raise RegionError where the model certainly knows no word of a class name.

        Neither weights nor torch are needed for this.
        """
        if not self.vocabulary.knows(self.vocabulary.in_singular(name)):
            raise self._unknown(name)

    def class_states(self, name: str) -> "torch.Tensor":
        """Text encoder output at the tokens of a bare class name, (tokens, width).

        Begin, end and padding tokens are left out, and words that the model does not know. A plural
        is read as its singular where only that is known. Raises RegionError where no token is left.
        """
        import torch

        name = self.vocabulary.in_singular(name)
        ids = self._tokenize(self._parts.tokenizers[0], name)[0]
        special = torch.tensor(self._parts.tokenizers[0].all_special_ids)
        positions = (~torch.isin(ids, special)).nonzero()[:, 0]
        if len(positions) == 0:
            raise self._unknown(name)
        return self.condition(name).states[0, positions.to(self.device)]

    def _unknown(self, name: str) -> RegionError:
        near = self.vocabulary.near(name)
        advice = f"did you mean {' or '.join(near)}?" if near else "use another word for it."
        return RegionError(
            f"class name {name!r}: the model {self.name} knows none of its words; {advice} "
            "`waldo models --words` lists what it knows; a mask, a box or a point needs no word"
        )

    def class_vector(self, name: str, block: str) -> "torch.Tensor":
        """C, (d,): the block's cross-attention keys, averaged over the tokens of the class name.

        Raises RegionError where the model knows no token of the name.
        """
        import torch

        layer = transformer_block(self.unet, block).attn2.to_k
        with torch.inference_mode():
            return layer(self.class_states(name).to(self.dtype)).float().mean(dim=0)

    def class_vectors(self, names: list[str], block: str) -> NDArray[np.float32]:
        """The class vectors of the names of which the model knows a token, (n, d), in order."""
        import torch

        special = torch.tensor(self._parts.tokenizers[0].all_special_ids)
        known = ~torch.isin(self._tokenize(self._parts.tokenizers[0], names), special)
        rows = known.any(dim=1).nonzero()[:, 0]
        layer = transformer_block(self.unet, block).attn2.to_k
        vectors = [torch.empty((0, layer.out_features), device=self.device)]
        counted = upload(known[rows].numpy(), self.device).unsqueeze(2)
        for start in range(0, len(rows), _NAMES_AT_ONCE):
            batch = rows[start : start + _NAMES_AT_ONCE]
            states = self.condition([names[row] for row in batch.tolist()]).states
            with torch.inference_mode():
                keys = layer(states.to(self.dtype)).float()
            own = counted[start : start + _NAMES_AT_ONCE]
            # Multiplied and not indexed, because names differ in their number of tokens.
            vectors.append((keys * own).sum(dim=1) / own.sum(dim=1))
        found: NDArray[np.float32] = torch.cat(vectors).cpu().numpy()
        return found

    def predict_noise(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning
    ) -> "torch.Tensor":
        """The noise in noisy latents at a timestep: one evaluation of the whole UNet."""
        import torch

        with torch.inference_mode():
            output = self._forward(latents, timestep, conditioning).float()
        if self.architecture.prediction == "epsilon":
            return output
        alpha = float(self.alphas_cumprod[timestep])
        return alpha**0.5 * output + (1.0 - alpha) ** 0.5 * latents

    def features(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning, block: str
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """F_A and F_S, each (batch, cells, d), at a block (PDM Eq. 1 and 2)."""
        import torch

        module = transformer_block(self.unet, block)
        with torch.inference_mode():
            appearance, semantic = capture(
                module, lambda: self._forward(latents, timestep, conditioning)
            )
        return appearance.float(), semantic.float()

    def with_random_weights(self, seed: int = 0) -> "DiffusionModel":
        """The architecture of this model with newly initialised weights, as a baseline.

        The same seed gives the same weights. Its revision is "random:SEED".
        """

        def read(*_: object) -> Parts:
            return _with_new_weights(self._parts, seed)

        return DiffusionModel(
            *(self.name, f"random:{seed}", self.architecture, self._device_name),
            vocabulary=self.vocabulary,
            read=read,
            precision=self._precision,
        )

    @cached_property
    def _timesteps(self) -> "torch.Tensor":
        """All timesteps on the device, where the UNet would have to wait for a number."""
        import torch

        return torch.arange(len(self.alphas_cumprod), device=self.device)

    def _forward(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning
    ) -> "torch.Tensor":
        batch = len(latents)
        added = None
        if conditioning.pooled is not None and conditioning.sizes is not None:
            added = {
                "text_embeds": conditioning.pooled.expand(batch, -1),
                "time_ids": conditioning.sizes.expand(batch, -1),
            }
        output: torch.Tensor = self.unet(
            latents.to(self.dtype),
            self._timesteps[timestep],
            encoder_hidden_states=conditioning.states.expand(batch, -1, -1),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output

    @staticmethod
    def _tokenize(tokenizer: Any, text: str | list[str]) -> "torch.Tensor":
        ids: torch.Tensor = tokenizer(
            text,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return ids


def _with_new_weights(parts: Parts, seed: int) -> Parts:
    """Copies of the modules, initialised as the seed decides, whatever their device and precision:
    the numbers are drawn on the CPU in float32.
    """
    import copy

    import torch

    modules = copy.deepcopy([parts.unet, parts.vae, *parts.text_encoders])
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
    unet, vae, *text_encoders = modules
    return replace(parts, unet=unet, vae=vae, text_encoders=tuple(text_encoders))
