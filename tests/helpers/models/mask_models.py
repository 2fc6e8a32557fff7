"""Small SAMs with the real architectures and random weights."""

from pathlib import Path
from typing import Any

_PROMPTS = {"hidden_size": 16, "image_size": 64, "mask_input_channels": 4}
_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}


def build_sam(kind: str) -> Any:
    """A model of a kind, "sam" or "sam2", for pictures of 64 x 64 pixels."""
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "sam":
        vision = {
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
            "window_size": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
            "mlp_dim": 32,
            "initializer_range": 0.02,
        }
        prompts = {**_PROMPTS, "patch_size": 16}
        model = transformers.SamModel(
            transformers.SamConfig(
                vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=_DECODER
            )
        )
    else:
        backbone = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "num_attention_heads": 1,
            "image_size": [64, 64],
            "window_positional_embedding_background_size": [2, 2],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 2, 2, 2],
            "global_attention_blocks": [3],
        }
        vision = {
            "backbone_config": backbone,
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        }
        model = transformers.Sam2Model(
            transformers.Sam2Config(
                vision_config=vision, prompt_encoder_config=_PROMPTS, mask_decoder_config=_DECODER
            )
        )
    return model.eval()


def save_sam(kind: str, folder: Path) -> Path:
    """`build_sam`, written in transformers' layout; returns the folder."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    build_sam(kind).save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()
    return folder
