"""The bundled model: its parts are built, exported and read, and its features computed here."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from training.names import BACKGROUND, vocabulary

LATENT_CHANNELS = 16
TEXT_WIDTH = 192
MOST_TOKENS = 16
BLOCK = "up_blocks.2.attentions.1.transformer_blocks.0"
NEUTRAL_PROMPT = "a photo"
_LARGEST_FILE = "15MB"
# The component of a class vector against the background's direction, relative to its length.
_AWAY_FROM_BACKGROUND = 0.15


@dataclass
class Parts:
    """The modules of the pipeline."""

    unet: UNet2DConditionModel
    vae: AutoencoderTiny
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerFast
    scheduler: DDIMScheduler


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of words in lower case; an unknown word becomes <unk>."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = {word: number for number, word in enumerate([*special, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=MOST_TOKENS,
    )


def build_vae() -> AutoencoderTiny:
    """An autoencoder of factor 8, initialised so that it passes on the coarse colours."""
    width = 32
    vae = AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        # A block at half the picture's side would cost a tenth of all multiplications.
        num_encoder_blocks=(0, 0, 2, 3),
        num_decoder_blocks=(3, 2, 1, 0),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1.0,
    )
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if ".conv." in name:
            # A residual branch (`block.conv.0`, `.2`, `.4`): its last layer starts near zero.
            if name.endswith(".4"):
                module.weight.data.mul_(0.1)
            continue
        # The other layers start near the identity, so that colours pass from the first step on.
        noise = 0.5 * module.weight.detach().clone()
        nn.init.dirac_(module.weight)
        module.weight.data.add_(noise)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return vae


def build_parts() -> Parts:
    """All parts with random weights, drawn from torch's global generator."""
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=512,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MOST_TOKENS,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    # Words start far apart, with the norm of the output of the final layer normalisation.
    embeddings = text_encoder.get_input_embeddings().weight
    nn.init.normal_(embeddings, std=1.0)
    unet = UNet2DConditionModel(
        sample_size=24,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(128, 160, 192),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=32,
    )
    unet.set_attn_processor(AttnProcessor())
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    return Parts(unet, build_vae(), text_encoder, tokenizer, scheduler)


def set_class_vectors(
    parts: Parts, names: list[str], prototypes: Tensor, length: float = 12.0, steps: int = 300
) -> float:
    """Fit the text encoder and the key projection of the captured block to given class vectors.

    If they were learned with the rest, class vectors would collapse onto a few directions, because
    objects are told from the background long before they are told from each other. So they are set
    here, once, and frozen. prototypes: float32 (names, d - 1), unit vectors, zeros where unknown. A
    class vector is `length` times its prototype. The last dimension is that of the background, and
    class vectors point away from it a little. Returns the mean cosine that was reached.
    """
    key = parts.unet.get_submodule(BLOCK).get_submodule("attn2.to_k")
    wanted = torch.zeros(1 + len(names), key.weight.shape[0])
    wanted[0, -1] = length
    wanted[1:, :-1] = length * prototypes
    known = wanted.norm(dim=1) > 0
    wanted[1:, -1] = -_AWAY_FROM_BACKGROUND * length
    trained = [*parts.text_encoder.parameters(), *key.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        fitted = class_vectors(parts, [BACKGROUND, *names])
        loss = (fitted - wanted)[known].pow(2).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cosines = nn.functional.cosine_similarity(fitted.detach()[known], wanted[known], dim=1)
    return float(cosines.mean())


def name_states(parts: Parts, names: list[str]) -> Tensor:
    """The text encoder's states of bare class names, averaged over the tokens of each name.

    Returns float32 (names, 192).
    """
    tokens = parts.tokenizer(names, padding=True, return_tensors="pt")
    ids = tokens["input_ids"].to(parts.text_encoder.device)
    states = parts.text_encoder(input_ids=ids).last_hidden_state
    # The padding, begin and end tokens have the ids 0, 1 and 2.
    own = (ids > 2).float().unsqueeze(-1)
    return (states * own).sum(dim=1) / own.sum(dim=1).clamp(min=1)


def class_vectors(parts: Parts, names: list[str]) -> Tensor:
    """C of bare class names, (names, 128): the mean key projection of the tokens of a name."""
    key = parts.unet.get_submodule(BLOCK).get_submodule("attn2.to_k")
    vectors: Tensor = key(name_states(parts, names))
    return vectors.float()


def read_parts(directory: Path) -> Parts:
    """Read an exported model, in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(directory, safety_checker=None)
    parts = Parts(
        pipeline.unet.float(),
        pipeline.vae.float(),
        pipeline.text_encoder.float(),
        pipeline.tokenizer,
        pipeline.scheduler,
    )
    parts.unet.set_attn_processor(AttnProcessor())
    return parts


def _change_json(file: Path, changes: dict[str, Any]) -> None:
    """Set keys of a JSON file, and drop those that are set to None."""
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in content.items() if changes.get(key, value) is not None}
    file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _restore_prefix(file: Path) -> None:
    """Name the weights of a text encoder `text_model.…`: transformers 4 and 5 both read that."""
    from safetensors.torch import load_file, save_file

    prefix = "text_model."
    weights = {prefix + key.removeprefix(prefix): value for key, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def export(parts: Parts, directory: Path) -> None:
    """Write the model in diffusers' layout, float16. An older one is replaced at the very end."""
    fresh = directory.with_name(directory.name + ".part")
    stale = directory.with_name(directory.name + ".old")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    modules: tuple[tuple[str, Any], ...] = (
        ("unet", parts.unet),
        ("vae", parts.vae),
        ("text_encoder", parts.text_encoder),
    )
    for name, module in modules:
        kept = {key: value.detach().clone() for key, value in module.state_dict().items()}
        module.half().save_pretrained(
            fresh / name, safe_serialization=True, max_shard_size=_LARGEST_FILE
        )
        module.float().load_state_dict(kept)
    parts.tokenizer.save_pretrained(fresh / "tokenizer")
    # diffusers writes this key of the autoencoder's, and warns of it when it reads it
    _change_json(fresh / "vae" / "config.json", {"block_out_channels": None})
    _restore_prefix(fresh / "text_encoder" / "model.safetensors")
    # transformers 5 writes a name that earlier releases do not know.
    tokenizer_class = {"tokenizer_class": "PreTrainedTokenizerFast"}
    _change_json(fresh / "tokenizer" / "tokenizer_config.json", tokenizer_class)
    parts.scheduler.save_pretrained(fresh / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
    }
    (fresh / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file in fresh.glob("*/*.safetensors"):
        file.chmod(0o644)  # safetensors makes them readable by the owner only
    if directory.exists():
        directory.rename(stale)
    fresh.rename(directory)
    shutil.rmtree(stale, ignore_errors=True)


class FeatureUNet(nn.Module):
    """The UNet together with the maps of the captured block (PDM Eq. 1 and 2)."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        block = unet.get_submodule(BLOCK)
        self._seen: dict[str, Tensor] = {}
        for name in ("attn1.to_q", "attn1.to_k", "attn2.to_q"):
            block.get_submodule(name).register_forward_hook(self._keeper(name))
        unet.mid_block.register_forward_hook(self._keeper("middle"))

    def _keeper(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._seen[name] = output

        return keep

    def middle(self) -> Tensor:
        """The output of the middle block in the last run, (n, channels, h / 4, w / 4)."""
        return self._seen["middle"]

    def forward(
        self, latents: Tensor, timesteps: Tensor, text: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the UNet.

        latents: (n, 16, h, w). timesteps: (n,). text: (n, tokens, 192). Returns the prediction,
        shaped as the latents, and the maps F_A and F_S, float32 (n, h * w, 128).
        """
        prediction = self.unet(latents, timesteps, text).sample.float()
        appearance = (self._seen["attn1.to_q"].float() + self._seen["attn1.to_k"].float()) / 2
        return prediction, appearance, self._seen["attn2.to_q"].float()


def prompt_states(parts: Parts, prompts: list[str]) -> Tensor:
    """The text encoder's states of prompts, padded as in the pipeline, (n, 16, 192)."""
    tokens = parts.tokenizer(
        prompts, padding="max_length", max_length=MOST_TOKENS, truncation=True, return_tensors="pt"
    )
    ids = tokens["input_ids"].to(parts.text_encoder.device)
    states: Tensor = parts.text_encoder(input_ids=ids).last_hidden_state
    return states


def fast_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware is made for it, else float32.

    On a CPU without AVX-512, bfloat16 is many times slower.
    """
    slow = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512"
    return torch.float32 if slow else torch.bfloat16


def encode_images(parts: Parts, images: Tensor) -> Tensor:
    """Latents of uint8 images (n, height, width, 3), float32 (n, 16, height / 8, width / 8)."""
    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    latents: Tensor = parts.vae.encode(pixels.contiguous(memory_format=torch.channels_last)).latents
    return latents.float() * parts.vae.config.scaling_factor
