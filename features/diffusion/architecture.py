"""What a pipeline's configuration files say: its parts, its transformer blocks, its map shapes.

They are read without the weights, and without torch. `DiffusionModel` compares them with the UNet
when it reads the weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.diffusion.presets import FeatureSettings
from features.errors import ModelError

# The classes of diffusers and transformers that a pipeline's parts may have.
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModel", "CLIPTextModelWithProjection"),
}
# An error names this many of a model's blocks, the last on its up path.
_NAMED_BLOCKS = 4
_PREDICTIONS = ("epsilon", "v_prediction")
# How a UNet takes more than a prompt: not at all, or as SDXL's does.
_ADDITIONS = (None, "text_time")


@dataclass(frozen=True)
class Block:
    """A transformer block on the UNet's up path.

    path: its module path in the UNet. up_block: the number of its up block. dim: channels of its
    queries and keys.
    """

    path: str
    up_block: int
    dim: int


@dataclass(frozen=True)
class Architecture:
    """A pipeline of the Stable Diffusion family.

    classes: the class of each part, by the part's folder; a text encoder comes with the tokenizer
    of the same number. prediction: what the UNet predicts, "epsilon" or "v_prediction".
    blocks: in the order they run, at least one. n_up_blocks: resolutions of the UNet.
    latent_factor: pixels per side of a latent. native_size: side of the images that the model was
    trained on, pixels.
    """

    classes: dict[str, str]
    prediction: str
    blocks: tuple[Block, ...]
    n_up_blocks: int
    latent_factor: int
    native_size: int

    denoiser = "UNet"

    @property
    def dims(self) -> dict[str, int]:
        """The channels of the queries of each block, by its path, in the order they run."""
        return {block.path: block.dim for block in self.blocks}

    @classmethod
    def read(cls, folder: Path) -> "Architecture":
        """Of a folder in diffusers' layout.

        Raises ValueError for a model that Waldo cannot use, and OSError, KeyError or TypeError
        where files are missing or broken.
        """
        index = _read(folder / "model_index.json")
        classes = {part: _class_of(index, part) for part in ("unet", "vae", "text_encoder")}
        if any(index.get("text_encoder_2") or ()):
            classes["text_encoder_2"] = _class_of(index, "text_encoder_2")
        scheduler = _read(folder / "scheduler" / "scheduler_config.json")
        prediction = scheduler.get("prediction_type", "epsilon")
        if prediction not in _PREDICTIONS:
            raise ValueError(f"it predicts {prediction}, not noise or velocity")
        unet, vae = _read(folder / "unet" / "config.json"), _read(folder / "vae" / "config.json")
        addition = unet.get("addition_embed_type")
        if addition not in _ADDITIONS:
            raise ValueError(f"conditioning by {addition} is not known")
        blocks = _blocks(unet)
        if not blocks:
            raise ValueError("its UNet has no transformer block on its up path")
        stages = vae.get("encoder_block_out_channels") or vae["block_out_channels"]
        factor = 2 ** (len(stages) - 1)
        size = int(unet["sample_size"]) * factor
        return cls(classes, prediction, blocks, len(unet["up_block_types"]), factor, size)

    def inspected_settings(self) -> FeatureSettings:
        """Settings for a model without a preset: the last block of the up path, with the noising of
        DIFT, which costs one evaluation and works for every noise schedule.
        """
        return FeatureSettings(
            image_size=min(512, self.native_size),
            block=self.blocks[-1].path,
            timestep=261,
            inversion="noise",
        )

    def map_shape(self, settings: FeatureSettings) -> tuple[int, int]:
        """(grid, d) of the maps at the settings' block.

        Raises ModelError for a block that is not on the up path, and for an image size that does
        not fit.
        """
        block = next((each for each in self.blocks if each.path == settings.block), None)
        if block is None:
            named = ", ".join(each.path for each in self.blocks[-_NAMED_BLOCKS:])
            raise ModelError(
                f"the model has no block {settings.block} on its UNet's up path; its blocks are "
                f"named like {named}"
            )
        step = self.latent_factor * 2 ** (self.n_up_blocks - 1)
        if settings.image_size % step:
            raise ModelError(f"the image size {settings.image_size} is no multiple of {step}")
        # Each up block after this one doubles the resolution.
        cell = self.latent_factor * 2 ** (self.n_up_blocks - 1 - block.up_block)
        return settings.image_size // cell, block.dim


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _class_of(index: dict[str, Any], part: str) -> str:
    """The class that model_index.json names for a part."""
    _, name = index.get(part) or (None, None)
    if name not in _CLASSES[part]:
        raise ValueError(f"its {part} is {name or 'missing'}, not {' or '.join(_CLASSES[part])}")
    return str(name)


def _blocks(unet: dict[str, Any]) -> tuple[Block, ...]:
    """The transformer blocks on the up path, as diffusers' UNet2DConditionModel builds them."""
    kinds = unet["up_block_types"]

    def along_up_path(name: str, default: Any = None) -> list[Any]:
        """A setting of the down blocks, or one for all, in the order of the up blocks."""
        value = unet.get(name, default) if default is not None else unet[name]
        return list(reversed(value)) if isinstance(value, list) else [value] * len(kinds)

    channels, layers = along_up_path("block_out_channels"), along_up_path("layers_per_block")
    depths = along_up_path("transformer_layers_per_block", 1)
    depths = unet.get("reverse_transformer_layers_per_block") or depths
    found = []
    for number, kind in enumerate(kinds):
        if kind != "CrossAttnUpBlock2D" or unet.get("dual_cross_attention"):
            continue
        for attention in range(layers[number] + 1):
            depth = depths[number]
            for layer in range(depth[attention] if isinstance(depth, list) else depth):
                path = f"up_blocks.{number}.attentions.{attention}.transformer_blocks.{layer}"
                found.append(Block(path, number, channels[number]))
    return tuple(found)
