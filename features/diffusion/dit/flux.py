"""Flux.1: joint attention in double-stream blocks, then in single-stream blocks, with T5."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from features.diffusion.dit.joint_model import JointDiTModel
from features.diffusion.model import Conditioning

if TYPE_CHECKING:
    import torch

# Flux-dev was distilled from a guided model, and is told how much guidance; this is its pipeline's.
_GUIDANCE = 3.5
# Tokens of T5, padding included, as in the pipeline of Flux-dev, and of Flux-schnell.
_DEV_TOKENS, _SCHNELL_TOKENS = 512, 256


class FluxModel(JointDiTModel):
    """Flux.1, whose transformer packs 2 x 2 latents into a cell."""

    @property
    def rules(self) -> Mapping[str, str]:
        # Flux-schnell has no such input, so the number does not matter there.
        return {**super().rules, "guidance": str(_GUIDANCE)}

    @property
    def _latent_channels(self) -> int:
        return int(self.denoiser.config.in_channels) // 4  # 2 x 2 latents are packed into a token

    def _read_texts(self, texts: Sequence[str]) -> tuple[Conditioning, "torch.Tensor"]:
        import torch

        clip_tokenizer, t5_tokenizer = self._parts.tokenizers
        clip, t5 = self._text_encoders()
        length = _DEV_TOKENS if self.denoiser.config.guidance_embeds else _SCHNELL_TOKENS
        clip_ids, _, _ = self._tokens(clip_tokenizer, texts, clip_tokenizer.model_max_length)
        ids, _, own = self._tokens(t5_tokenizer, texts, length)
        with torch.inference_mode():
            pooled = clip(clip_ids).pooler_output.to(self.dtype)
            states = t5(ids)[0].to(self.dtype)
        return Conditioning(states, pooled), own

    def _forward(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning
    ) -> object:
        import torch

        batch, pooled = len(latents), conditioning.pooled
        assert pooled is not None
        rows, columns = latents.shape[2] // 2, latents.shape[3] // 2
        packed = latents.unflatten(2, (rows, 2)).unflatten(4, (columns, 2))
        packed = packed.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        places = torch.zeros(rows, columns, 3, device=latents.device)
        places[..., 1] = torch.arange(rows, device=latents.device)[:, None]
        places[..., 2] = torch.arange(columns, device=latents.device)
        guidance = None
        if self.denoiser.config.guidance_embeds:
            guidance = torch.full((batch,), _GUIDANCE, device=latents.device)
        return self.denoiser(
            packed.to(self.dtype),
            encoder_hidden_states=conditioning.states.expand(batch, -1, -1),
            pooled_projections=pooled.expand(batch, -1),
            # The transformer multiplies it by 1000.
            timestep=torch.full((batch,), timestep / 1000, device=latents.device),
            img_ids=places.flatten(0, 1),
            txt_ids=torch.zeros(conditioning.states.shape[1], 3, device=latents.device),
            guidance=guidance,
            return_dict=False,
        )
