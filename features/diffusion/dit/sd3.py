"""Stable Diffusion 3 and 3.5: joint attention with two CLIP encoders and T5."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from features.diffusion.dit.joint_model import JointDiTModel
from features.diffusion.model import Conditioning

if TYPE_CHECKING:
    import torch

# Tokens of T5, padding included, as in the pipeline.
_T5_TOKENS = 256


class SD3Model(JointDiTModel):
    """SD3 and SD3.5. In early blocks, SD3.5 has a second attention `attn2` of the image to itself;
    features are those of the joint attention `attn`.
    """

    def _read_texts(self, texts: Sequence[str]) -> tuple[Conditioning, "torch.Tensor"]:
        """CLIP's tokens stand first, then T5's; a name's own tokens are among both."""
        import torch

        states, pooled, own = [], [], []
        tokenizers, encoders = self._parts.tokenizers, self._text_encoders()
        for tokenizer, encoder in zip(tokenizers[:2], encoders[:2], strict=True):
            ids, _, clip_own = self._tokens(tokenizer, texts, tokenizer.model_max_length)
            with torch.inference_mode():
                output = encoder(ids, output_hidden_states=True)
            states.append(output.hidden_states[-2])
            pooled.append(output[0])
            own.append(clip_own)
        width = int(self.denoiser.config.joint_attention_dim)
        clip = torch.cat(states, dim=2)
        clip = torch.nn.functional.pad(clip, (0, width - clip.shape[2]))
        t5, t5_own = self._read_by_t5(texts, width)
        return (
            Conditioning(
                torch.cat([clip.to(self.dtype), t5], dim=1),
                torch.cat(pooled, dim=1).to(self.dtype),
            ),
            # Both CLIP encoders read the same tokens.
            torch.cat([own[0], t5_own], dim=1),
        )

    def _read_by_t5(
        self, texts: Sequence[str], width: int
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """T5's states and a text's own tokens among them; zero and none without T5."""
        import torch

        if len(self._parts.text_encoders) < 3:
            shape = len(texts), _T5_TOKENS
            states = torch.zeros(*shape, width, dtype=self.dtype, device=self.device)
            return states, torch.zeros(shape, dtype=torch.bool, device=self.device)
        ids, _, own = self._tokens(self._parts.tokenizers[2], texts, _T5_TOKENS)
        with torch.inference_mode():
            return self._text_encoders()[2](ids)[0].to(self.dtype), own

    def _forward(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning
    ) -> object:
        import torch

        batch, pooled = len(latents), conditioning.pooled
        assert pooled is not None
        return self.denoiser(
            latents.to(self.dtype),
            encoder_hidden_states=conditioning.states.expand(batch, -1, -1),
            pooled_projections=pooled.expand(batch, -1),
            timestep=torch.full((batch,), timestep, device=latents.device),
            return_dict=False,
        )
