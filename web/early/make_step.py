"""Write the hand-made training step that the page runs, as an ONNX graph: `python make_step.py step.onnx`.

One step of SGD on the standardising network 13-32-24-16-1 with ReLU between and the mean squared error in units of the
target's deviation, forward and backward spelled out by hand. Inputs: every array of the model by its own name, x
[N, 13] and y [N] in float64, lr. Outputs: every trained array as "after/<name>", and the loss before the step.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (13, 32, 24, 16, 1)
LAYERS = (0, 2, 4, 6)
"""Places of the linear layers in the torch module's Sequential."""

OPSET, IR_VERSION = 17, 8
F32, F64 = TensorProto.FLOAT, TensorProto.DOUBLE


class _Graph:
    """Nodes in order; every operation returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        result = name or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def single(self, value: str) -> str:
        return self.add("Cast", value, to=F32)


def build() -> onnx.ModelProto:
    """Return the graph, checked."""
    graph = _Graph()
    unit = graph.single("target_deviation")
    output, given = _forward(graph)
    error = _error(graph, output, unit)
    _backward(graph, _error_gradient(graph, error, unit), given)
    made = helper.make_graph(graph.nodes, "step", _inputs(), _outputs(), _constants())
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def _forward(graph: _Graph) -> tuple[str, list[str]]:
    """Return the network's output [N, 1], and what each layer was given. Large raw values cancel in float64."""
    now = graph.single(graph.add("Div", graph.add("Sub", "x", "mean"), "deviation"))
    given = []
    for layer in LAYERS:
        given.append(now)
        now = graph.add("Gemm", now, f"layers.{layer}.weight", f"layers.{layer}.bias", transB=1)
        if layer != LAYERS[-1]:
            now = graph.add("Relu", now)
    return now, given


def _error(graph: _Graph, output: str, unit: str) -> str:
    """Return (prediction - target) / deviation [N, 1], and name its mean square the loss."""
    scaled = graph.add("Mul", output, unit)
    predicted = graph.add("Add", scaled, graph.single("target_mean"))
    target = graph.add("Unsqueeze", graph.single("y"), "last")
    error = graph.add("Div", graph.add("Sub", predicted, target), unit)
    graph.add("ReduceMean", graph.add("Mul", error, error), name="loss", keepdims=0)
    return error


def _error_gradient(graph: _Graph, error: str, unit: str) -> str:
    """Return the loss's gradient by the network's output [N, 1]: 2 error / N / deviation * deviation."""
    rows = graph.single(graph.add("Gather", graph.add("Shape", "x"), "first", axis=0))
    each = graph.add("Div", graph.add("Mul", error, "two"), rows)
    return graph.add("Mul", graph.add("Div", each, unit), unit)


def _backward(graph: _Graph, gradient: str, given: list[str]) -> None:
    """Go back through the layers and move their arrays by -lr times their gradients."""
    for layer, inward in reversed(list(zip(LAYERS, given, strict=True))):
        weight = f"layers.{layer}.weight"
        _move(graph, weight, graph.add("Gemm", gradient, inward, transA=1))
        _move(graph, f"layers.{layer}.bias", graph.add("ReduceSum", gradient, "rows", keepdims=0))
        if layer != LAYERS[0]:
            through = graph.add("MatMul", gradient, weight)
            alive = graph.single(graph.add("Greater", inward, "zero"))
            gradient = graph.add("Mul", through, alive)


def _move(graph: _Graph, name: str, gradient: str) -> None:
    graph.add("Sub", name, graph.add("Mul", gradient, "lr"), name=f"after/{name}")


def _trained() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, inputs, outputs in zip(LAYERS, WIDTHS, WIDTHS[1:], strict=False):
        shapes[f"layers.{layer}.weight"] = (outputs, inputs)
        shapes[f"layers.{layer}.bias"] = (outputs,)
    return shapes


def _inputs() -> list[onnx.ValueInfoProto]:
    fixed = {"mean": WIDTHS[:1], "deviation": WIDTHS[:1], "target_mean": (), "target_deviation": ()}
    batch = {"x": ("N", WIDTHS[0]), "y": ("N",)}
    single = {**_trained(), "lr": ()}
    return [
        *(helper.make_tensor_value_info(name, F64, shape) for name, shape in {**fixed, **batch}.items()),
        *(helper.make_tensor_value_info(name, F32, shape) for name, shape in single.items()),
    ]


def _outputs() -> list[onnx.ValueInfoProto]:
    trained = {f"after/{name}": shape for name, shape in _trained().items()}
    return [helper.make_tensor_value_info(name, F32, shape) for name, shape in {**trained, "loss": ()}.items()]


def _constants() -> list[onnx.TensorProto]:
    values = {
        "zero": np.float32(0),
        "two": np.float32(2),
        "first": np.int64(0),
        "rows": np.array([0], np.int64),
        "last": np.array([1], np.int64),
    }
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(build().SerializeToString())
