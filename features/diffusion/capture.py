"""Capturing the projections of one transformer block while a diffusers UNet runs."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from features.errors import ModelError

if TYPE_CHECKING:
    import torch

_TRANSFORMER_BLOCK = re.compile(r"up_blocks\.(\d+)\.attentions\.(\d+)\.transformer_blocks\.(\d+)")


class _CapturedError(Exception):
    """Ends the UNet's forward pass after the last projection was captured."""


def transformer_blocks(unet: "torch.nn.Module") -> dict[str, int]:
    """The transformer blocks on the UNet's up path, in the order they run.

    Returns the channels of each block's queries by its module path.
    """
    places = [
        (tuple(int(number) for number in match.groups()), name)
        for name, _ in unet.named_modules()
        if (match := _TRANSFORMER_BLOCK.fullmatch(name))
    ]
    return {
        name: int(transformer_block(unet, name).attn1.to_q.out_features)
        for _, name in sorted(places)
    }


def transformer_block(unet: "torch.nn.Module", path: str) -> Any:
    """The block at a module path, which has both self- and cross-attention.

    Raises ModelError naming the path where there is none.
    """
    try:
        block = unet.get_submodule(path)
    except AttributeError:
        raise ModelError(f"the model's UNet has no block {path}") from None
    for attention in ("attn1", "attn2"):
        if not hasattr(getattr(block, attention, None), "to_q"):
            raise ModelError(f"the block {path} lacks the attention layer {attention}")
    return block


def capture(block: Any, forward: Callable[[], object]) -> tuple["torch.Tensor", "torch.Tensor"]:
    """F_A = (Q_SA + K_SA) / 2 and F_S = Q_CA of one UNet evaluation (PDM Eq. 1 and 2).

    block: from `transformer_block`. forward: evaluates the UNet; the layers after the captured
    projections do not run. Returns two (batch, cells, d) tensors in the UNet's dtype.
    """
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, last: bool = False) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: "torch.Tensor") -> None:
            seen[name] = output
            if last:
                raise _CapturedError

        return hook

    hooks = [
        block.attn1.to_q.register_forward_hook(keep("self_query")),
        block.attn1.to_k.register_forward_hook(keep("self_key")),
        # Cross-attention follows self-attention in the block, so its query comes last.
        block.attn2.to_q.register_forward_hook(keep("cross_query", last=True)),
    ]
    try:
        forward()
    except _CapturedError:
        pass
    finally:
        for handle in hooks:
            handle.remove()
    return (seen["self_query"] + seen["self_key"]) / 2, seen["cross_query"]
