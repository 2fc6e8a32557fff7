"""What diffusion transformers of all families share: massive channels, class vectors, texts."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.device import upload
from features.diffusion.dit.block_hooks import changed_input, inputs_of
from features.diffusion.dit.dit_architecture import DiTArchitecture
from features.diffusion.model import Conditioning, DiffusionModel

if TYPE_CHECKING:
    import torch

# A channel of the residual is massive where its largest value is more than so many times that of
# the median channel. Massive channels are hundreds of times the rest (DiTF, NeurIPS 2025).
_MASSIVE = 50
# Side of the neutral latent, in pixels: large enough for a typical residual, and cheap.
_NEUTRAL_SIZE = 256
# Names per batch of the text encoders, which are large.
_NAMES_AT_ONCE = 16


class DiTModel(DiffusionModel):
    """A pipeline whose denoiser is a transformer.

    Massive channels of the residual would drown all others after the norm, so they are zeroed
    before the first norm of the block that features are taken from. They are the same for all
    photos: they are found once, in the residual of a neutral latent. That is a zero latent with the
    noise of seed 0, under an empty prompt. The rule is part of the fingerprint, and with the
    weights and the settings it decides which channels they are.
    """

    takes_any_shape = True

    architecture: DiTArchitecture

    @property
    def rules(self) -> Mapping[str, str]:
        return {
            "discarded": f"channels beyond {_MASSIVE} times the median",
            "padding": "left out",  # photos are seen in their own shape
        }

    def condition(self, prompt: str | list[str]) -> Conditioning:
        return self._read_texts([prompt] if isinstance(prompt, str) else prompt)[0]

    def features(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning, block: str
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        import torch

        module, kept = self.denoiser.get_submodule(block), self._kept_channels(block, timestep)
        with (
            torch.inference_mode(),
            changed_input(_first_norm(module), lambda residual: residual * kept),
        ):
            appearance, semantic = self._maps(
                module, kept, conditioning, lambda: self._forward(latents, timestep, conditioning)
            )
        return appearance.float(), semantic.float()

    def class_vector(self, name: str, block: str, timestep: int = 0) -> "torch.Tensor":
        import torch

        found = self.class_vectors([name], block, timestep)
        if len(found) == 0:
            raise self._unknown(name)
        return torch.from_numpy(found[0]).to(self.device)

    def class_vectors(self, names: list[str], block: str, timestep: int = 0) -> NDArray[np.float32]:
        import torch

        found = [torch.empty((0, self.architecture.dim), device=self.device)]
        module, kept = self.denoiser.get_submodule(block), self._kept_channels(block, timestep)
        for start in range(0, len(names), _NAMES_AT_ONCE):
            conditioning, own = self._read_texts(names[start : start + _NAMES_AT_ONCE])
            with (
                torch.inference_mode(),
                changed_input(_first_norm(module), lambda residual: residual * kept),
            ):
                keys = self._text_keys(module, timestep, conditioning).float()
            counted = own.unsqueeze(2).float()
            n_tokens = counted.sum(dim=1)
            means = (keys * counted).sum(dim=1) / n_tokens.clamp(min=1)
            found.append(means[n_tokens[:, 0] > 0])
        vectors: NDArray[np.float32] = torch.cat(found).cpu().numpy()
        return vectors

    def massive_channels(self, block: str, timestep: int) -> list[int]:
        """The channels of the residual that are zeroed before a block, ascending."""
        kept = self._kept_channels(block, timestep)
        numbers: list[int] = (kept == 0).nonzero()[:, 0].tolist()
        return numbers

    def _kept_channels(self, block: str, timestep: int) -> "torch.Tensor":
        """(d,) 1 for the channels that are kept, 0 for massive ones."""
        import torch

        known = self._kept.get((block, timestep))
        if known is not None:
            return known
        conditioning = self.condition("")
        self.put_text_encoders_away()
        module, neutral = self.denoiser.get_submodule(block), self._neutral_latent(timestep)
        with torch.inference_mode():
            [residual] = inputs_of(
                [_first_norm(module)], lambda: self._forward(neutral, timestep, conditioning)
            )
            tokens = self._image_part(module, residual, conditioning)
            peaks = tokens.float().abs().amax(dim=(0, 1))
            kept = (peaks <= _MASSIVE * peaks.median()).to(self.dtype)
        self._kept[block, timestep] = kept
        return kept

    @cached_property
    def _kept(self) -> "dict[tuple[str, int], torch.Tensor]":
        """The results of `_kept_channels`, by block and timestep."""
        return {}

    def _neutral_latent(self, timestep: int) -> "torch.Tensor":
        """A latent that shows nothing, (1, channels, side, side): zero, with noise of seed 0."""
        import torch

        architecture = self.architecture
        side = min(_NEUTRAL_SIZE, architecture.native_size) // architecture.latent_factor
        side -= side % architecture.cell
        # Drawn on the CPU, because a GPU gives other numbers for the same seed.
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, self._latent_channels, side, side, generator=generator)
        noise = upload(noise.numpy(), self.device)
        return self.add_noise(torch.zeros_like(noise), noise, timestep)

    @property
    def _latent_channels(self) -> int:
        return int(self.denoiser.config.in_channels)

    def _tokens(
        self, tokenizer: Any, texts: Sequence[str], length: int, padding: str = "max_length"
    ) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
        """Token ids of texts, which of them are no padding, and which are a text's own tokens.

        The last leaves out begin, end, padding and unknown words. Each is (texts, tokens).
        """
        import torch

        read = tokenizer(
            list(texts),
            padding=padding,
            max_length=length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        special = torch.tensor(tokenizer.all_special_ids)
        found = (read.input_ids, read.attention_mask, ~torch.isin(read.input_ids, special))
        ids, mask, own = (upload(values.numpy(), self.device) for values in found)
        return ids, mask, own

    @staticmethod
    def _blocks_of(denoiser: Any) -> dict[str, int]:
        found = {}
        for group in ("transformer_blocks", "single_transformer_blocks"):
            for number, block in enumerate(getattr(denoiser, group, ())):
                attention = block.attn1 if hasattr(block, "attn1") else block.attn
                found[f"{group}.{number}"] = int(attention.inner_dim)
        return found

    def _image_part(
        self, module: Any, tokens: "torch.Tensor", conditioning: Conditioning
    ) -> "torch.Tensor":
        """The image's tokens among those that the block's first norm takes, (batch, cells, d)."""
        return tokens

    @abstractmethod
    def _read_texts(self, texts: Sequence[str]) -> tuple[Conditioning, "torch.Tensor"]:
        """The conditioning of texts in one batch, and which tokens are a text's own, (texts,
        tokens) bool.
        """

    @abstractmethod
    def _forward(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning
    ) -> object:
        """One evaluation of the transformer, with one prompt for all latents or one for each."""

    @abstractmethod
    def _maps(
        self,
        module: Any,
        kept: "torch.Tensor",
        conditioning: Conditioning,
        forward: Callable[[], object],
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """F_A and F_S at a block, (batch, cells, d) each.

        kept: from `_kept_channels`, which the block's first norm respects. forward: evaluates the
        transformer.
        """

    @abstractmethod
    def _text_keys(self, module: Any, timestep: int, conditioning: Conditioning) -> "torch.Tensor":
        """The block's keys of text tokens, (texts, tokens, d)."""


def _first_norm(module: Any) -> Any:
    """The norm that a block begins with."""
    return module.norm1 if hasattr(module, "norm1") else module.norm
