"""Operators taken apart where torch's own table stops: convolutions, pooling, normalisation."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from shoal.core.errors import NotExportable
from shoal.plan.private import core_decompositions

aten = torch.ops.aten
Maybe = torch.Tensor | None


@cache
def table() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions of the exporter: operator -> function of the same arguments."""
    found = {op: function for op, function in core_decompositions().items() if op not in KEPT}
    return {**found, **OWN}


def convolution_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    _bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Maybe, Maybe, Maybe]:
    """Return the gradients of input, weight and bias: a transposed convolution, a convolution, a sum."""
    if transposed:
        raise NotExportable(
            "the backward pass of a transposed convolution", "use interpolation followed by a convolution"
        )
    by_input = by_weight = by_bias = None
    if output_mask[0]:
        left = [
            (x.shape[2 + i] + 2 * p - d * (weight.shape[2 + i] - 1) - 1) % s
            for i, (s, p, d) in enumerate(zip(_each(stride, x), _each(padding, x), _each(dilation, x), strict=True))
        ]
        by_input = aten.convolution(grad, weight, None, stride, padding, dilation, True, left, groups)
    if output_mask[1]:
        by_weight = _weight_gradient(grad, x, weight, stride, padding, dilation, groups)
    if output_mask[2]:
        by_bias = grad.sum([0, *range(2, x.dim())])
    return by_input, by_weight, by_bias


def _weight_gradient(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """Correlate input and gradient over the batch: rows become channels, strides dilations."""
    parts = []
    pairs = zip(x.chunk(groups, 1), grad.chunk(groups, 1), strict=True) if groups > 1 else [(x, grad)]
    for part, by in pairs:
        swapped = part.transpose(0, 1), by.transpose(0, 1)
        none = [0] * (x.dim() - 2)
        made = aten.convolution(*swapped, None, dilation, padding, stride, False, none, 1)
        parts.append(made.transpose(0, 1))
    found = torch.cat(parts) if groups > 1 else parts[0]
    for axis in range(2, x.dim()):
        if found.shape[axis] != weight.shape[axis]:
            found = found.narrow(axis, 0, weight.shape[axis])
    return found


def avg_pool2d_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> torch.Tensor:
    """Spread each gradient evenly over its window."""
    if ceil_mode or (any(padding) and not count_include_pad):
        raise NotExportable(
            "average pooling with ceil_mode, or with padding that is not counted", "leave these two options out"
        )
    kernel, channels = _each(kernel, x), x.shape[-3]
    stride = _each(stride, x) if stride else kernel
    padding = _each(padding, x)
    share = 1.0 / (divisor or kernel[0] * kernel[1])
    weight = torch.full((channels, 1, *kernel), share, dtype=x.dtype)
    left = [(x.shape[2 + i] + 2 * padding[i] - kernel[i]) % stride[i] for i in range(2)]
    return aten.convolution(grad, weight, None, stride, padding, [1, 1], True, left, channels)  # type: ignore[no-any-return]


def native_batch_norm(
    x: torch.Tensor,
    weight: Maybe,
    bias: Maybe,
    mean: Maybe,
    var: Maybe,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[torch.Tensor, ...]:
    """Normalise by the batch's mean and variance (in evaluation by the running ones), and move the running ones."""
    axes = [0, *range(2, x.dim())]
    if training or mean is None or var is None:
        centre = x.mean(axes, keepdim=True)
        apart = ((x - centre) ** 2).mean(axes, keepdim=True)
        _move(mean, centre.flatten(), momentum)
        if var is not None:
            count = x.numel() // x.shape[1]
            _move(var, (apart * count / (count - 1)).flatten(), momentum)
    else:
        centre, apart = _like(mean, x), _like(var, x)
    scale = torch.rsqrt(apart + eps)
    out = (x - centre) * scale
    out = out if weight is None else out * _like(weight, x)
    out = out if bias is None else out + _like(bias, x)
    saved = (centre.flatten(), scale.flatten()) if training else (x.new_zeros(0), x.new_zeros(0))
    return (out, *saved)


def native_group_norm(
    x: torch.Tensor, weight: Maybe, bias: Maybe, rows: int, _channels: int, _size: int, groups: int, eps: float
) -> tuple[torch.Tensor, ...]:
    """Normalise each group of channels of each row by its own mean and variance."""
    grouped = x.reshape(rows, groups, -1)
    centre = grouped.mean(2, keepdim=True)
    apart = ((grouped - centre) ** 2).mean(2, keepdim=True)
    scale = torch.rsqrt(apart + eps)
    out = ((grouped - centre) * scale).reshape(x.shape)
    out = out if weight is None else out * _like(weight, x)
    out = out if bias is None else out + _like(bias, x)
    return out, centre.reshape(rows, groups), scale.reshape(rows, groups)


def _move(running: Maybe, now: torch.Tensor, momentum: float) -> None:
    if running is not None:
        running.copy_(now * momentum + running * (1 - momentum))


def _like(per_channel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return per_channel.reshape(1, -1, *[1] * (x.dim() - 2))


def _each(given: Sequence[int], x: torch.Tensor) -> list[int]:
    values = list(given)
    return values * (x.dim() - 2) if len(values) == 1 else values


KEPT = {aten.embedding_dense_backward.default}
"""Operators that torch would take apart, and the lowering has a better form for."""

INSTEAD: Mapping[Any, Callable[..., Any]] = {aten.native_batch_norm.default: native_batch_norm}
"""What is taken apart before in-place changes are: its schema does not tell that it moves the running statistics."""

OWN: Mapping[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward,
    aten.avg_pool2d_backward.default: avg_pool2d_backward,
    aten.native_group_norm.default: native_group_norm,
}
