"""Features of diffusion transformers by their definition, in float64, from a block's own input.

The transformer of an unmodified pipeline runs as a whole; what its block was given is recorded.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

# The text's tokens of Flux.2, padding included.
FLUX2_TOKENS = 512


def run_pipeline(pipeline: Any, latents: torch.Tensor, timestep: int, prompt: str) -> None:
    """One evaluation of a pipeline's transformer, by the pipeline's own methods."""
    name, transformer = type(pipeline).__name__, pipeline.transformer
    if name == "PixArtSigmaPipeline":
        states, mask, *_ = pipeline.encode_prompt(prompt, False, device="cpu")
        transformer(
            latents,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=torch.tensor([timestep]),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        )
    elif name == "StableDiffusion3Pipeline":
        states, _, pooled, _ = pipeline.encode_prompt(
            prompt, None, None, do_classifier_free_guidance=False, device="cpu"
        )
        transformer(
            latents,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=torch.tensor([timestep]),
        )
    elif name == "Flux2KleinPipeline":
        states, text_ids = pipeline.encode_prompt(prompt, device="cpu")
        transformer(
            pipeline._pack_latents(latents),
            encoder_hidden_states=states,
            timestep=torch.tensor([timestep / 1000]),
            img_ids=pipeline._prepare_latent_ids(latents),
            txt_ids=text_ids,
            guidance=None,
        )
    else:
        states, pooled, text_ids = pipeline.encode_prompt(prompt, device="cpu")
        rows, columns = latents.shape[2:]
        transformer(
            pipeline._pack_latents(latents, 1, 16, rows, columns),
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=torch.tensor([timestep / 1000]),
            img_ids=pipeline._prepare_latent_image_ids(
                1, rows // 2, columns // 2, "cpu", torch.float32
            ),
            txt_ids=text_ids,
            guidance=torch.tensor([3.5]),
        )


def noised_by_hand(
    family: str, clean: torch.Tensor, noise: torch.Tensor, timestep: int
) -> torch.Tensor:
    if family == "pixart":
        alpha = float(np.prod(1 - np.linspace(0.0001, 0.02, 1000)[: timestep + 1]))
        return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
    return (1 - timestep / 1000) * clean + timestep / 1000 * noise


def open_pipeline(folder: Path) -> Any:
    import diffusers

    index = json.loads((folder / "model_index.json").read_text())
    absent = [part for part, kind in index.items() if kind == [None, None]]
    return getattr(diffusers, index["_class_name"]).from_pretrained(folder, **dict.fromkeys(absent))


def scaled_by_hand(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    """A VAE's latents as the pipeline's transformer takes them."""
    vae = pipeline.vae
    if type(pipeline).__name__ == "Flux2KleinPipeline":
        patches = pipeline._patchify_latents(latents)
        mean, variance = (
            values[None, :, None, None] for values in (vae.bn.running_mean, vae.bn.running_var)
        )
        return (patches - mean) / torch.sqrt(variance + vae.config.batch_norm_eps)
    return (latents - (vae.config.get("shift_factor") or 0)) * vae.config.scaling_factor


def block_input(pipeline: Any, block: str, run: Any) -> dict[str, torch.Tensor]:
    """The tensors that a block of the pipeline's transformer is given, in float64 by name."""
    seen: dict[str, torch.Tensor] = {}

    def keep(_module: object, args: tuple[torch.Tensor, ...], named: dict[str, Any]) -> None:
        found = dict(zip(("hidden_states",), args, strict=False)) | named
        seen.update(
            {k: v.double() for k, v in found.items() if isinstance(v, torch.Tensor) and v.ndim > 0}
        )

    module = pipeline.transformer.get_submodule(block)
    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        run()
    handle.remove()
    return seen


def linear(layer: Any, values: torch.Tensor) -> torch.Tensor:
    bias = 0 if layer.bias is None else layer.bias.double()
    return values @ layer.weight.double().T + bias


def layer_norm(values: torch.Tensor) -> torch.Tensor:
    centred = values - values.mean(dim=-1, keepdim=True)
    return centred / (centred.pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()


def by_heads(norm: Any, values: torch.Tensor, heads: int) -> torch.Tensor:
    """The root mean square norm of each head, if there is one."""
    if norm is None:
        return values
    parts = values.unflatten(-1, (heads, -1))
    root = (parts.pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    return (parts / root * norm.weight.double()).flatten(-2)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> Any:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(-2)


def modulated(norm: Any, values: torch.Tensor, emb: torch.Tensor, kind: str) -> torch.Tensor:
    """An adaptive norm that is followed by attention. kind: "zero" (shift first) or "continuous"
    (scale first).
    """
    parts = linear(norm.linear, torch.nn.functional.silu(emb))
    first, second = parts.split(values.shape[-1], dim=-1)[:2]
    shift, scale = (first, second) if kind == "zero" else (second, first)
    return layer_norm(values) * (1 + scale[:, None]) + shift[:, None]


def modulated_by(parts: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A norm by the modulation that Flux.2's blocks share: shift, scale, and what follows."""
    shift, scale = parts.split(values.shape[-1], dim=-1)[:2]
    return layer_norm(values) * (1 + scale[:, None]) + shift[:, None]


def projected(attention: Any, which: str, values: torch.Tensor) -> torch.Tensor:
    """Queries ("q") or keys ("k"), which in single-stream blocks of Flux.2 one layer gives."""
    if not hasattr(attention, "to_qkv_mlp_proj"):
        return linear(getattr(attention, f"to_{which}"), values)
    parts = linear(attention.to_qkv_mlp_proj, values).split(values.shape[-1], dim=-1)
    return parts["qk".index(which)]


def pixart_maps(module: Any, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = given["hidden_states"]
    table = module.scale_shift_table.double()[None] + given["timestep"].unflatten(1, (6, -1))
    shift, scale, gate = table[:, 0:1], table[:, 1:2], table[:, 2:3]
    normed = layer_norm(hidden) * (1 + scale) + shift
    query, key, value = (
        linear(getattr(module.attn1, name), normed) for name in ("to_q", "to_k", "to_v")
    )
    mixed = linear(module.attn1.to_out[0], attend(query, key, value, module.attn1.heads))
    cross = linear(module.attn2.to_q, layer_norm(hidden + gate * mixed))
    return (query + key) / 2, cross


def joint_maps(module: Any, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    attention, hidden = module.attn, given["hidden_states"]
    if "temb_mod_img" in given:
        normed = modulated_by(given["temb_mod_img"], hidden)
    elif "temb_mod" in given:  # a single-stream block of Flux.2: text and image
        normed = modulated_by(given["temb_mod"], hidden)[:, FLUX2_TOKENS:]
    elif hasattr(module, "norm1"):
        normed = modulated(module.norm1, hidden, given["temb"], "zero")
    else:
        normed = modulated(module.norm, hidden, given["temb"], "zero")
    query, key = (
        by_heads(
            getattr(attention, f"norm_{which}"),
            projected(attention, which, normed),
            attention.heads,
        )
        for which in "qk"
    )
    return (query + key) / 2, query


def joint_text_keys(module: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The keys of the text's tokens."""
    attention = module.attn
    if "temb_mod" in given:
        normed = modulated_by(given["temb_mod"], given["hidden_states"])[:, :FLUX2_TOKENS]
        return by_heads(attention.norm_k, projected(attention, "k", normed), attention.heads)
    text = given["encoder_hidden_states"]
    if "temb_mod_txt" in given:
        keys = linear(attention.add_k_proj, modulated_by(given["temb_mod_txt"], text))
        return by_heads(attention.norm_added_k, keys, attention.heads)
    if not hasattr(module, "norm1"):  # a single-stream block of Flux: the keys of all tokens
        normed = modulated(module.norm, text, given["temb"], "zero")
        return by_heads(attention.norm_k, linear(attention.to_k, normed), attention.heads)
    is_last = getattr(module, "context_pre_only", False)
    kind = "continuous" if is_last else "zero"
    normed = modulated(module.norm1_context, text, given["temb"], kind)
    return by_heads(
        getattr(attention, "norm_added_k", None),
        linear(attention.add_k_proj, normed),
        attention.heads,
    )
