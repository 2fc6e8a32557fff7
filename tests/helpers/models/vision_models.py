"""Small vision transformers with the real architectures and random weights, as folders."""

import json
from pathlib import Path
from typing import Any

from tests.helpers.models.descriptor_models import PREPROCESSORS

# By config.json's model_type.
VISION_KINDS = ["dinov2", "dinov2_with_registers", "dinov3_vit", "siglip", "siglip_vision_model"]
SIZE, PATCH, DIM = 64, 8, 32
WORDS = ["dog", "cat", "cup", "this", "is", "a", "photo", "of", "."]

_LAYERS = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2}
_SIGLIP_LAYERS = {**_LAYERS, "intermediate_size": 48}
_VISION = {"image_size": SIZE, "patch_size": PATCH}


def build_vision_model(kind: str) -> Any:
    """A whole model of a kind, in the mode of inference."""
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "siglip":
        text = {**_SIGLIP_LAYERS, "vocab_size": 20, "projection_size": DIM}
        text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        vision = {**_SIGLIP_LAYERS, **_VISION}
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        return transformers.SiglipModel(config).eval()
    if kind == "siglip_vision_model":
        vision_config = transformers.SiglipVisionConfig(**_SIGLIP_LAYERS, **_VISION)
        return transformers.SiglipVisionModel(vision_config).eval()
    name, more = {
        "dinov2": ("Dinov2", {"mlp_ratio": 2}),
        "dinov2_with_registers": ("Dinov2WithRegisters", {"mlp_ratio": 2}),
        "dinov3_vit": ("DINOv3ViT", {"num_register_tokens": 3, "intermediate_size": 48}),
    }[kind]
    shape = getattr(transformers, f"{name}Config")(**_LAYERS, **_VISION, **more)
    model = getattr(transformers, f"{name}Model")(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            # Newly made, layer scales and biases hardly let a photo through.
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def save_vision_model(kind: str, folder: Path) -> Path:
    """`build_vision_model`, written in transformers' layout; returns the folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    build_vision_model(kind).save_pretrained(folder)
    own = "siglip" if kind.startswith("siglip") else "dinov2"
    size = {"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSORS[own], **size}))
    if kind == "siglip":
        _save_tokenizer(folder)
    return folder


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = {word: place for place, word in enumerate(["<unk>", "<pad>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)
