"""Which operators a plan may hold. What is not listed here is refused when a plan is loaded.

All are of the default ONNX domain, work on arrays alone and end: none reads a file, holds a graph of its own or loops.
"""

from collections.abc import Iterable, Iterator

import onnx

from shoal.core.errors import PlanError
from shoal.plan.manifest import IR_VERSION, OPSET

ALLOWED = frozenset(
    {
        *("Abs", "Add", "And", "ArgMax", "AveragePool", "Cast", "Ceil", "Clip", "Concat", "Constant", "Conv"),
        *("ConstantOfShape", "ConvTranspose", "Cos", "CumSum", "Div", "Equal", "Erf", "Exp", "Expand", "Floor"),
        *("Gather", "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "Identity", "Less"),
        *("LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mod", "Mul", "Neg", "Not", "Or"),
        *("Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
        *("Relu", "Reshape", "Round", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign", "Sin", "Slice"),
        *("Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
        "Xor",
    }
)


def read(name: str, data: bytes) -> onnx.ModelProto:
    """Parse one graph of a plan, every part of it checked against what a plan may hold. Raises PlanError."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises classes of its own, which differ between its implementations
        raise PlanError(f"graph {name!r} is no ONNX model: {error}", "export the plan again") from error
    for problem in _problems(model):
        raise PlanError(f"graph {name!r} {problem}", "export the task with shoal.plan.export; it makes no such graph")
    return model


def operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the operators of a graph, sorted."""
    return tuple(sorted({node.op_type for node in model.graph.node}))


def _problems(model: onnx.ModelProto) -> Iterator[str]:
    versions = {(opset.domain or "", opset.version) for opset in model.opset_import}
    if versions != {("", OPSET)}:
        yield f"has operator sets {sorted(versions)}, not version {OPSET} of the default one"
    if model.ir_version != IR_VERSION:
        yield f"has IR version {model.ir_version}, not {IR_VERSION}"
    if model.functions or model.training_info or model.graph.sparse_initializer:
        yield "has functions, training information or sparse arrays"
    for node in model.graph.node:
        if node.op_type not in ALLOWED or node.domain:
            yield f"has the operator {node.domain + '.' if node.domain else ''}{node.op_type}, which no plan may hold"
        tensors = [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            yield f"has a graph within the operator {node.op_type}"
        yield from _stored_elsewhere(tensors)
    yield from _stored_elsewhere(model.graph.initializer)


def _stored_elsewhere(tensors: Iterable[onnx.TensorProto]) -> Iterator[str]:
    for tensor in tensors:
        if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT:
            yield f"has the array {tensor.name!r} in another file"
