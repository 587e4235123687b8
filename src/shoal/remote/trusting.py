"""Kernels that trust the shapes of their arguments: at a worker they run behind checks, or they would read beyond.

Everything else on the list of operators checks for itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

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


Bound: TypeAlias = dict[str, Any]


def _numbers(*tensors: torch.Tensor | None, count: int, kernel: str) -> None:
    for each in tensors:
        _require(each is None or each.numel() in (0, count), kernel)


def _pooled(given: Bound) -> None:
    indices, of = given["indices"], given["self"]
    _require(indices.shape == given["grad_output"].shape and indices.dtype == torch.int64, "max pooling")
    _require(indices.dim() == of.dim() and indices.dim() > 2 and given["grad_output"].dtype == of.dtype, "max pooling")
    across = 3 if "max_pool3d" in given["kernel"] else 2
    size = of[..., :1].numel() and torch.Size(of.shape[-across:]).numel()
    _require(not indices.numel() or (int(indices.min()) >= 0 and int(indices.max()) < size), "max pooling")


_STATISTICS = ("running_mean", "running_var", "save_mean", "save_invstd", "save_var")


def _batch_normed(given: Bound) -> None:
    of = given["input"]
    _require(of.dim() > 1, "batch normalisation")
    names = ("weight", "bias", "mean", "var", "invstd", *_STATISTICS)
    _numbers(*(given.get(name) for name in names), count=of.shape[1], kernel="batch normalisation")
    _require(given.get("grad_out") is None or given["grad_out"].shape == of.shape, "batch normalisation")
    states = [given.get(name) for name in _STATISTICS]
    trained = given.get("training", given.get("train", given.get("update", False)))
    _require(all(each is None or each.numel() or trained for each in states), "batch normalisation")


def _layer_normed(given: Bound) -> None:
    of, wide = given["input"], torch.Size(given["normalized_shape"]).numel()
    _require(wide > 0 and given["grad_out"].shape == of.shape, "layer normalisation")
    for each in (given["mean"], given["rstd"]):
        _require(each.numel() == of.numel() // wide, "layer normalisation")
    for each in (given["weight"], given["bias"]):
        _require(each is None or each.numel() == wide, "layer normalisation")


def _group_normed(given: Bound) -> None:
    for each in (given["mean"], given["rstd"]):
        _require(each.numel() == given["N"] * given["group"], "group normalisation")
    _require(given["grad_out"].shape == given["input"].shape, "group normalisation")
    _require(given["input"].numel() == given["N"] * given["C"] * given["HxW"], "group normalisation")


def _weight_normed(given: Bound) -> None:
    backward = "saved_v" in given
    v, g = (given["saved_v"], given["saved_g"]) if backward else (given["v"], given["g"])
    _require(given["dim"] in (0, v.dim() - 1) and g.numel() == v.shape[given["dim"]], "weight normalisation")
    norms, gradient = given.get("saved_norms"), given.get("grad_w")
    _require(norms is None or norms.numel() == g.numel(), "weight normalisation")
    _require(gradient is None or gradient.shape == v.shape, "weight normalisation")


def _same_size(given: Bound) -> None:
    _require(given["grad_output"].shape == given["output"].shape, "softmax")


def _fused(given: Bound) -> None:
    """Check lists of parameters with their gradients and states; what an optimizer does not use is an empty list."""
    weights = given["self"]
    for name, each in given.items():
        if not isinstance(each, list) or name == "self":
            continue
        _require(len(each) == len(weights) or (not each and name in _UNUSED), "a fused optimizer")
        for one, weight in zip(each, weights, strict=False):
            fits = one.numel() == 1 if name == "state_steps" else (one.shape, one.dtype) == (weight.shape, weight.dtype)
            _require(fits and _dense(one) and _dense(weight), "a fused optimizer")


def _dense(tensor: torch.Tensor) -> bool:
    """Whether as many numbers as it has lie in its memory from its first on."""
    there = tensor.untyped_storage().nbytes() // tensor.dtype.itemsize - int(tensor.storage_offset())
    return there >= tensor.numel()


_UNUSED = ("max_exp_avg_sqs", "momentum_buffer_list")

_CHECKS: dict[str, Callable[[Bound], None]] = {
    "max_pool2d_with_indices_backward": _pooled,
    "max_pool3d_with_indices_backward": _pooled,
    "adaptive_max_pool2d_backward": _pooled,
    "native_batch_norm": _batch_normed,
    "_native_batch_norm_legit": _batch_normed,
    "_native_batch_norm_legit_functional": _batch_normed,
    "_batch_norm_with_update": _batch_normed,
    "_batch_norm_no_update": _batch_normed,
    "native_batch_norm_backward": _batch_normed,
    "batch_norm_backward": _batch_normed,
    "native_layer_norm_backward": _layer_normed,
    "native_group_norm_backward": _group_normed,
    "_weight_norm_interface": _weight_normed,
    "_weight_norm_interface_backward": _weight_normed,
    "_log_softmax_backward_data": _same_size,
    **{f"_fused_{name}{end}": _fused for name in ("adam", "adamw", "adagrad", "sgd") for end in ("", "_")},
}


def _behind(call: Any, check: Callable[[Bound], None]) -> Any:
    names = [argument.name for argument in call._schema.arguments]

    def checked(*args: Any, **named: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **named}
        first = next(each for each in given.values() if isinstance(each, torch.Tensor | list))
        first = first[0] if isinstance(first, list) and first else first
        if isinstance(first, torch.Tensor) and not first.is_meta:
            check({**given, "kernel": str(call)})
        return call(*args, **named)

    checked._schema = call._schema  # type: ignore[attr-defined]
    return checked


CHECKED: dict[str, Callable[..., Any]] = {
    "aten.mkldnn_rnn_layer.default": rnn_layer,
    "aten.mkldnn_rnn_layer_backward.default": rnn_layer_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": flash,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": flash_backward,
    **{
        str(getattr(packet, overload)): _behind(getattr(packet, overload), check)
        for name, check in _CHECKS.items()
        if (packet := getattr(aten, name, None)) is not None
        for overload in packet.overloads()
    },
}
