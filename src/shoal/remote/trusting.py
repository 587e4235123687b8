"""Kernels that trust the shapes of their arguments: at a worker they run behind checks, or they would read beyond.

Everything else on the list of operators checks for itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from shoal.remote.recurrent import LSTM

aten = torch.ops.aten

MOST_SIZES = 10_000

_workspaces: dict[tuple[Any, ...], int] = {}
"""Bytes that a forward pass leaves for its backward pass, by shapes."""


def _require(true: bool, kernel: str) -> None:
    if not true:
        raise ValueError(f"{kernel} with arguments of shapes that do not belong together")


def _fits(tensor: torch.Tensor | None, shape: Sequence[int], dtype: torch.dtype) -> bool:
    return tensor is None or (tensor.shape == tuple(shape) and tensor.dtype == dtype and tensor.is_contiguous())


def _layer(given: Sequence[Any], hidden_size: Any) -> tuple[int, ...]:
    """Check inputs, weights and states of a recurrent layer, and return its sizes."""
    rows, states = given[0], given[5:7]
    _require(rows.dim() == 3 and isinstance(hidden_size, int) and hidden_size > 0, "a recurrent layer")
    steps, batch, features = rows.shape
    gates = 4 * hidden_size
    shapes = [(steps, batch, features), (gates, features), (gates, hidden_size), (gates,), (gates,)]
    for tensor, shape in zip(given[:5], shapes, strict=True):
        _require(_fits(tensor, shape, torch.float32), "a recurrent layer")
    for tensor in states:
        _require(_fits(tensor, (batch, hidden_size), torch.float32), "a recurrent layer")
    return steps, batch, features, hidden_size


def rnn_layer(*given: Any) -> Any:
    """Call mkldnn_rnn_layer. Raises ValueError for shapes that do not belong together."""
    if given[0].is_meta:
        return aten.mkldnn_rnn_layer.default(*given)
    _require(given[8] == [] and given[9] == LSTM, "a recurrent layer")
    sizes = _layer(given, given[10])
    with torch.set_grad_enabled(bool(given[15])):  # what torch looks at to keep what a backward pass needs
        made = aten.mkldnn_rnn_layer.default(*given)
    if made[3] is not None:
        if len(_workspaces) > MOST_SIZES:
            _workspaces.clear()
        _workspaces[*sizes, bool(given[7])] = made[3].nbytes
    return made


def rnn_layer_backward(*given: Any) -> Any:
    """Call mkldnn_rnn_layer_backward. Raises ValueError for shapes that do not belong together."""
    if given[0].is_meta:
        return aten.mkldnn_rnn_layer_backward.default(*given)
    workspace = given[22]
    _require(given[14] == LSTM and given[20] == [], "a recurrent layer")
    steps, batch, features, hidden = _layer(given, given[15])
    for tensor in (given[7], given[10]):
        shape = (steps, batch, hidden)
        _require(tensor is None or (tensor.shape == shape and tensor.dtype == torch.float32), "a recurrent layer")
    for tensor in (*given[8:10], *given[11:13]):
        _require(tensor is None or tensor.shape == (batch, hidden), "a recurrent layer")
    kept = _workspaces.get((steps, batch, features, hidden, bool(given[13])))
    _require(kept is not None and workspace.nbytes == kept and workspace.is_contiguous(), "a recurrent layer")
    return aten.mkldnn_rnn_layer_backward.default(*given)


def _attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> None:
    batch, heads, length, width = query.shape
    _require(key.dim() == 4 and key.shape == value.shape, "attention")
    _require((key.shape[0], key.shape[1], key.shape[3]) == (batch, heads, width), "attention")
    _require(query.dtype == key.dtype == value.dtype, "attention")
    _require(all(each.stride(-1) == 1 for each in (query, key, value)), "attention")
    if mask is not None:
        mask.expand(batch, heads, length, key.shape[2])  # raises where it cannot be


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float = 0.0,
    causal: bool = False,
    **named: Any,
) -> Any:
    """Call _scaled_dot_product_flash_attention_for_cpu. Raises ValueError as above."""
    _attended(query, key, value, named.get("attn_mask"))
    return aten._scaled_dot_product_flash_attention_for_cpu.default(query, key, value, dropout, causal, **named)


def flash_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    dropout: float,
    causal: bool,
    **named: Any,
) -> Any:
    """Call _scaled_dot_product_flash_attention_for_cpu_backward. Raises ValueError as above."""
    _attended(query, key, value, named.get("attn_mask"))
    _require(grad.shape == out.shape == query.shape and grad.dtype == out.dtype == query.dtype, "attention")
    _require(logsumexp.shape == query.shape[:3] and logsumexp.dtype == torch.float32, "attention")
    return aten._scaled_dot_product_flash_attention_for_cpu_backward.default(
        grad, query, key, value, out, logsumexp, dropout, causal, **named
    )


CHECKED: dict[str, Callable[..., Any]] = {
    "aten.mkldnn_rnn_layer.default": rnn_layer,
    "aten.mkldnn_rnn_layer_backward.default": rnn_layer_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": flash,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": flash_backward,
}
