"""Features of diffusion transformers by their definition, in float64, from a block's own input.

The transformer of an unmodified pipeline runs as a whole; what its block was given is recorded.
"""

from typing import Any

import torch


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
    if hasattr(module, "norm1"):
        normed = modulated(module.norm1, hidden, given["temb"], "zero")
    else:
        normed = modulated(module.norm, hidden, given["temb"], "zero")
    query, key = (
        by_heads(
            getattr(attention, f"norm_{which}"),
            linear(getattr(attention, f"to_{which}"), normed),
            attention.heads,
        )
        for which in "qk"
    )
    return (query + key) / 2, query


def joint_text_keys(module: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The keys of the text's tokens."""
    attention, text = module.attn, given["encoder_hidden_states"]
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
