"""Loading a model from diffusers' layout: bundled, in a local folder, or from the hub.

Only what features need is kept: the VAE's encoder, the UNet or the transformer, the text encoders
and the noise schedule. What is on disk is looked at at once; the weights are read when they are
first used.
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from features.device import Precision, computing_type
from features.diffusion.architecture import Architecture
from features.diffusion.dit.dit_architecture import DiTArchitecture, Family
from features.diffusion.dit.dit_model import DiTModel
from features.diffusion.dit.flux import FluxModel
from features.diffusion.dit.flux2 import Flux2Model
from features.diffusion.dit.pixart import PixArtModel
from features.diffusion.dit.sd3 import SD3Model
from features.diffusion.model import DiffusionModel, Parts
from features.diffusion.presets import PRESETS, bundled_path
from features.diffusion.unet_model import UNetModel
from features.diffusion.words import Vocabulary
from features.errors import ModelError
from features.pretrained.checkpoints import (
    Layout,
    check_weights,
    explained_errors,
    files_digest,
    load_pretrained,
    load_weights,
    locate,
    missing,
    quiet_libraries,
)
from features.pretrained.library_parts import library_class, only_what_is_used, tokenizer_class
from features.vision.vision_presets import VISION_PRESETS

if TYPE_CHECKING:
    import torch

_NEEDED = "a whole pipeline in diffusers' layout with safetensors weights"
# Their order decides the revisions of local models, which indexes keep.
_PARTS = (
    *("unet", "transformer", "vae"),
    *("text_encoder", "text_encoder_2", "text_encoder_3"),
    *("tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"),
)
_TRANSFORMERS: dict[Family, type[DiTModel]] = {
    "pixart": PixArtModel,
    "sd3": SD3Model,
    "flux": FluxModel,
    "flux2": Flux2Model,
}


def load_model(
    name: str,
    device: str = "auto",
    revision: str | None = None,
    precision: Precision | None = None,
) -> DiffusionModel:
    """Find a model by preset name, local folder in diffusers' layout, or hub id.

    device: "auto" (a GPU where there is one), or any torch device. revision: a hub commit.
    precision: of the weights; None for what is usual on the device. A hub model that is not on this
    machine yet is downloaded. Raises ModelError where the files cannot be had, or are not of a
    family that Waldo knows; the model raises it where its weights turn out to be broken, or the
    device cannot be used.
    """
    preset = PRESETS.get(name)
    # The commits of two repositories, where the UNet comes from another than the rest.
    commits = revision.split("+") if revision else [None, None]
    try:
        folder, resolved, variant = _locate(name, commits[0])
    except ModelError as error:
        raise ModelError(f"{error}{_unet_hint(name, commits[-1])}") from error
    unet = None
    if preset is not None and preset.unet is not None:
        unet, commit = _locate_unet(name, *preset.unet, commits[-1])
        resolved = f"{resolved}+{commit}"
    if Path(name).is_dir() and name not in PRESETS:
        name = str(folder)
    repository = None
    if not resolved.startswith("sha256:"):
        repository = preset.source if preset else name
    architecture = _architecture(name, folder, repository)
    parts = [part for part in architecture.classes if part != "unet" or unet is None]
    tokenizers = [part.replace("text_encoder", "tokenizer") for part in parts if "text" in part]
    check_weights(f"model {name}", folder, repository, parts, variant, tokenizers)
    read = partial(read_parts, name, folder, variant, architecture, unet=unet)
    vocabulary = Vocabulary(folder / "tokenizer")
    kind: type[DiffusionModel] = UNetModel
    if isinstance(architecture, DiTArchitecture):
        kind = _TRANSFORMERS[architecture.family]
    return kind(name, resolved, architecture, device, vocabulary, read, precision)


def _architecture(
    name: str, folder: Path, repository: str | None
) -> Architecture | DiTArchitecture:
    """What a pipeline's configuration says. Raises ModelError where it cannot be used."""
    with explained_errors(f"model {name}", folder, _NEEDED):
        try:
            index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
            has_transformer = any(index.get("transformer") or ())
            return (DiTArchitecture if has_transformer else Architecture).read(folder)
        except FileNotFoundError as error:
            raise missing(f"model {name}", error.filename, repository) from error


def _locate(name: str, revision: str | None) -> tuple[Path, str, str | None]:
    """The local folder of a model, its resolved revision, and its weight files' variant."""
    preset = PRESETS.get(name)
    if preset is not None and preset.source.startswith("bundled:"):
        folder = bundled_path(preset.source)
        return folder, weights_digest(folder), None
    variant = preset.variant if preset else None
    # All models, because an unknown name is answered with the names that are known.
    known = {name: preset.source for name, preset in (PRESETS | VISION_PRESETS).items()}
    layout = _layout(variant, has_denoiser=preset is None or preset.unet is None)
    folder, commit = locate("model", name, known, layout, revision)
    if commit is None:
        return folder, weights_digest(folder), _local_variant(folder)
    return folder, commit, variant


def _locate_unet(
    name: str, repository: str, file: str, revision: str | None
) -> tuple[Path, str | None]:
    """The local path of a UNet's weights in a hub repository, and its commit."""
    layout = Layout("diffusers", file, (file,), (file,), parts=())
    folder, commit = locate("model", name, {name: repository}, layout, revision)
    return folder / file, commit


def _unet_hint(name: str, revision: str | None) -> str:
    """How to get the UNet of a preset too, for a message that the rest is missing; "" where it is
    on this machine, or part of the rest.
    """
    from huggingface_hub import try_to_load_from_cache

    preset = PRESETS.get(name)
    if preset is None or preset.unet is None:
        return ""
    repository, file = preset.unet
    if isinstance(try_to_load_from_cache(repository, file, revision=revision), str):
        return ""
    return f"; its UNet is missing too: `hf download {repository} {file}`"


def _layout(variant: str | None, has_denoiser: bool = True) -> Layout:
    """The files of a pipeline in diffusers' layout.

    variant: of its weight files, or None. has_denoiser: whether its UNet or transformer is needed.
    """
    weights = f"*.{variant}.safetensors" if variant else "*.safetensors"
    files = ["model_index.json"]
    for part in _PARTS:
        files += [f"{part}/*.json", f"{part}/*.txt", f"{part}/*.model", f"{part}/{weights}"]
    ignored = () if variant else ("*.fp16.*", "*.fp16-*", "*non_ema*")
    needed: tuple[str, ...] = ("unet/*.safetensors", "transformer/*.safetensors")
    if not has_denoiser:
        needed = ("vae/*.safetensors",)
        files.remove(f"unet/{weights}")
    library = "diffusers' or transformers"
    return Layout(library, "model_index.json", tuple(files), needed, ignored, parts=())


def _local_variant(folder: Path) -> str | None:
    """ "fp16" where a folder holds only that variant of its denoiser's weights."""
    parts = (folder / "unet", folder / "transformer")
    names = [path.name for part in parts for path in part.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def weights_digest(folder: Path) -> str:
    """`files_digest` of the model's configuration and weight files."""
    files = (path for part in _PARTS for path in sorted((folder / part).glob("*")))
    kinds = (".json", ".safetensors", ".txt", ".model")
    return files_digest(folder, (path for path in files if path.suffix in kinds))


def read_parts(
    name: str,
    folder: Path,
    variant: str | None,
    architecture: Architecture | DiTArchitecture,
    device: "torch.device",
    precision: Precision,
    unet: Path | None = None,
) -> Parts:
    """The parts of a pipeline in a folder. Raises ModelError where its weights are broken.

    variant: of its weight files. precision: of the denoiser and the text encoders. unet: a file of
    weights that take the place of the UNet's own.
    """
    import torch

    dtype = getattr(torch, precision)
    classes = architecture.classes
    text_parts = [part for part in classes if part.startswith("text_encoder")]
    with explained_errors(f"model {name}", folder, _NEEDED):
        # diffusers imports transformers, so the parts of transformers come first.
        text_classes = [library_class(classes[part]) for part in text_parts]
        part = "unet" if "unet" in classes else "transformer"
        denoiser_class, vae_class = library_class(classes[part]), library_class(classes["vae"])
        if unet is None:
            denoiser = load_pretrained(denoiser_class, folder / part, dtype, variant=variant)
        else:
            denoiser = load_weights(denoiser_class, folder / part, unet)
        if denoiser.dtype != dtype:  # SD3's class ignores the type that it is to be read in
            with quiet_libraries():
                denoiser.to(dtype)
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
        alphas = _alphas_cumprod(folder)
        vae.decoder = None
        for module in (denoiser, vae, *encoders):
            if computing_type(device, precision) != dtype:
                module.float()
            module.requires_grad_(False).eval()
            module.to(device)
    return Parts(denoiser, vae, tuple(tokenizers), tuple(encoders), alphas)


def _alphas_cumprod(folder: Path) -> "torch.Tensor | None":
    """`Parts.alphas_cumprod` of a pipeline."""
    schedule = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    if schedule.get("_class_name", "").startswith("FlowMatch"):
        return None
    with only_what_is_used():
        scheduler = library_class("DDIMScheduler").from_config(schedule)
    alphas: torch.Tensor = scheduler.alphas_cumprod.double()
    return alphas
