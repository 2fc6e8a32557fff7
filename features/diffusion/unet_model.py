"""Stable Diffusion's UNets, up to SDXL: PDM's own kind of model."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.device import upload
from features.diffusion.architecture import Architecture
from features.diffusion.capture import capture, transformer_block, transformer_blocks
from features.diffusion.model import Conditioning, DiffusionModel

if TYPE_CHECKING:
    import torch


# Names per batch of the text encoder.
_NAMES_AT_ONCE = 64


class UNetModel(DiffusionModel):
    """A pipeline of the Stable Diffusion family, whose denoiser is a UNet with cross-attention."""

    architecture: Architecture

    @property
    def unet(self) -> Any:
        return self.denoiser

    def condition(self, prompt: str | list[str]) -> Conditioning:
        """The conditioning of a prompt, padded to the text encoder's length as in the pipeline.

        Several prompts give their conditionings in one batch.
        """
        import torch

        states: list[torch.Tensor] = []
        pooled: torch.Tensor | None = None
        is_xl = self.unet.config.addition_embed_type == "text_time"
        tokenizers = self._parts.tokenizers
        for tokenizer, encoder in zip(tokenizers, self._text_encoders(), strict=True):
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

    def class_vector(self, name: str, block: str, timestep: int = 0) -> "torch.Tensor":
        """C, (d,): the block's cross-attention keys, averaged over the tokens of the class name.

        Raises RegionError where the model knows no token of the name.
        """
        import torch

        layer = transformer_block(self.unet, block).attn2.to_k
        with torch.inference_mode():
            return layer(self.class_states(name).to(self.dtype)).float().mean(dim=0)

    def class_vectors(self, names: list[str], block: str, timestep: int = 0) -> NDArray[np.float32]:
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
    def _blocks_of(denoiser: Any) -> dict[str, int]:
        return transformer_blocks(denoiser)

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
