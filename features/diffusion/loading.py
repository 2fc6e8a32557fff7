"""Loading a model from diffusers' layout: bundled, in a local folder, or from the hub.

Only what features need is kept: the VAE's encoder, the UNet, the text encoders and the noise
schedule.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.checkpoints import (
    Layout,
    device_and_precision,
    explained_errors,
    files_digest,
    load_pretrained,
    locate,
    quiet_libraries,
)
from features.diffusion.model import DiffusionModel
from features.diffusion.presets import PRESETS, bundled_path

if TYPE_CHECKING:
    import torch

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


def load_model(name: str, device: str = "auto", revision: str | None = None) -> DiffusionModel:
    """Load a model by preset name, local folder in diffusers' layout, or hub id.

    device: "auto" (a GPU where there is one), or any torch device. revision: a hub commit.
    A hub model that is not on this machine yet is downloaded. Raises ModelError where the weights
    cannot be had, or are not of the Stable Diffusion family.
    """
    target, dtype = device_and_precision(device)
    folder, resolved, variant = _locate(name, revision)
    if Path(name).is_dir() and name not in PRESETS:
        name = str(folder)
    return _load_folder(name, folder, resolved, variant, target, dtype)


def _locate(name: str, revision: str | None) -> tuple[Path, str, str | None]:
    """The local folder of a model, its resolved revision, and its weight files' variant."""
    preset = PRESETS.get(name)
    if preset is not None and preset.source.startswith("bundled:"):
        folder = bundled_path(preset.source)
        return folder, weights_digest(folder), None
    variant = preset.variant if preset else None
    known = {name: preset.source for name, preset in PRESETS.items()}
    folder, commit = locate("model", name, known, _layout(variant), revision)
    if commit is None:
        return folder, weights_digest(folder), _local_variant(folder)
    return folder, commit, variant


def _layout(variant: str | None) -> Layout:
    """The files of a pipeline in diffusers' layout. variant: of its weight files, or None."""
    weights = f"*.{variant}.safetensors" if variant else "*.safetensors"
    files = ["model_index.json"]
    for part in _PARTS:
        files += [f"{part}/*.json", f"{part}/*.txt", f"{part}/{weights}"]
    ignored = () if variant else ("*.fp16.*", "*non_ema*")
    return Layout("diffusers", "model_index.json", tuple(files), "unet/*.safetensors", ignored)


def _local_variant(folder: Path) -> str | None:
    """ "fp16" where a folder holds only that variant of the UNet's weights."""
    names = [path.name for path in (folder / "unet").glob("*.safetensors*")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def weights_digest(folder: Path) -> str:
    """`files_digest` of the model's configuration and weight files."""
    files = (path for part in _PARTS for path in sorted((folder / part).glob("*")))
    return files_digest(folder, (p for p in files if p.suffix in (".json", ".safetensors", ".txt")))


def _load_folder(
    name: str,
    folder: Path,
    revision: str,
    variant: str | None,
    device: "torch.device",
    dtype: "torch.dtype",
) -> DiffusionModel:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection

    vae_classes = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
    text_classes = {
        "CLIPTextModel": CLIPTextModel,
        "CLIPTextModelWithProjection": CLIPTextModelWithProjection,
    }
    needed = "a whole pipeline in diffusers' layout with safetensors weights"
    with explained_errors(f"model {name}", folder, needed):
        index = json.loads((folder / "model_index.json").read_text())
        names = [part for part in ("text_encoder", "text_encoder_2") if any(index.get(part) or ())]
        unet_class = _part_class(index, "unet", {"UNet2DConditionModel": UNet2DConditionModel})
        vae_class = _part_class(index, "vae", vae_classes)
        unet = load_pretrained(unet_class, folder / "unet", dtype, variant=variant)
        # SDXL's VAE overflows in half precision; in float32 every VAE is right.
        vae = load_pretrained(vae_class, folder / "vae", variant=variant)
        encoders = [
            load_pretrained(
                _part_class(index, part, text_classes), folder / part, dtype, variant=variant
            )
            for part in names
        ]
        with quiet_libraries():
            tokenizers = [
                AutoTokenizer.from_pretrained(
                    folder / part.replace("text_encoder", "tokenizer"), local_files_only=True
                )
                for part in names
            ]
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    vae.decoder = None
    for module in (unet, vae, *encoders):
        module.requires_grad_(False).eval()
    vae.to(device)
    unet.to(device)
    for encoder in encoders:
        encoder.to(device)
    return DiffusionModel(
        name=name,
        revision=revision,
        unet=unet,
        vae=vae,
        tokenizers=tokenizers,
        text_encoders=encoders,
        scheduler_config=scheduler,
    )


def _part_class(index: dict[str, Any], part: str, known: dict[str, Any]) -> Any:
    """The class that model_index.json names for a part, among those Waldo can use."""
    entry = index.get(part) or [None, None]
    if entry[1] not in known:
        raise ValueError(f"its {part} is {entry[1] or 'missing'}, not {' or '.join(known)}")
    return known[entry[1]]
