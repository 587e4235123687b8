"""Writing ONNX nodes: names, constants, casts, and sizes that depend on the rows of a batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from shoal.plan.graph import Operation, Program, Rows, Share, Size, Value
from shoal.plan.manifest import IR_VERSION, OPSET

INT = np.dtype(np.int64)


class Emitter:
    """Collects the nodes of one graph. Operands are given as Values, numbers, or names of what was emitted before.

    With `named` every node is called by the operator that it is for and its place, which makes the graph larger.
    """

    def __init__(self, program: Program, *, named: bool = False) -> None:
        self._program = program
        self._named = named
        self._bound = 0
        self._names: dict[Value, str] = {value: name for name, value in program.inputs.items()}
        self._nodes: list[onnx.NodeProto] = []
        self._seen: dict[bytes, str] = {}
        self._initial: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._count: str = ""
        for value, array in program.constants.items():
            self._names[value] = self.constant(array)

    def emit(self, operator: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node with one output, unless there is the same already; return the output's name."""
        given = [self.name(entry) for entry in inputs]
        node = helper.make_node(operator, given, [""], **attributes)
        key = node.SerializeToString(deterministic=True)
        if key not in self._seen:
            self._seen[key] = f"v{len(self._nodes)}"
            node.output[0] = self._seen[key]
            self._nodes.append(node)
        return self._seen[key]

    def several(self, operator: str, *inputs: Any, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        results = [f"v{len(self._nodes)}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(operator, [self.name(entry) for entry in inputs], results, **attributes))
        return results

    def name(self, entry: Any) -> str:
        """Return the name of an operand; a bare number needs `number`, which knows the dtype."""
        return self._names[entry] if isinstance(entry, Value) else str(entry)

    def constant(self, array: Any, dtype: Any = None) -> str:
        """Return the name of a constant, kept once."""
        made = np.asarray(array, dtype)
        key = (made.dtype.name, made.shape, made.tobytes())
        if key not in self._initial:
            self._initial[key] = numpy_helper.from_array(
                np.ascontiguousarray(made).reshape(made.shape), f"c{len(self._initial)}"
            )
        return self._initial[key].name

    def number(self, entry: Any, dtype: str) -> str:
        """Return an operand in a dtype: a value, cast if need be, or a number."""
        match entry:
            case Value():
                return self.cast(entry, entry.dtype, dtype)
            case Rows():
                return self.cast(self.size(entry), "int64", dtype)
            case Share(of):
                return self.emit("Div", self.constant(of, dtype), self.cast(self.rows, "int64", dtype))
            case _:
                return self.constant(entry, dtype)

    def cast(self, entry: Any, dtype: str, to: str) -> str:
        """Return an operand of one dtype in another."""
        return self.name(entry) if dtype == to else self.emit("Cast", entry, to=onnx_dtype(to))

    @property
    def rows(self) -> str:
        """The number of rows of the batch, a scalar."""
        if not self._count:
            batch = next(name for name, value in self._program.inputs.items() if Rows(1) in value.shape[:1])
            shape = self.emit("Shape", batch)
            self._count = self.emit("Gather", shape, self.constant(0, INT))
        return self._count

    def size(self, size: Size) -> str:
        """Return a size as a scalar."""
        if not isinstance(size, Rows):
            return self.constant(size, INT)
        many = self.rows if size.times == 1 else self.emit("Mul", self.rows, self.constant(size.times, INT))
        return many if size.plus == 0 else self.emit("Add", many, self.constant(size.plus, INT))

    def sizes(self, sizes: Sequence[Size]) -> str:
        """Return sizes as a vector."""
        fixed = [size for size in sizes if not isinstance(size, Rows)]
        if len(fixed) == len(sizes):
            return self.constant(fixed, INT)
        zero = self.constant([0], INT)
        parts = [self.emit("Unsqueeze", self.size(size), zero) for size in sizes]
        return self.emit("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def axes(self, axes: Sequence[int]) -> str:
        """Return axes as a vector."""
        return self.constant(list(axes), INT)

    def reshape(self, entry: Any, shape: Sequence[Size]) -> str:
        """Return an operand in another shape; one size that depends on the rows needs no computation."""
        varying = [index for index, size in enumerate(shape) if isinstance(size, Rows)]
        if len(varying) == 1 and 0 not in shape:
            fixed = [-1 if isinstance(size, Rows) else size for size in shape]
            return self.emit("Reshape", entry, self.constant(fixed, INT))
        return self.emit("Reshape", entry, self.sizes(shape))

    def expand(self, entry: Any, shape: Sequence[Size]) -> str:
        """Return an operand broadcast to a shape."""
        return self.emit("Expand", entry, self.sizes(shape))

    def bind(self, operation: Operation, names: Sequence[str]) -> None:
        """Let the results of an operation have these names."""
        for value, name in zip(operation.results, names, strict=False):
            if value is not None:
                self._names[value] = name
        for index in range(self._bound, len(self._nodes) if self._named else 0):
            self._nodes[index].name = f"{index}: {operation.name} {operation.where}"
        self._bound = len(self._nodes)

    def model(self, name: str) -> onnx.ModelProto:
        """Return the graph as an ONNX model, its outputs named as the program's."""
        outputs = self._outputs()
        used = {entry for node in self._nodes for entry in node.input}
        taken = {key: value for key, value in self._program.inputs.items() if key in used}
        made = helper.make_graph(
            self._nodes,
            name,
            [_info(key, value.dtype, value.shape) for key, value in taken.items()],
            outputs,
            [tensor for tensor in self._initial.values() if tensor.name in used],
        )
        return helper.make_model(
            made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name=""
        )

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        found = []
        for name, value in self._program.outputs.items():
            if value in self._program.inputs.values():
                continue  # an array that the step leaves as it is
            self._nodes.append(helper.make_node("Identity", [self._names[value]], [name]))
            found.append(_info(name, value.dtype, value.shape))
        self._rename()
        return found

    def _rename(self) -> None:
        """Take the copies at the end out where nothing else needs what they copy."""
        last = {node.input[0]: node for node in self._nodes if node.op_type == "Identity"}
        reads = [entry for node in self._nodes for entry in node.input]
        made = {name for node in self._nodes for name in node.output}
        for name, copy in last.items():
            if name in made and reads.count(name) == 1:
                self._nodes.remove(copy)
                producer = next(node for node in self._nodes if name in node.output)
                producer.output[list(producer.output).index(name)] = copy.output[0]


def onnx_dtype(dtype: str) -> int:
    """Return ONNX's number for a numpy dtype."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _info(name: str, dtype: str, shape: Sequence[Size]) -> onnx.ValueInfoProto:
    sizes = [_symbol(size) if isinstance(size, Rows) else size for size in shape]
    return helper.make_tensor_value_info(name, onnx_dtype(dtype), sizes)


def _symbol(size: Rows) -> str:
    return "rows" if size == Rows(1) else f"{size.times}*rows+{size.plus}"
