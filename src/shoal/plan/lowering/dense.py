"""Products, convolutions, pooling, reductions, soft maxima, and looking things up by index."""

from collections.abc import Mapping, Sequence
from typing import Any

from shoal.core.errors import NotExportable
from shoal.plan.graph import Operation, Rows, Value
from shoal.plan.lowering.emitter import INT, Emitter
from shoal.plan.lowering.pointwise import Lowering, argument, result


def _matmul(emitter: Emitter, operation: Operation) -> list[str]:
    return [emitter.emit("MatMul", *operation.args[:2])]


def _addmm(emitter: Emitter, operation: Operation) -> list[str]:
    bias, left, right = operation.args
    beta, alpha = operation.kwargs.get("beta", 1), operation.kwargs.get("alpha", 1)
    return [emitter.emit("Gemm", left, right, bias, alpha=float(alpha), beta=float(beta))]


def _convolution(emitter: Emitter, operation: Operation) -> list[str]:
    x, weight, bias, stride, padding, dilation, transposed, left, groups = operation.args
    spatial = len(x.shape) - 2
    stride, padding, dilation = (_each(given, spatial) for given in (stride, padding, dilation))
    attributes = {"strides": stride, "pads": padding * 2, "dilations": dilation, "group": groups}
    inputs = [x, weight, *([] if bias is None else [bias])]
    if not transposed:
        return [emitter.emit("Conv", *inputs, **attributes)]
    return [emitter.emit("ConvTranspose", *inputs, **attributes, output_padding=_each(left, spatial))]


def _each(given: Sequence[int], count: int) -> list[int]:
    return list(given) * count if len(given) == 1 else list(given)


def _max_pool(emitter: Emitter, operation: Operation) -> list[str]:
    x, kernel = operation.args[:2]
    spatial = len(kernel)
    attributes = {
        "kernel_shape": list(kernel),
        "strides": _each(argument(operation, 2, "stride") or kernel, spatial),
        "pads": _each(argument(operation, 3, "padding", [0]), spatial) * 2,
        "dilations": _each(argument(operation, 4, "dilation", [1]), spatial),
        "ceil_mode": int(argument(operation, 5, "ceil_mode", False)),
    }
    return emitter.several("MaxPool", x, outputs=2, **attributes)


def _max_pool_backward(emitter: Emitter, operation: Operation) -> list[str]:
    """Add each gradient where its largest element was; ONNX's indices count through the whole input."""
    grad, x, indices = operation.args[0], operation.args[1], operation.args[-1]
    varies = any(isinstance(size, Rows) for size in x.shape)
    shape = emitter.emit("Shape", x) if varies else emitter.sizes(x.shape)
    flat = emitter.emit("ReduceProd", shape, keepdims=1)
    zeros = emitter.emit("Expand", emitter.constant(0, x.dtype), flat)
    minus = emitter.constant([-1], INT)
    places, given = emitter.emit("Reshape", indices, minus), emitter.emit("Reshape", grad, minus)
    summed = emitter.emit("ScatterElements", zeros, places, given, axis=0, reduction="add")
    return [emitter.emit("Reshape", summed, shape)]


def _avg_pool(emitter: Emitter, operation: Operation) -> list[str]:
    x, kernel = operation.args[:2]
    spatial = len(kernel)
    if argument(operation, 6, "divisor_override"):
        raise NotExportable(f"average pooling with divisor_override {operation.where}", "multiply its output instead")
    attributes = {
        "kernel_shape": list(kernel),
        "strides": _each(argument(operation, 2, "stride") or kernel, spatial),
        "pads": _each(argument(operation, 3, "padding", [0]), spatial) * 2,
        "ceil_mode": int(argument(operation, 4, "ceil_mode", False)),
        "count_include_pad": int(argument(operation, 5, "count_include_pad", True)),
    }
    return [emitter.emit("AveragePool", x, **attributes)]


def _reduction(operator: str) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        dtype = result(operation).dtype
        x = emitter.number(operation.args[0], dtype)
        axes, keep = argument(operation, 1, "dim"), bool(argument(operation, 2, "keepdim", False))
        return [_reduced(emitter, operator, x, axes, keep)]

    return lower


def _reduced(emitter: Emitter, operator: str, x: str, axes: Any, keep: bool) -> str:
    if axes is None or axes == []:
        return emitter.emit(operator, x, keepdims=int(keep))
    axes = axes if isinstance(axes, list) else [axes]
    return emitter.emit(operator, x, emitter.axes(axes), keepdims=int(keep))


def _any(emitter: Emitter, operation: Operation) -> list[str]:
    return [emitter.cast(_counted(emitter, operation, "ReduceMax"), "int32", "bool")]


def _all(emitter: Emitter, operation: Operation) -> list[str]:
    return [emitter.cast(_counted(emitter, operation, "ReduceMin"), "int32", "bool")]


def _counted(emitter: Emitter, operation: Operation, operator: str) -> str:
    x = emitter.cast(emitter.number(operation.args[0], "bool"), "bool", "int32")
    axes, keep = argument(operation, 1, "dim"), bool(argument(operation, 2, "keepdim", False))
    return _reduced(emitter, operator, x, axes, keep)


def _variance(emitter: Emitter, operation: Operation) -> list[str]:
    x, dtype = operation.args[0], result(operation).dtype
    axes = argument(operation, 1, "dim") or list(range(len(x.shape)))
    keep, correction = operation.kwargs.get("keepdim", False), operation.kwargs.get("correction", 1)
    correction = 1 if correction is None else correction
    centre = _reduced(emitter, "ReduceMean", emitter.name(x), axes, True)
    apart = emitter.emit("Sub", x, centre)
    total = _reduced(emitter, "ReduceSum", emitter.emit("Mul", apart, apart), axes, keep)
    sizes = emitter.emit("Gather", emitter.emit("Shape", x), emitter.axes([axis % len(x.shape) for axis in axes]))
    count = emitter.cast(emitter.emit("ReduceProd", sizes, keepdims=0), "int64", dtype)
    left = emitter.emit("Sub", count, emitter.constant(correction, dtype))
    variance = emitter.emit("Div", total, left)
    return [variance, centre if keep else _reduced(emitter, "ReduceMean", emitter.name(x), axes, False)]


def _softmax(operator: str) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        x = emitter.number(operation.args[0], result(operation).dtype)
        return [emitter.emit(operator, x, axis=operation.args[1])]

    return lower


def _argmax(emitter: Emitter, operation: Operation) -> list[str]:
    x, axis = operation.args[0], argument(operation, 1, "dim")
    keep = int(bool(argument(operation, 2, "keepdim", False)))
    if axis is None:
        flat = emitter.emit("Reshape", x, emitter.constant([-1], INT))
        return [emitter.emit("ArgMax", flat, axis=0, keepdims=0)]
    return [emitter.emit("ArgMax", x, axis=axis, keepdims=keep)]


def _max_dim(emitter: Emitter, operation: Operation) -> list[str]:
    x, axis = operation.args[:2]
    keep = int(bool(argument(operation, 2, "keepdim", False)))
    largest = _reduced(emitter, "ReduceMax", emitter.name(x), [axis], bool(keep))
    return [largest, emitter.emit("ArgMax", x, axis=axis, keepdims=keep)]


def _cumsum(emitter: Emitter, operation: Operation) -> list[str]:
    dtype = result(operation).dtype
    return [emitter.emit("CumSum", emitter.number(operation.args[0], dtype), emitter.constant(operation.args[1], INT))]


def _embedding(emitter: Emitter, operation: Operation) -> list[str]:
    weight, index = operation.args[:2]
    return [emitter.emit("Gather", weight, index, axis=0)]


def _embedding_backward(emitter: Emitter, operation: Operation) -> list[str]:
    """Add the gradient of each row that was looked up to the table's row."""
    grad, index, count, padding, by_frequency = operation.args
    if by_frequency:
        raise NotExportable(f"an embedding with scale_grad_by_freq {operation.where}", "leave the option out")
    width, dtype = grad.shape[-1], grad.dtype
    zeros = emitter.expand(emitter.constant(0, dtype), [count, width])
    places = emitter.emit("Reshape", emitter.number(index, "int64"), emitter.constant([-1, 1], INT))
    rows = emitter.emit("Reshape", grad, emitter.constant([-1, width], INT))
    if padding >= 0:
        kept = emitter.emit("Not", emitter.emit("Equal", places, emitter.constant(padding, INT)))
        rows = emitter.emit("Mul", rows, emitter.cast(kept, "bool", dtype))
    return [emitter.emit("ScatterND", zeros, places, rows, reduction="add")]


def _gather(emitter: Emitter, operation: Operation) -> list[str]:
    x, axis, index = operation.args[:3]
    return [emitter.emit("GatherElements", x, index, axis=axis)]


def _scatter(reduction: str) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        into, axis, index, given = operation.args[:4]
        updates = emitter.number(given, into.dtype)
        if not isinstance(given, Value):
            updates = emitter.expand(updates, index.shape)
        return [emitter.emit("ScatterElements", into, index, updates, axis=axis, reduction=reduction)]

    return lower


def _index_select(emitter: Emitter, operation: Operation) -> list[str]:
    x, axis, index = operation.args
    return [emitter.emit("Gather", x, index, axis=axis)]


def _index(emitter: Emitter, operation: Operation) -> list[str]:
    x, indices = operation.args
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1 and given[0][1].dtype != "bool":
        return [emitter.emit("Gather", x, given[0][1], axis=given[0][0])]
    axes = [axis for axis, _ in given]
    if axes != list(range(len(given))) or any(index.dtype == "bool" for _, index in given):
        raise NotExportable(f"an index by a mask or by later axes {operation.where}", "use torch.where or gather")
    indices = [index for _, index in given]
    return [emitter.emit("GatherND", x, _places(emitter, indices, _broadcast([index.shape for index in indices])))]


def _index_put(emitter: Emitter, operation: Operation) -> list[str]:
    into, indices, given = operation.args[:3]
    adds = bool(argument(operation, 3, "accumulate", False))
    if any(index is None or index.dtype == "bool" for index in indices):
        raise NotExportable(f"an assignment by a mask or by later axes {operation.where}", "use torch.where or scatter")
    shape = _broadcast([index.shape for index in indices])
    places = _places(emitter, indices, shape)
    updates = emitter.expand(emitter.number(given, into.dtype), [*shape, *into.shape[len(indices) :]])
    return [emitter.emit("ScatterND", into, places, updates, reduction="add" if adds else "none")]


def _places(emitter: Emitter, indices: Sequence[Value], shape: Sequence[Any]) -> str:
    parts = (emitter.expand(emitter.number(index, "int64"), shape) for index in indices)
    return emitter.emit("Concat", *(emitter.emit("Unsqueeze", part, emitter.axes([-1])) for part in parts), axis=-1)


def _broadcast(shapes: Sequence[Sequence[Any]]) -> list[Any]:
    depth = max(len(shape) for shape in shapes)
    padded = [[1] * (depth - len(shape)) + list(shape) for shape in shapes]
    return [next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True)]


DENSE: Mapping[str, Lowering] = {
    "aten.mm.default": _matmul,
    "aten.bmm.default": _matmul,
    "aten.mv.default": _matmul,
    "aten.dot.default": _matmul,
    "aten.matmul.default": _matmul,
    "aten.addmm.default": _addmm,
    "aten.convolution.default": _convolution,
    "aten.max_pool2d_with_indices.default": _max_pool,
    "aten.max_pool3d_with_indices.default": _max_pool,
    "aten.max_pool2d_with_indices_backward.default": _max_pool_backward,
    "aten.max_pool3d_with_indices_backward.default": _max_pool_backward,
    "aten.avg_pool2d.default": _avg_pool,
    "aten.avg_pool1d.default": _avg_pool,
    "aten.sum.dim_IntList": _reduction("ReduceSum"),
    "aten.sum.default": _reduction("ReduceSum"),
    "aten.mean.dim": _reduction("ReduceMean"),
    "aten.mean.default": _reduction("ReduceMean"),
    "aten.amax.default": _reduction("ReduceMax"),
    "aten.amin.default": _reduction("ReduceMin"),
    "aten.max.default": _reduction("ReduceMax"),
    "aten.min.default": _reduction("ReduceMin"),
    "aten.prod.default": _reduction("ReduceProd"),
    "aten.prod.dim_int": _reduction("ReduceProd"),
    "aten.any.dim": _any,
    "aten.any.dims": _any,
    "aten.any.default": _any,
    "aten.all.dim": _all,
    "aten.all.default": _all,
    "aten.var.correction": _variance,
    "aten.var_mean.correction": _variance,
    "aten._softmax.default": _softmax("Softmax"),
    "aten._log_softmax.default": _softmax("LogSoftmax"),
    "aten.argmax.default": _argmax,
    "aten.max.dim": _max_dim,
    "aten.cumsum.default": _cumsum,
    "aten.embedding.default": _embedding,
    "aten.embedding_dense_backward.default": _embedding_backward,
    "aten.gather.default": _gather,
    "aten.scatter.value": _scatter("none"),
    "aten.scatter.src": _scatter("none"),
    "aten.scatter_add.default": _scatter("add"),
    "aten.index_select.default": _index_select,
    "aten.index.Tensor": _index,
    "aten.index_put.default": _index_put,
    "aten._unsafe_index_put.default": _index_put,
    "aten._unsafe_index.Tensor": _index,
}
