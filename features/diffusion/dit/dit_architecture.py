"""What the configuration files of a pipeline with a transformer say: its family and map shapes.

They are read without the weights, and without torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.diffusion.presets import FeatureSettings
from features.errors import ModelError

Family = Literal["pixart", "sd3", "flux", "flux2"]

# The classes of the transformers, by the name that model_index.json gives. PixArt was first
# published with an older class.
_FAMILIES: dict[str, Family] = {
    "PixArtTransformer2DModel": "pixart",
    "Transformer2DModel": "pixart",
    "SD3Transformer2DModel": "sd3",
    "FluxTransformer2DModel": "flux",
    "Flux2Transformer2DModel": "flux2",
}
_CLASSES: dict[Family, dict[str, tuple[str, ...]]] = {
    "pixart": {
        "transformer": ("PixArtTransformer2DModel",),
        "vae": ("AutoencoderKL", "AutoencoderTiny"),
        "text_encoder": ("T5EncoderModel",),
    },
    "sd3": {
        "transformer": ("SD3Transformer2DModel",),
        "vae": ("AutoencoderKL", "AutoencoderTiny"),
        "text_encoder": ("CLIPTextModelWithProjection",),
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "text_encoder_3": ("T5EncoderModel",),
    },
    "flux": {
        "transformer": ("FluxTransformer2DModel",),
        "vae": ("AutoencoderKL", "AutoencoderTiny"),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("T5EncoderModel",),
    },
    "flux2": {
        "transformer": ("Flux2Transformer2DModel",),
        "vae": ("AutoencoderKLFlux2",),
        "text_encoder": ("Qwen3ForCausalLM",),
    },
}
# Why a part that diffusers has is not among them.
_WHY_NOT = {
    "Mistral3ForConditionalGeneration": "; of Flux.2, Waldo takes [klein], which reads its prompt "
    "with Qwen3, and not [dev]"
}
# The pipeline of Flux.2 [klein] takes the states that go into these layers of Qwen3.
QWEN_LAYERS = (9, 18, 27)
# SD3 was made to do without its third text encoder, which is the largest.
_OPTIONAL = {"text_encoder_3"}
# Where the literature looks: block 9 of SD3 and SD3.5 (Seg4Diff, 2025), the single-stream block 9
# of Flux (DiTF, NeurIPS 2025). For PixArt, half of the depth.
_USUAL_BLOCK = 9
# An error names this many of a model's blocks.
_NAMED_BLOCKS = 4


@dataclass(frozen=True)
class DiTArchitecture:
    """A pipeline whose denoiser is a transformer.

    classes: the class of each part, by the part's folder; a text encoder comes with the tokenizer
    of the same number. blocks: module paths in the transformer, in the order they run. dim:
    channels of the queries. latent_factor: pixels per side of a latent. cell: latents per side of a
    cell. native_size: side of the images that the model was trained on, pixels. largest_grid: most
    cells per side that the model can place, None where it can place any number.
    """

    family: Family
    classes: dict[str, str]
    blocks: tuple[str, ...]
    dim: int
    latent_factor: int
    cell: int
    native_size: int
    largest_grid: int | None = None

    denoiser = "transformer"

    @classmethod
    def read(cls, folder: Path) -> "DiTArchitecture":
        """Of a folder in diffusers' layout.

        Raises ValueError for a model that Waldo cannot use, and OSError, KeyError or TypeError
        where files are missing or broken.
        """
        index, config = _read(folder / "model_index.json"), _read(folder, "transformer")
        name = index["transformer"][1]
        family = _FAMILIES.get(name)
        old = name == "Transformer2DModel" and config.get("norm_type") != "ada_norm_single"
        if family is None or old:
            raise ValueError(
                f"its transformer is {name}, and Waldo knows the blocks of PixArt, SD3, Flux.1 and "
                "Flux.2"
            )
        classes = _classes(index, family)
        vae = _read(folder, "vae")
        stages = vae.get("encoder_block_out_channels") or vae["block_out_channels"]
        factor = 2 ** (len(stages) - 1)
        blocks = [f"transformer_blocks.{i}" for i in range(config["num_layers"])]
        is_flux = family in ("flux", "flux2")
        if is_flux:
            blocks += [f"single_transformer_blocks.{i}" for i in range(config["num_single_layers"])]
        if family == "flux2":
            _check_qwen(_read(folder, "text_encoder"), config)
        limit = config["pos_embed_max_size"] if family == "sd3" else None
        return cls(
            family,
            classes,
            tuple(blocks),
            int(config["num_attention_heads"]) * int(config["attention_head_dim"]),
            # Flux packs 2 x 2 of the VAE's latents into a cell before its transformer sees them;
            # these packs are what Flux.2 calls latents.
            2 * factor if family == "flux2" else factor,
            2 if family == "flux" else int(config["patch_size"]),
            int(config.get("sample_size") or 128) * factor,
            limit,
        )

    @property
    def dims(self) -> dict[str, int]:
        """The channels of the queries of each block, by its path, in the order they run."""
        return dict.fromkeys(self.blocks, self.dim)

    def inspected_settings(self) -> FeatureSettings:
        """Settings for a model without a preset: one evaluation with little noise, as DIFT does it,
        at the block where the literature looks.
        """
        size = 512
        if self.largest_grid is not None:
            size = min(size, self.largest_grid * self.cell * self.latent_factor)
        return FeatureSettings(
            image_size=min(size, self.native_size),
            block=self._usual_block(),
            timestep=261 if self.family == "pixart" else 260,
            inversion="noise",
        )

    def _usual_block(self) -> str:
        if self.family == "pixart":
            return self.blocks[len(self.blocks) // 2]
        single = [block for block in self.blocks if block.startswith("single")]
        among = single or self.blocks
        return among[min(_USUAL_BLOCK, len(among) - 1)]

    def map_shape(self, settings: FeatureSettings) -> tuple[int, int]:
        """(grid, d) of the maps at the settings' block.

        Raises ModelError for a block that the transformer does not have, for an image size that
        does not fit, and for an inversion that only UNets have.
        """
        if settings.block not in self.blocks:
            named = ", ".join(self.blocks[-_NAMED_BLOCKS:])
            raise ModelError(
                f"the model's transformer has no block {settings.block}; its blocks are named "
                f"like {named}"
            )
        if settings.inversion not in ("none", "noise"):
            raise ModelError(
                f"the inversion {settings.inversion} is for UNets; a transformer takes none or "
                "noise"
            )
        step = self.latent_factor * self.cell
        if settings.image_size % step:
            raise ModelError(f"the image size {settings.image_size} is no multiple of {step}")
        grid = settings.image_size // step
        if self.largest_grid is not None and grid > self.largest_grid:
            raise ModelError(
                f"the image size {settings.image_size} is beyond {self.largest_grid * step}, the "
                "largest that the model has positions for"
            )
        return grid, self.dim


def _read(folder: Path, part: str | None = None) -> dict[str, Any]:
    path = folder if part is None else folder / part / "config.json"
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _classes(index: dict[str, Any], family: Family) -> dict[str, str]:
    """The class of each part, as model_index.json names it. Raises ValueError for another one."""
    found = {"transformer": _CLASSES[family]["transformer"][0]}
    for part, allowed in _CLASSES[family].items():
        _, name = index.get(part) or (None, None)
        if part == "transformer" or (name is None and part in _OPTIONAL):
            continue
        if name not in allowed:
            raise ValueError(
                f"its {part} is {name or 'missing'}, not {' or '.join(allowed)}"
                f"{_WHY_NOT.get(str(name), '')}"
            )
        found[part] = str(name)
    return found


def _check_qwen(encoder: dict[str, Any], transformer: dict[str, Any]) -> None:
    """Raise ValueError where the transformer of Flux.2 does not take what its text encoder gives.

    Both are the contents of a config.json.
    """
    n_layers, last = int(encoder["num_hidden_layers"]), QWEN_LAYERS[-1]
    if n_layers <= last:
        raise ValueError(f"its text_encoder has {n_layers} layers, and no layer {last}")
    width, taken = len(QWEN_LAYERS) * encoder["hidden_size"], transformer["joint_attention_dim"]
    if width != taken:
        raise ValueError(
            f"its text_encoder gives {width} numbers per token, and its transformer takes {taken}"
        )
