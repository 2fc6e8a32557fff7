"""Loading a model from diffusers' layout: bundled, in a local folder, or from the hub.

Only what features need is kept: the VAE's encoder, the UNet, the text encoders and the noise
schedule. Weights are read from safetensors files alone.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.diffusion.model import DiffusionModel
from features.diffusion.presets import PRESETS, bundled_path
from features.errors import ModelError

if TYPE_CHECKING:
    import torch

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


def load_model(name: str, device: str = "auto", revision: str | None = None) -> DiffusionModel:
    """Load a model by preset name, local folder in diffusers' layout, or hub id.

    device: "auto" (a GPU where there is one), or any torch device. revision: a hub commit.
    A hub model that is not on this machine yet is downloaded. Raises ModelError where the weights
    cannot be had or are not of the Stable Diffusion family.
    """
    target, dtype = device_and_precision(device)
    folder, resolved, variant = _locate(name, revision)
    if Path(name).is_dir() and name not in PRESETS:
        name = str(folder)
    return _load_folder(name, folder, resolved, variant, target, dtype)


def device_and_precision(device: str) -> tuple["torch.device", "torch.dtype"]:
    """Where a model runs, "auto" being a GPU where there is one, and the precision it has there.

    Raises ModelError for a device that cannot be used.
    """
    import torch

    try:
        target = torch.device(_pick_device() if device == "auto" else device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"--device {device}: not usable here ({reason})") from None
    # Half precision only where the hardware is made for it.
    return target, torch.float16 if target.type in ("cuda", "mps") else torch.float32


def _pick_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _locate(name: str, revision: str | None) -> tuple[Path, str, str | None]:
    """The local folder of a model, its resolved revision, and its weight files' variant."""
    preset = PRESETS.get(name)
    source = preset.source if preset else name
    if source.startswith("bundled:"):
        folder = bundled_path(source)
        return folder, weights_digest(folder), None
    local = Path(source)
    if local.is_dir():
        if not (local / "model_index.json").is_file():
            raise ModelError(
                f"{source}: not a model in diffusers' layout (no model_index.json in it)"
            )
        return local.resolve(), weights_digest(local), _local_variant(local)
    if source.count("/") != 1 or local.is_absolute():
        known = ", ".join(PRESETS)
        raise ModelError(f"{name}: no such model; known names: {known}, or a local folder")
    variant = preset.variant if preset else None
    folder = _hub_folder(source, revision, variant)
    return folder, folder.name, variant


def _hub_folder(repository: str, revision: str | None, variant: str | None) -> Path:
    """The snapshot folder of a hub model, from the local cache or else downloaded."""
    weights = f"*.{variant}.safetensors" if variant else "*.safetensors"
    patterns = ["model_index.json"]
    for part in _PARTS:
        patterns += [f"{part}/*.json", f"{part}/*.txt", f"{part}/{weights}"]
    ignored = None if variant else ["*.fp16.*", "*non_ema*"]
    folder = hub_snapshot(
        repository,
        revision,
        patterns,
        lambda folder: any((folder / "unet").glob("*.safetensors")),
        ignored,
    )
    if folder is not None:
        return folder
    raise ModelError(
        f"{repository}: not on this machine, and the hub did not give it; run "
        f"`hf download {repository}` where there is a network (some models ask you to accept "
        "their licence first), or give --model a local folder in diffusers' layout"
    )


def hub_snapshot(
    repository: str,
    revision: str | None,
    patterns: list[str],
    is_whole: Callable[[Path], bool],
    ignored: list[str] | None = None,
) -> Path | None:
    """The snapshot folder of some files of a hub model, from the local cache or else downloaded.

    patterns, ignored: which files. is_whole: whether a folder has what is needed. None where it
    cannot be had.
    """
    from huggingface_hub import snapshot_download

    for local_only in (True, False):
        try:
            folder = Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=patterns,
                    ignore_patterns=ignored,
                    local_files_only=local_only,
                )
            )
        except Exception:
            # Whatever the hub client raises (offline, refused, no such model), what a person can
            # do about it is the same, and said by the caller.
            continue
        if is_whole(folder):
            return folder
    return None


def _local_variant(folder: Path) -> str | None:
    """ "fp16" where a folder holds only that variant of the UNet's weights."""
    names = [path.name for path in (folder / "unet").glob("*.safetensors*")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def weights_digest(folder: Path) -> str:
    """`files_digest` of the model's configuration and weight files."""
    files = (path for part in _PARTS for path in sorted((folder / part).glob("*")))
    return files_digest(folder, (p for p in files if p.suffix in (".json", ".safetensors", ".txt")))


def files_digest(folder: Path, files: Iterable[Path]) -> str:
    """ "sha256:..." over names and contents of some files beneath a folder, in their order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


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
    try:
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
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{name}: the model's files cannot be loaded from {os.fspath(folder)} ({reason}); "
            "Waldo needs a whole pipeline in diffusers' layout with safetensors weights"
        ) from error
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


def load_pretrained(
    model_class: Any, folder: Path, dtype: "torch.dtype | None" = None, **settings: Any
) -> Any:
    """A model of the diffusers or the transformers library on the CPU, from safetensors alone.

    dtype: float32 where none is given. settings: for `from_pretrained`. Raises ValueError where the
    folder's weights are damaged or not all there, and what the library raises.
    """
    import torch
    from safetensors import SafetensorError

    try:
        with quiet_libraries():
            model, loaded = model_class.from_pretrained(
                folder,
                torch_dtype=dtype or torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **settings,
            )
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if loaded["missing_keys"]:
        raise ValueError(f"its weights lack {min(loaded['missing_keys'])}")
    return model


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without the libraries' own progress bars and advice, which mean nothing to Waldo's users."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [(lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, had_bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if had_bars:
                library.enable_progress_bar()


def _part_class(index: dict[str, Any], part: str, known: dict[str, Any]) -> Any:
    """The class that model_index.json names for a part, among those Waldo can use."""
    entry = index.get(part) or [None, None]
    if entry[1] not in known:
        raise ValueError(f"its {part} is {entry[1] or 'missing'}, not {' or '.join(known)}")
    return known[entry[1]]
