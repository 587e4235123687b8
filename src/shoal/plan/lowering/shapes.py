"""Operators that make arrays, and move, cut and join them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shoal.core.errors import NotExportable
from shoal.plan.graph import Operation, Rows, Size, Value
from shoal.plan.lowering.emitter import INT, Emitter
from shoal.plan.lowering.pointwise import Lowering, argument, result

END = np.iinfo(np.int64).max


def _reshape(emitter: Emitter, operation: Operation) -> list[str]:
    return [emitter.reshape(operation.args[0], result(operation).shape)]


def _permute(emitter: Emitter, operation: Operation) -> list[str]:
    order = [axis % len(operation.args[1]) for axis in operation.args[1]]
    return [emitter.emit("Transpose", operation.args[0], perm=order)]


def _transpose(emitter: Emitter, operation: Operation) -> list[str]:
    depth = len(operation.args[0].shape)
    order = list(range(depth))
    one, other = (argument(operation, place, f"dim{place - 1}", place - 1) % max(depth, 1) for place in (1, 2))
    order[one], order[other] = order[other], order[one]
    return [emitter.emit("Transpose", operation.args[0], perm=order)]


def _expand(emitter: Emitter, operation: Operation) -> list[str]:
    given, shape = operation.args[0], result(operation).shape
    return [emitter.name(given) if given.shape == shape else emitter.expand(given, shape)]


def _slice(emitter: Emitter, operation: Operation) -> list[str]:
    x = operation.args[0]
    axis = argument(operation, 1, "dim", 0)
    start, stop, step = _span(operation, 1)
    return [_cut(emitter, x, axis, start, stop, step)]


def _span(operation: Operation, place: int) -> tuple[Size, Size, int]:
    start = argument(operation, place + 1, "start", 0) or 0
    stop = argument(operation, place + 2, "end", None)
    step = argument(operation, place + 3, "step", 1)
    return start, END if stop is None else stop, step


def _cut(emitter: Emitter, x: Any, axis: int, start: Size, stop: Size, step: int = 1) -> str:
    bounds = [emitter.sizes([start]), emitter.sizes([stop]), emitter.axes([axis]), emitter.axes([step])]
    return emitter.emit("Slice", x, *bounds)


def _select(emitter: Emitter, operation: Operation) -> list[str]:
    x, axis, index = operation.args
    return [emitter.emit("Gather", x, emitter.size(index), axis=axis % len(x.shape))]


def _cat(emitter: Emitter, operation: Operation) -> list[str]:
    axis = argument(operation, 1, "dim", 0)
    dtype = result(operation).dtype
    parts = [entry for entry in operation.args[0] if entry.shape != (0,)]
    return [emitter.emit("Concat", *(emitter.number(entry, dtype) for entry in parts), axis=axis)]


def _stack(emitter: Emitter, operation: Operation) -> list[str]:
    axis = argument(operation, 1, "dim", 0)
    parts = [emitter.emit("Unsqueeze", entry, emitter.axes([axis])) for entry in operation.args[0]]
    return [emitter.emit("Concat", *parts, axis=axis)]


def _split(emitter: Emitter, operation: Operation) -> list[str]:
    axis = argument(operation, 2, "dim", 0)
    sizes = [value.shape[axis] if value is not None else 0 for value in operation.results]
    return emitter.several("Split", operation.args[0], emitter.sizes(sizes), outputs=len(sizes), axis=axis)


def _unbind(emitter: Emitter, operation: Operation) -> list[str]:
    axis = argument(operation, 1, "dim", 0)
    x = operation.args[0]
    return [
        emitter.emit("Gather", x, emitter.constant(index, INT), axis=axis % len(x.shape))
        for index in range(len(operation.results))
    ]


def _flip(emitter: Emitter, operation: Operation) -> list[str]:
    x, axes = operation.args
    starts, stops, steps = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes), [-1] * len(axes)
    return [emitter.emit("Slice", x, *(emitter.axes(part) for part in (starts, stops, axes, steps)))]


def _repeat(emitter: Emitter, operation: Operation) -> list[str]:
    x, times = operation.args
    ahead = [1] * (len(times) - len(x.shape))
    return [emitter.emit("Tile", emitter.reshape(x, [*ahead, *x.shape]), emitter.sizes(times))]


def _pad(emitter: Emitter, operation: Operation) -> list[str]:
    x, pairs = operation.args[:2]
    depth, dtype = len(x.shape), x.dtype
    low, high = [0] * depth, [0] * depth
    for index in range(len(pairs) // 2):
        low[depth - 1 - index], high[depth - 1 - index] = pairs[2 * index], pairs[2 * index + 1]
    value = emitter.number(argument(operation, 2, "value", 0), dtype)
    return [emitter.emit("Pad", x, emitter.axes([*low, *high]), value)]


def _slice_scatter(emitter: Emitter, operation: Operation) -> list[str]:
    into, given = operation.args[:2]
    axis = argument(operation, 2, "dim", 0)
    start, stop, step = _span(operation, 2)
    size = into.shape[axis]
    if step != 1 or isinstance(start, Rows) or isinstance(stop, Rows) or isinstance(size, Rows):
        raise NotExportable(
            f"a step or the batch's size in an assignment to a slice {operation.where}", "use torch.cat"
        )
    start, stop = start % size if start < 0 else start, min(stop % size if stop < 0 else stop, size)
    return [_within(emitter, into, emitter.number(given, into.dtype), axis, start, stop, size)]


def _within(emitter: Emitter, into: Value, given: str, axis: int, start: int, stop: int, size: int) -> str:
    before = [_cut(emitter, into, axis, 0, start)] if start > 0 else []
    after = [_cut(emitter, into, axis, stop, END)] if stop < size else []
    return emitter.emit("Concat", *before, given, *after, axis=axis) if before or after else given


def _select_scatter(emitter: Emitter, operation: Operation) -> list[str]:
    into, given, axis, index = operation.args
    size = into.shape[axis]
    if isinstance(size, Rows) or isinstance(index, Rows):
        raise NotExportable(f"an assignment to one row of a batch {operation.where}", "use torch.cat")
    index = index % size
    part = emitter.emit("Unsqueeze", emitter.number(given, into.dtype), emitter.axes([axis]))
    return [_within(emitter, into, part, axis, index, index + 1, size)]


def _full(value_at: int | None, fill: Any = 0) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        made = result(operation)
        value = fill if value_at is None else operation.args[value_at]
        scalar = emitter.number(value, made.dtype)
        return [emitter.expand(scalar, made.shape) if made.shape else scalar]

    return lower


def _arange(emitter: Emitter, operation: Operation) -> list[str]:
    made = result(operation)
    start, stop, step = _arange_span(operation)
    if not isinstance(start, Rows) and not isinstance(stop, Rows):
        return [emitter.constant(np.arange(start, stop, step), made.dtype)]
    numbers = (emitter.number(entry, made.dtype) for entry in (start, stop, step))
    return [emitter.emit("Range", *numbers)]


def _arange_span(operation: Operation) -> tuple[Any, Any, Any]:
    match operation.args:
        case (stop,):
            return 0, stop, 1
        case (start, stop):
            return start, stop, 1
        case _:
            return operation.args[0], operation.args[1], operation.args[2]


def _triangle(upper: int) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        diagonal = emitter.constant(argument(operation, 1, "diagonal", 0), INT)
        return [emitter.emit("Trilu", operation.args[0], diagonal, upper=upper)]

    return lower


def _same(emitter: Emitter, operation: Operation) -> list[str]:
    return [emitter.name(operation.args[0])]


_FORMS: Sequence[str] = (
    "view.default", "reshape.default", "_unsafe_view.default", "unsqueeze.default", "squeeze.dims", "squeeze.dim",
    "squeeze.default", "flatten.using_ints",
)  # fmt: skip

SHAPES: Mapping[str, Lowering] = {
    **{f"aten.{name}": _reshape for name in _FORMS},
    "aten.permute.default": _permute,
    "aten.transpose.int": _transpose,
    "aten.t.default": _transpose,
    "aten.expand.default": _expand,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.split_with_sizes.default": _split,
    "aten.split.Tensor": _split,
    "aten.unbind.int": _unbind,
    "aten.flip.default": _flip,
    "aten.repeat.default": _repeat,
    "aten.constant_pad_nd.default": _pad,
    "aten.slice_scatter.default": _slice_scatter,
    "aten.select_scatter.default": _select_scatter,
    "aten.full.default": _full(1),
    "aten.full_like.default": _full(1),
    "aten.scalar_tensor.default": _full(0),
    "aten.fill.Scalar": _full(1),
    "aten.zeros.default": _full(None),
    "aten.zeros_like.default": _full(None),
    "aten.new_zeros.default": _full(None),
    "aten.ones.default": _full(None, 1),
    "aten.ones_like.default": _full(None, 1),
    "aten.empty.memory_format": _full(None),
    "aten.empty_permuted.default": _full(None),
    "aten.empty_like.default": _full(None),
    "aten.arange.start_step": _arange,
    "aten.arange.start": _arange,
    "aten.arange.default": _arange,
    "aten.triu.default": _triangle(1),
    "aten.tril.default": _triangle(0),
    "aten.expand_as.default": _expand,
    "aten.lift.default": _same,
}
