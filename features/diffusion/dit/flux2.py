"""Flux.2 [klein]: joint attention as in Flux.1, with text that a language model, Qwen3, reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from features.device import upload
from features.diffusion.dit.block_hooks import inputs_of
from features.diffusion.dit.dit_architecture import QWEN_LAYERS
from features.diffusion.dit.joint_model import JointDiTModel
from features.diffusion.model import Conditioning

if TYPE_CHECKING:
    import torch

# Tokens of Qwen3, padding included, as in the pipeline.
_TOKENS = 512
# Around a text: what Qwen3's chat template makes of a user's message that is to be answered without
# thinking. The template itself is not run, because it is a program that comes with the model.
_BEFORE = "<|im_start|>user\n"
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class Flux2Model(JointDiTModel):
    """Flux.2 [klein]. A latent is a patch of 2 x 2 of the VAE's, as in its pipeline, and makes one
    cell. The transformer is told no guidance.
    """

    def _scaled(self, latents: "torch.Tensor") -> "torch.Tensor":
        import torch

        # Each channel of a patch has a mean and a variance, which stand in the place of the
        # scaling factor of other models.
        patches: torch.Tensor = self.vae.bn(torch.nn.functional.pixel_unshuffle(latents, 2))
        return patches

    def _read_texts(self, texts: Sequence[str]) -> tuple[Conditioning, "torch.Tensor"]:
        """A text's own tokens are told by the place of their characters: around them are words of
        the chat template.
        """
        import torch

        [tokenizer], [encoder] = self._parts.tokenizers, self._text_encoders()
        read = tokenizer(
            [f"{_BEFORE}{text}{_AFTER}" for text in texts],
            padding="max_length",
            max_length=_TOKENS,
            truncation=True,
            return_attention_mask=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        begins, ends = read.offset_mapping.unbind(2)
        first = len(_BEFORE)
        last = torch.tensor([[first + len(text)] for text in texts])
        found = (read.input_ids, read.attention_mask, (ends > first) & (begins < last))
        ids, mask, own = (upload(values.numpy(), self.device) for values in found)
        layers = [encoder.model.layers[number] for number in QWEN_LAYERS]
        with torch.inference_mode():
            # Neither later layers nor the words that would follow are computed.
            states = inputs_of(
                layers,
                lambda: encoder.model(input_ids=ids, attention_mask=mask, use_cache=False),
            )
        return Conditioning(torch.cat(states, dim=2).to(self.dtype)), own

    def _forward(
        self, latents: "torch.Tensor", timestep: int, conditioning: Conditioning
    ) -> object:
        import torch

        batch, rows, columns = len(latents), *latents.shape[2:]
        n_tokens = conditioning.states.shape[1]
        # Four axes: the image's number, row, column, and the place in the text.
        places = torch.zeros(rows, columns, 4, device=latents.device)
        places[..., 1] = torch.arange(rows, device=latents.device)[:, None]
        places[..., 2] = torch.arange(columns, device=latents.device)
        text_places = torch.zeros(n_tokens, 4, device=latents.device)
        text_places[:, 3] = torch.arange(n_tokens, device=latents.device)
        return self.denoiser(
            latents.flatten(2).transpose(1, 2).to(self.dtype),
            encoder_hidden_states=conditioning.states.expand(batch, -1, -1),
            # The transformer multiplies it by 1000.
            timestep=torch.full((batch,), timestep / 1000, device=latents.device),
            img_ids=places.flatten(0, 1),
            txt_ids=text_places,
            return_dict=False,
        )
