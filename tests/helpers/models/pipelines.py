"""Small pipelines with the real architectures and random weights."""

from pathlib import Path
from typing import Any

FAMILIES = ("sd1", "sd2", "sdxl")
TRANSFORMERS = ("pixart", "sd3", "sd35", "flux", "flux2")

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
    """A pipeline of a family, written in diffusers' layout; returns the folder."""
    build = build_transformer_pipeline if family in TRANSFORMERS else build_pipeline
    build(family).save_pretrained(folder, safe_serialization=True)
    return folder


def _t5_tokenizer() -> Any:
    """T5's tokenizer that knows two words and letters, so that most words have several tokens."""
    import transformers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁dog", -1.0)]
    pieces += [("▁a", -1.5), *((letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz")]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _t5(size: int) -> Any:
    import transformers

    config = transformers.T5Config(
        vocab_size=size, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2, is_decoder=False
    )
    return transformers.T5EncoderModel(config)


def _vae16() -> Any:
    """A VAE with the 16 latent channels and the shift of SD3 and Flux."""
    import diffusers

    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


# What Qwen3's template makes of one message, and of the request for an answer without thinking.
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}
        {{- '<think>\\n\\n</think>\\n\\n' -}}
    {%- endif -%}
{%- endif -%}"""


def _qwen_tokenizer() -> Any:
    """Qwen's tokenizer with two merges only, so that most words have several tokens."""
    import transformers

    tokens = [*_byte_alphabet(), "do", "dog", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return transformers.Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[("d", "o"), ("do", "g")],
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=_CHAT_TEMPLATE,
    )


def _build_flux2(seed: int) -> Any:
    """A pipeline shaped as Flux.2 [klein], narrow; its text encoder has the layers that it asks."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = _qwen_tokenizer()
    qwen = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 16, 16), latent_channels=4, norm_num_groups=4
    )
    vae.bn.running_mean.normal_(std=0.1)
    vae.bn.running_var.uniform_(0.2, 0.4)
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=3 * 8,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    encoder = transformers.Qwen3ForCausalLM(qwen)
    return _lively(diffusers.Flux2KleinPipeline(flow, vae, encoder, tokenizer, transformer))


def build_transformer_pipeline(family: str, seed: int = 0) -> Any:
    """A pipeline shaped as PixArt, SD3 (without T5), SD3.5, Flux-dev or Flux.2 [klein], shallow and
    narrow.
    """
    if family == "flux2":
        return _build_flux2(seed)
    import diffusers
    import torch
    import transformers

    torch.manual_seed(seed)
    t5_tokenizer, clip_tokenizer = _t5_tokenizer(), _tokenizer()
    t5 = _t5(len(t5_tokenizer))
    heads: dict[str, int] = {"num_attention_heads": 2, "attention_head_dim": 16}
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    clip = _text_config(16, len(clip_tokenizer), 16)
    if family == "pixart":
        transformer = diffusers.PixArtTransformer2DModel(
            **heads,
            num_layers=4,
            sample_size=16,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=32,
            caption_channels=24,
            norm_num_groups=4,
        )
        pipeline = diffusers.PixArtSigmaPipeline(
            t5_tokenizer,
            t5,
            _vae(),
            transformer,
            diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02),
        )
    elif family == "flux":
        transformer = diffusers.FluxTransformer2DModel(
            **heads,
            in_channels=64,
            num_layers=2,
            num_single_layers=3,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        )
        pipeline = diffusers.FluxPipeline(
            flow,
            _vae16(),
            transformers.CLIPTextModel(clip),
            clip_tokenizer,
            t5,
            t5_tokenizer,
            transformer,
        )
    else:
        transformer = diffusers.SD3Transformer2DModel(
            **heads,
            sample_size=16,
            num_layers=4,
            joint_attention_dim=48 if family == "sd3" else 24,
            caption_projection_dim=32,
            pooled_projection_dim=32,
            pos_embed_max_size=12,
            dual_attention_layers=(0, 1) if family == "sd35" else (),
            qk_norm="rms_norm" if family == "sd35" else None,
        )
        pipeline = diffusers.StableDiffusion3Pipeline(
            transformer,
            flow,
            _vae16(),
            *(transformers.CLIPTextModelWithProjection(clip), clip_tokenizer),
            *(transformers.CLIPTextModelWithProjection(clip), _tokenizer()),
            *((None, None) if family == "sd3" else (t5, t5_tokenizer)),
        )
    return _lively(pipeline)


def _lively(pipeline: Any) -> Any:
    """The pipeline, with larger weights in what new layers leave at zero or near it."""
    import torch

    with torch.no_grad():
        for parameter in pipeline.transformer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return pipeline
