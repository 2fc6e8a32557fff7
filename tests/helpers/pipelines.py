"""Small pipelines with the real architectures and random weights."""

from pathlib import Path
from typing import Any

FAMILIES = ("sd1", "sd2", "sdxl")

_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes that CLIP's tokenizer starts from."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def _tokenizer() -> Any:
    """CLIP's tokenizer with two merges only, so that most words have several tokens."""
    import transformers

    letters = _byte_alphabet()
    tokens = [*letters, *(letter + "</w>" for letter in letters), "do", "dog</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[("d", "o"), ("do", "g</w>")], model_max_length=77
    )


def _text_config(width: int, vocabulary: int, projection: int) -> Any:
    import transformers

    return transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=projection,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


def _vae() -> Any:
    import diffusers

    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )


def build_pipeline(family: str, seed: int = 0) -> Any:
    """A pipeline shaped as SD 1.x, SD 2.x or SDXL: the same blocks in the same places, narrow."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    size = len(tokenizer)
    text = transformers.CLIPTextModel(_text_config(16, size, 16))
    common: dict[str, Any] = {
        "sample_size": 8,
        "norm_num_groups": 4,
        "layers_per_block": 2,
        "in_channels": 4,
        "out_channels": 4,
    }
    if family == "sdxl":
        unet = diffusers.UNet2DConditionModel(
            **common,
            block_out_channels=(8, 16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 2, 3],
            attention_head_dim=[1, 2, 4],
            use_linear_projection=True,
            cross_attention_dim=16 + 24,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 12,
        )
        return diffusers.StableDiffusionXLPipeline(
            vae=_vae(),
            unet=unet,
            text_encoder=text,
            text_encoder_2=transformers.CLIPTextModelWithProjection(_text_config(24, size, 12)),
            tokenizer=tokenizer,
            tokenizer_2=_tokenizer(),
            scheduler=diffusers.EulerAncestralDiscreteScheduler(
                **_SCHEDULE, timestep_spacing="trailing"
            ),
        )
    unet = diffusers.UNet2DConditionModel(
        **common,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=2 if family == "sd1" else [1, 2, 2, 2],
        use_linear_projection=family == "sd2",
        cross_attention_dim=16,
    )
    prediction = "v_prediction" if family == "sd2" else "epsilon"
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        unet=unet,
        text_encoder=text,
        tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(
            **_SCHEDULE, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_pipeline(family: str, folder: Path) -> Path:
    """`build_pipeline`, written in diffusers' layout; returns the folder."""
    build_pipeline(family).save_pretrained(folder, safe_serialization=True)
    return folder
