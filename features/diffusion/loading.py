"""Loading a model from diffusers' layout: bundled, in a local folder, or from the hub.

Only what features need is kept: the VAE's encoder, the UNet, the text encoders and the noise
schedule. What is on disk is looked at at once; the weights are read when they are first used.
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from features.checkpoints import (
    Layout,
    explained_errors,
    files_digest,
    load_pretrained,
    locate,
    quiet_libraries,
)
from features.device import Precision, computing_type
from features.diffusion.architecture import Architecture
from features.diffusion.model import DiffusionModel, Parts
from features.diffusion.presets import PRESETS, bundled_path
from features.diffusion.words import Vocabulary
from features.library_parts import library_class, only_what_is_used, tokenizer_class
from features.vision.vision_presets import VISION_PRESETS

if TYPE_CHECKING:
    import torch

_NEEDED = "a whole pipeline in diffusers' layout with safetensors weights"
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


def load_model(
    name: str,
    device: str = "auto",
    revision: str | None = None,
    precision: Precision | None = None,
) -> DiffusionModel:
    """Find a model by preset name, local folder in diffusers' layout, or hub id.

    device: "auto" (a GPU where there is one), or any torch device. revision: a hub commit.
    precision: of the weights; None for what is usual on the device. A hub model that is not on this
    machine yet is downloaded. Raises ModelError where the files cannot be had, or are not of the
    Stable Diffusion family; the model raises it where its weights turn out to be broken, or the
    device cannot be used.
    """
    folder, resolved, variant = _locate(name, revision)
    if Path(name).is_dir() and name not in PRESETS:
        name = str(folder)
    with explained_errors(f"model {name}", folder, _NEEDED):
        architecture = Architecture.read(folder)
    read = partial(read_parts, name, folder, variant, architecture)
    vocabulary = Vocabulary(folder / "tokenizer")
    return DiffusionModel(name, resolved, architecture, device, vocabulary, read, precision)


def _locate(name: str, revision: str | None) -> tuple[Path, str, str | None]:
    """The local folder of a model, its resolved revision, and its weight files' variant."""
    preset = PRESETS.get(name)
    if preset is not None and preset.source.startswith("bundled:"):
        folder = bundled_path(preset.source)
        return folder, weights_digest(folder), None
    variant = preset.variant if preset else None
    # All models, because an unknown name is answered with the names that are known.
    known = {name: preset.source for name, preset in (PRESETS | VISION_PRESETS).items()}
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


def read_parts(
    name: str,
    folder: Path,
    variant: str | None,
    architecture: Architecture,
    device: "torch.device",
    precision: Precision,
) -> Parts:
    """The parts of a pipeline in a folder. Raises ModelError where its weights are broken.

    variant: of its weight files. precision: of the UNet and the text encoders.
    """
    import torch

    dtype = getattr(torch, precision)
    classes = architecture.classes
    text_parts = [part for part in classes if part.startswith("text_encoder")]
    with explained_errors(f"model {name}", folder, _NEEDED):
        # diffusers imports transformers, so the parts of transformers come first.
        text_classes = [library_class(classes[part]) for part in text_parts]
        unet_class, vae_class = library_class(classes["unet"]), library_class(classes["vae"])
        unet = load_pretrained(unet_class, folder / "unet", dtype, variant=variant)
        # SDXL's VAE overflows in half precision; in float32 every VAE is right.
        vae = load_pretrained(vae_class, folder / "vae", variant=variant)
        encoders = [
            load_pretrained(text_class, folder / part, dtype, variant=variant)
            for text_class, part in zip(text_classes, text_parts, strict=True)
        ]
        places = [folder / part.replace("text_encoder", "tokenizer") for part in text_parts]
        with quiet_libraries():
            tokenizers = [
                tokenizer_class(place).from_pretrained(place, local_files_only=True)
                for place in places
            ]
        schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        with only_what_is_used():
            scheduler = library_class("DDIMScheduler").from_config(schedule)
        vae.decoder = None
        for module in (unet, vae, *encoders):
            if computing_type(device, precision) != dtype:
                module.float()
            module.requires_grad_(False).eval()
            module.to(device)
    alphas = scheduler.alphas_cumprod.double()
    return Parts(unet, vae, tuple(tokenizers), tuple(encoders), alphas)
