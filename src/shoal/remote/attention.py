"""Attention as torch computes it on a processor, which is what a worker has.

On a device that it does not know torch takes it apart, and the last bits differ. The order of operators is that of
ATen's `native/transformers/attention.cpp`.
"""

from typing import Any

import torch

aten = torch.ops.aten

_FLASH = 1
_choices: dict[tuple[Any, ...], int] = {}


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Compute torch's scaled_dot_product_attention."""
    options = {"scale": scale, "enable_gqa": enable_gqa}
    given = (query, key, value, attn_mask)
    if _choice(given, dropout_p, is_causal, options) != _FLASH:
        return aten._scaled_dot_product_attention_math.default(*given, dropout_p, is_causal, None, **options)[0]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), float("-inf"))
    return aten._scaled_dot_product_flash_attention_for_cpu.default(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]


def _choice(given: tuple[torch.Tensor | None, ...], dropout: float, causal: bool, options: dict[str, Any]) -> int:
    """Return the kernel that torch would choose for such tensors on a processor."""
    key = (*(_described(each) for each in given), dropout, causal, *options.values(), torch.is_grad_enabled())
    found = _choices.get(key)
    if found is None:
        here = [None if each is None else _like(each) for each in given]
        found = _choices[key] = torch._fused_sdp_choice(*here, dropout, causal, **options)  # type: ignore[call-arg, arg-type]
    return found


def _described(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad)


def _like(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of this layout here; its memory is never touched."""
    here = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return here.requires_grad_(tensor.requires_grad)
