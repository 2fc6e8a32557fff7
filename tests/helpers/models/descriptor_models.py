"""Small models of global descriptors with the real architectures and random weights."""

import json
from pathlib import Path
from typing import Any

# The preprocessing of the published models, at smaller sizes.
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "dinov2": {
        "do_center_crop": True,
        "do_rescale": True,
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 28, "width": 28},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    },
    "clip": {
        "do_center_crop": True,
        "size": 28,
        "crop_size": 28,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
    },
    "siglip": {
        "do_rescale": True,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 28, "width": 28},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
    },
}
PREPROCESSORS["siglip_vision_model"] = PREPROCESSORS["siglip"]

_LAYERS = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_VISION = {**_LAYERS, "image_size": 28, "patch_size": 14}
_TEXT = {**_LAYERS, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


def build_descriptor(kind: str) -> Any:
    """A whole model of a kind, by config.json's model_type."""
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "dinov2":
        shape = {**_VISION, "intermediate_size": None, "mlp_ratio": 2}
        return transformers.Dinov2Model(transformers.Dinov2Config(**shape))
    if kind == "clip":
        # The length of the vectors of CLIP is a setting of the whole, not of its two parts.
        return transformers.CLIPModel(
            transformers.CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=12)
        )
    if kind == "siglip":
        return transformers.SiglipModel(
            transformers.SiglipConfig(text_config=_TEXT, vision_config=_VISION)
        )
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_VISION))


def save_descriptor(kind: str, folder: Path) -> Path:
    """`build_descriptor`, written in transformers' layout; returns the folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    build_descriptor(kind).eval().save_pretrained(folder)
    preprocessor = json.dumps(PREPROCESSORS[kind])
    (folder / "preprocessor_config.json").write_text(preprocessor)
    return folder
