"""What transformers with joint attention share: image and text tokens attend to each other."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from features.diffusion.dit.block_hooks import outputs_of
from features.diffusion.dit.dit_model import DiTModel
from features.diffusion.model import Conditioning

if TYPE_CHECKING:
    import torch


class JointDiTModel(DiTModel):
    """A rectified flow by joint attention: F_A = (Q + K) / 2 and F_S = Q of the image's tokens.

    Both are taken after the norms of queries and keys, where the model has them, and before rotary
    embedding, so they do not turn with the position. Above the first block the text's keys depend
    on the image, and C must not: it is taken beside the neutral latent. A single-stream block, as
    those of Flux are, takes text and image as one sequence of tokens, text first.
    """

    @property
    def rules(self) -> Mapping[str, str]:
        return {**super().rules, "class_beside": "zero latent with noise of seed 0"}

    def add_noise(
        self, latents: "torch.Tensor", noise: "torch.Tensor", timestep: int
    ) -> "torch.Tensor":
        """The straight way from the latent to the noise: (1 - s) z + s e, s = timestep / 1000."""
        share = timestep / 1000
        return (1.0 - share) * latents + share * noise

    def _maps(
        self,
        module: Any,
        kept: "torch.Tensor",
        conditioning: Conditioning,
        forward: Callable[[], object],
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        attention = module.attn
        wanted = [
            _normed(attention, "norm_q", "to_q"),
            _normed(attention, "norm_k", "to_k"),
        ]
        query, key = (
            self._image_part(module, joined_heads(values, attention.heads), conditioning)
            for values in outputs_of(wanted, forward)
        )
        return (query + key) / 2, query

    def _image_part(
        self, module: Any, tokens: "torch.Tensor", conditioning: Conditioning
    ) -> "torch.Tensor":
        is_single = not hasattr(module, "norm1")
        return tokens[:, conditioning.states.shape[1] :] if is_single else tokens

    def _text_keys(self, module: Any, timestep: int, conditioning: Conditioning) -> "torch.Tensor":
        neutral = self._neutral_latent(timestep).expand(len(conditioning.states), -1, -1, -1)
        attention = module.attn
        if getattr(attention, "add_k_proj", None) is not None:
            wanted = _normed(attention, "norm_added_k", "add_k_proj")
        else:
            wanted = _normed(attention, "norm_k", "to_k")
        [keys] = outputs_of([wanted], lambda: self._forward(neutral, timestep, conditioning))
        return joined_heads(keys, attention.heads)[:, : conditioning.states.shape[1]]


def _normed(attention: Any, norm: str, projection: str) -> Any:
    """A norm of an attention layer; the projection before it where there is no norm."""
    found = getattr(attention, norm, None)
    return getattr(attention, projection) if found is None else found


def joined_heads(values: "torch.Tensor", heads: int) -> "torch.Tensor":
    """(batch, tokens, d) of queries or keys that may be split into heads, which stand before the
    tokens or after them.
    """
    if values.ndim == 3:
        return values
    if values.shape[2] != heads:
        values = values.transpose(1, 2)
    return values.flatten(2)
