"""PixArt alpha and Sigma: a transformer with cross-attention to the states of a T5 encoder."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from features.diffusion.dit.block_hooks import changed_input, outputs_of
from features.diffusion.dit.dit_model import DiTModel
from features.diffusion.model import Conditioning

if TYPE_CHECKING:
    import torch

# Tokens of a text at most, as Sigma's pipeline has it. Padding is masked, so none is needed.
_MOST_TOKENS = 300


class PixArtModel(DiTModel):
    """PixArt: F_A = (Q + K) / 2 of self-attention, F_S = Q of cross-attention, as in a UNet.

    Cross-attention takes the residual without a norm. For F_S it is normalised, and its massive
    channels are zeroed, as they are before self-attention.
    """

    def _read_texts(self, texts: Sequence[str]) -> tuple[Conditioning, "torch.Tensor"]:
        import torch

        [tokenizer], [encoder] = self._parts.tokenizers, self._text_encoders()
        ids, mask, own = self._tokens(tokenizer, texts, _MOST_TOKENS, padding="longest")
        with torch.inference_mode():
            states = encoder(ids, attention_mask=mask)[0].to(self.dtype)
        return Conditioning(states, mask=mask), own

    def _forward(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning
    ) -> object:
        import torch

        batch, states, mask = len(latents), conditioning.states, conditioning.mask
        assert mask is not None
        added: dict[str, torch.Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.denoiser.use_additional_conditions:  # alpha at 1024 pixels
            height, width = (
                float(side * self.architecture.latent_factor) for side in latents.shape[2:]
            )
            size = torch.tensor([[height, width]], device=latents.device)
            added["resolution"] = size.expand(batch, -1)
            added["aspect_ratio"] = (size[:, :1] / size[:, 1:]).expand(batch, -1)
        return self.denoiser(
            latents.to(self.dtype),
            encoder_hidden_states=states.expand(batch, -1, -1),
            encoder_attention_mask=mask.expand(batch, -1),
            timestep=torch.full((batch,), timestep, device=latents.device),
            added_cond_kwargs=added,
            return_dict=False,
        )

    def _maps(
        self,
        module: Any,
        kept: "torch.Tensor",
        conditioning: Conditioning,
        forward: Callable[[], object],
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        from torch.nn.functional import layer_norm

        def normalised(residual: "torch.Tensor") -> "torch.Tensor":
            return layer_norm(residual * kept, kept.shape)

        projections = [module.attn1.to_q, module.attn1.to_k, module.attn2.to_q]
        with changed_input(module.attn2.to_q, normalised):
            query, key, cross_query = outputs_of(projections, forward)
        return (query + key) / 2, cross_query

    def _text_keys(self, module: Any, timestep: int, conditioning: Conditioning) -> "torch.Tensor":
        states = conditioning.states
        if self.denoiser.caption_projection is not None:
            states = self.denoiser.caption_projection(states)
        keys: torch.Tensor = module.attn2.to_k(states)
        return keys
