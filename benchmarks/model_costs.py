"""Count the FLOPs that a photo takes with each model that Waldo knows by name.

The published architectures are built on torch's meta device, where nothing is stored or computed,
and Waldo's own code extracts features with them while FlopCounterMode of torch counts: matrix
products, convolutions and attention, a multiplication and an addition being two. Reading the
prompt is left out, because it is done once for all photos. No weights are needed.

    python benchmarks/model_costs.py
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from features.diffusion.architecture import Architecture
from features.diffusion.dit.dit_architecture import DiTArchitecture
from features.diffusion.dit.dit_model import DiTModel
from features.diffusion.dit.flux import FluxModel
from features.diffusion.dit.flux2 import Flux2Model
from features.diffusion.dit.pixart import PixArtModel
from features.diffusion.dit.sd3 import SD3Model
from features.diffusion.model import Conditioning, DiffusionModel, Parts
from features.diffusion.presets import PRESETS, FeatureSettings, bundled_path
from features.diffusion.unet_model import UNetModel
from features.diffusion.words import Vocabulary
from features.extractor import FeatureExtractor
from features.frame import Frame
from features.photo import ModelInput
from features.pretrained.library_parts import library_class
from features.vision.vision_extractor import VisionExtractor
from features.vision.vision_model import VisionModel
from features.vision.vision_presets import VISION_PRESETS

META = torch.device("meta")
# Where a setting is left out, the default of diffusers' class is the published one.
_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
_VAE16 = {**_VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
_SD = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
_SD2 = {
    **_SD,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
_XL = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_PIXART = {
    "sample_size": 128,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 8,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "norm_type": "ada_norm_single",
}
_SD35 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "patch_size": 2,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}
_FLUX = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}
# Of FLUX.2 [klein] 4B: as diffusers' scripts/convert_flux2_to_diffusers.py writes it.
_FLUX2 = {
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 3 * 2560,
    "guidance_embeds": False,
}
_QWEN3_4B = {"num_hidden_layers": 36, "hidden_size": 2560}
# The published config.json of each denoiser, of its VAE, and the text tokens and their width.
DENOISERS: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "sd14": (_SD, _VAE, 77, 768),
    "sd15": (_SD, _VAE, 77, 768),
    "sd21-base": (_SD2, _VAE, 77, 1024),
    "cleandift-sd15": (_SD, _VAE, 77, 768),
    "cleandift-sd21": ({**_SD2, "sample_size": 96}, _VAE, 77, 1024),
    "sdxl": (_XL, _VAE, 77, 2048),
    "sdxl-turbo": ({**_XL, "sample_size": 64}, _VAE, 77, 2048),
    "pixart-sigma": (_PIXART, _VAE, 3, 4096),  # it takes no padding: "a", "photo" and the end
    "sd35-medium": (_SD35, _VAE16, 77 + 256, 4096),
    "flux-dev": (_FLUX, _VAE16, 512, 4096),
    "flux2": (_FLUX2, _VAE, 512, 3 * 2560),
}
_TRANSFORMERS: dict[str, tuple[type[DiTModel], str, list[str]]] = {
    "pixart-sigma": (PixArtModel, "PixArtTransformer2DModel", ["T5EncoderModel"]),
    "sd35-medium": (
        SD3Model,
        "SD3Transformer2DModel",
        [*["CLIPTextModelWithProjection"] * 2, "T5EncoderModel"],
    ),
    "flux-dev": (FluxModel, "FluxTransformer2DModel", ["CLIPTextModel", "T5EncoderModel"]),
    "flux2": (Flux2Model, "Flux2Transformer2DModel", ["Qwen3ForCausalLM"]),
}


def _siglip(width: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    part = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    vision = {**part, "image_size": 512, "patch_size": 16}
    return {"model_type": "siglip", "vision_config": vision, "text_config": part}


def _vit(kind: str, width: int, layers: int, heads: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model_type": kind,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    if kind == "dinov2":
        return {**found, "image_size": 518, "patch_size": 14}
    registers = {"num_register_tokens": 4, "intermediate_size": 4 * width}
    return {**found, **registers, "image_size": 224, "patch_size": 16}


# The published config.json of each vision transformer.
VISION: dict[str, dict[str, Any]] = {
    "dinov2-small": _vit("dinov2", 384, 12, 6),
    "dinov2-base": _vit("dinov2", 768, 12, 12),
    "dinov2-large": _vit("dinov2", 1024, 24, 16),
    "dinov3-small": _vit("dinov3_vit", 384, 12, 6),
    "dinov3-base": _vit("dinov3_vit", 768, 12, 12),
    "dinov3-large": _vit("dinov3_vit", 1024, 24, 16),
    "siglip2-base": _siglip(768, 3072, 12, 12),
    "siglip2-large": _siglip(1024, 4096, 24, 16),
}


def write_config(name: str, folder: Path) -> Path:
    """The published configuration of a preset, as far as it matters here; returns the folder."""
    if name in VISION:
        files = {
            "config.json": VISION[name],
            "preprocessor_config.json": {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        }
    else:
        denoiser, vae, _, _ = DENOISERS[name]
        part, kind, texts = "unet", "UNet2DConditionModel", ["CLIPTextModel"]
        if name in _TRANSFORMERS:
            (_, kind, texts), part = _TRANSFORMERS[name], "transformer"
        numbered = zip(("text_encoder", "text_encoder_2", "text_encoder_3"), texts, strict=False)
        of_vae = "AutoencoderKLFlux2" if denoiser is _FLUX2 else "AutoencoderKL"
        index = {part: ["diffusers", kind], "vae": ["diffusers", of_vae]}
        index |= {text: ["transformers", of] for text, of in numbered}
        files = {
            "model_index.json": index,
            f"{part}/config.json": denoiser,
            "vae/config.json": vae,
            "scheduler/scheduler_config.json": {},
            "text_encoder/config.json": _QWEN3_4B if denoiser is _FLUX2 else {},
        }
    for file, values in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(values))
    return folder


def extractor_on_meta(
    folder: Path, kind: type[DiffusionModel], settings: FeatureSettings, tokens: int, width: int
) -> FeatureExtractor:
    """A pipeline without weights, under a prompt of so many tokens of so many numbers.

    folder: its configuration. The extractor takes photos, and gives features without numbers.
    """
    is_unet = kind is UNetModel
    architecture = (Architecture if is_unet else DiTArchitecture).read(folder)
    part = "unet" if is_unet else "transformer"

    def read(*_: object) -> Parts:
        found = []
        for each in (part, "vae"):
            of = library_class(architecture.classes[each])
            with META:
                config = json.loads((folder / each / "config.json").read_text())
                found.append(of.from_config(config).requires_grad_(False).eval())
        found[1].decoder = None
        alphas = torch.linspace(0.999, 0.005, 1000, dtype=torch.float64)
        return Parts(*found, (), (), alphas)

    model = kind("meta", "", architecture, "meta", Vocabulary(folder), read, "float32")
    model.device = META
    config = model.denoiser.config
    pooled = config.get("pooled_projection_dim")
    sizes = None
    if config.get("addition_embed_type") == "text_time":
        sizes = torch.empty(1, 6, device=META)
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    extractor = FeatureExtractor(model, settings, batch_size=1)
    extractor._conditioning = Conditioning(
        torch.empty(1, tokens, width, device=META),
        None if pooled is None else torch.empty(1, pooled, device=META),
        sizes,
        torch.ones(1, tokens, device=META) if kind is PixArtModel else None,
    )
    if isinstance(model, DiTModel):
        model._kept[settings.block, settings.timestep] = torch.ones(extractor.dim, device=META)
    return extractor


def count(extractor: FeatureExtractor | VisionExtractor) -> int:
    """The FLOPs of the features of one square photo."""
    side = extractor.image_size
    frame = Frame(side, side, side, extractor.grid)
    photo = ModelInput(np.zeros((side, side, 3), np.uint8), frame, "0")
    with FlopCounterMode(display=False) as counter:
        extractor.features([photo])
    return counter.get_total_flops()


def held_bytes(extractor: FeatureExtractor | VisionExtractor) -> int:
    """The bytes of the weights that a GPU holds while it extracts: float16, and float32 of a VAE.

    Text encoders leave it once the prompt is read.
    """
    if isinstance(extractor, VisionExtractor):
        return sum(2 * weight.numel() for weight in extractor.model._transformer.parameters())
    denoiser, vae = extractor.model.denoiser, extractor.model.vae
    halves = sum(2 * weight.numel() for weight in denoiser.parameters())
    return halves + sum(4 * weight.numel() for weight in vae.parameters())


def preset_on_meta(
    name: str, folder: Path, steps: int | None = None
) -> FeatureExtractor | VisionExtractor:
    """A preset by its published configuration, which is written into an empty folder.

    steps: of the inversion; None for the preset's own.
    """
    if name in VISION:
        write_config(name, folder)
        model = VisionModel(name, "", folder, "meta", "float32", seed=0)
        model.device = META
        with META:
            model.load()
        return VisionExtractor(model, VISION_PRESETS[name].settings.image_size, 1)
    settings = PRESETS[name].settings
    if steps is not None:
        settings = replace(settings, steps=steps)
    if name == "tiny":
        folder = bundled_path(PRESETS[name].source)
        tokenizer = json.loads((folder / "tokenizer/tokenizer_config.json").read_text())
        unet = json.loads((folder / "unet/config.json").read_text())
        prompt = tokenizer["model_max_length"], unet["cross_attention_dim"]
        return extractor_on_meta(folder, UNetModel, settings, *prompt)
    write_config(name, folder)
    kind = _TRANSFORMERS[name][0] if name in _TRANSFORMERS else UNetModel
    return extractor_on_meta(folder, kind, settings, *DENOISERS[name][2:])


def count_preset(name: str) -> tuple[int, int]:
    """The FLOPs per photo of a preset, and `held_bytes`."""
    with tempfile.TemporaryDirectory() as place:
        n_steps = 1 if name in VISION else PRESETS[name].settings.steps
        one = preset_on_meta(name, Path(place), None if n_steps == 1 else 1)
        flops, held = count(one), held_bytes(one)
        if n_steps > 1:  # all steps of an inversion cost the same
            flops += (n_steps - 1) * (count(preset_on_meta(name, Path(place), 2)) - flops)
        return flops, held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", help="names of `waldo models`; default: all")
    names = parser.parse_args().models or [*PRESETS, *VISION_PRESETS]
    for name in names:
        flops, held = count_preset(name)
        print(f"{name:16}{flops / 1e12:9.3g} TFLOP{held / 1e9:9.3g} GB on a GPU", flush=True)


if __name__ == "__main__":
    main()
