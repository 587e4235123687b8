"""Operators that work on each element by itself."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from shoal.plan.graph import Operation, Value
from shoal.plan.lowering.emitter import Emitter

Lowering = Callable[[Emitter, Operation], list[str]]


def argument(operation: Operation, place: int, name: str, default: Any = None) -> Any:
    """Return an argument that may be given by place or by name."""
    if len(operation.args) > place:
        return operation.args[place]
    return operation.kwargs.get(name, default)


def result(operation: Operation) -> Value:
    """Return the first result."""
    value = operation.results[0]
    assert value is not None
    return value


def common(*entries: Any) -> str:
    """Return the dtype in which torch works on operands: arrays before scalars, fractions before integers."""
    arrays = [np.dtype(entry.dtype) for entry in entries if isinstance(entry, Value) and entry.shape]
    scalars = [np.dtype(entry.dtype) for entry in entries if isinstance(entry, Value) and not entry.shape]
    found = np.result_type(*arrays) if arrays else (np.result_type(*scalars) if scalars else np.dtype(np.float32))
    for scalar in scalars if arrays else []:
        if _category(scalar) > _category(found):
            found = scalar
    fractions = any(isinstance(entry, float) or type(entry).__name__ == "Share" for entry in entries)
    return "float32" if fractions and found.kind != "f" else found.name


def _category(dtype: "np.dtype[Any]") -> int:
    return "biuf".index(dtype.kind) if dtype.kind in "biuf" else 4


def _unary(operator: str) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        return [emitter.emit(operator, emitter.number(operation.args[0], result(operation).dtype))]

    return lower


def _binary(operator: str) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        dtype = result(operation).dtype
        left, right = (emitter.number(entry, dtype) for entry in operation.args[:2])
        return [emitter.emit(operator, left, right)]

    return lower


def _scaled(operator: str) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        dtype, alpha = result(operation).dtype, argument(operation, 2, "alpha", 1)
        left, right = (emitter.number(entry, dtype) for entry in operation.args[:2])
        if alpha != 1:
            right = emitter.emit("Mul", right, emitter.number(alpha, dtype))
        return [emitter.emit(operator, left, right)]

    return lower


def _comparison(operator: str, *, negated: bool = False) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        dtype = common(*operation.args[:2])
        dtype = "int32" if dtype == "bool" and operator != "Equal" else dtype
        made = emitter.emit(operator, *(emitter.number(entry, dtype) for entry in operation.args[:2]))
        return [emitter.emit("Not", made) if negated else made]

    return lower


def _logical(operator: str) -> Lowering:
    def lower(emitter: Emitter, operation: Operation) -> list[str]:
        return [emitter.emit(operator, *(emitter.number(entry, "bool") for entry in operation.args))]

    return lower


def _div(emitter: Emitter, operation: Operation) -> list[str]:
    mode = operation.kwargs.get("rounding_mode")
    dtype = result(operation).dtype
    made = emitter.emit("Div", *(emitter.number(entry, dtype) for entry in operation.args[:2]))
    return [emitter.emit("Floor", made) if mode == "floor" and dtype.startswith("float") else made]


def _pow(emitter: Emitter, operation: Operation) -> list[str]:
    base, exponent = operation.args
    dtype = result(operation).dtype
    if exponent in (2, 3) and isinstance(base, Value):
        given = emitter.number(base, dtype)
        square = emitter.emit("Mul", given, given)
        return [square if exponent == 2 else emitter.emit("Mul", square, given)]
    return [emitter.emit("Pow", emitter.number(base, dtype), emitter.number(exponent, dtype))]


def _rsqrt(emitter: Emitter, operation: Operation) -> list[str]:
    root = emitter.emit("Sqrt", emitter.number(operation.args[0], result(operation).dtype))
    return [emitter.emit("Reciprocal", root)]


def _log1p(emitter: Emitter, operation: Operation) -> list[str]:
    dtype = result(operation).dtype
    return [emitter.emit("Log", emitter.emit("Add", operation.args[0], emitter.constant(1, dtype)))]


def _expm1(emitter: Emitter, operation: Operation) -> list[str]:
    dtype = result(operation).dtype
    return [emitter.emit("Sub", emitter.emit("Exp", operation.args[0]), emitter.constant(1, dtype))]


def _where(emitter: Emitter, operation: Operation) -> list[str]:
    dtype = result(operation).dtype
    condition = emitter.number(operation.args[0], "bool")
    return [emitter.emit("Where", condition, *(emitter.number(entry, dtype) for entry in operation.args[1:]))]


def _clamp(emitter: Emitter, operation: Operation) -> list[str]:
    dtype = result(operation).dtype
    low, high = argument(operation, 1, "min"), argument(operation, 2, "max")
    made = emitter.number(operation.args[0], dtype)
    made = made if low is None else emitter.emit("Max", made, emitter.number(low, dtype))
    return [made if high is None else emitter.emit("Min", made, emitter.number(high, dtype))]


def _to(emitter: Emitter, operation: Operation) -> list[str]:
    return [emitter.number(operation.args[0], result(operation).dtype)]


def _copy(emitter: Emitter, operation: Operation) -> list[str]:
    into, given = result(operation), operation.args[1]
    made = emitter.number(given, into.dtype)
    same = isinstance(given, Value) and given.shape == into.shape
    return [made if same else emitter.expand(made, into.shape)]


def _not(emitter: Emitter, operation: Operation) -> list[str]:
    return [emitter.emit("Not", emitter.number(operation.args[0], "bool"))]


def _remainder(emitter: Emitter, operation: Operation) -> list[str]:
    dtype = result(operation).dtype
    left, right = (emitter.number(entry, dtype) for entry in operation.args)
    if not dtype.startswith("float"):
        return [emitter.emit("Mod", left, right)]
    whole = emitter.emit("Floor", emitter.emit("Div", left, right))
    return [emitter.emit("Sub", left, emitter.emit("Mul", whole, right))]


def _hardtanh(emitter: Emitter, operation: Operation) -> list[str]:
    dtype = result(operation).dtype
    low, high = argument(operation, 1, "min_val", -1.0), argument(operation, 2, "max_val", 1.0)
    made = emitter.emit("Max", operation.args[0], emitter.number(low, dtype))
    return [emitter.emit("Min", made, emitter.number(high, dtype))]


def _leaky(emitter: Emitter, operation: Operation) -> list[str]:
    x, dtype = operation.args[0], result(operation).dtype
    slope = emitter.number(argument(operation, 1, "negative_slope", 0.01), dtype)
    positive = emitter.emit("Greater", x, emitter.constant(0, dtype))
    return [emitter.emit("Where", positive, x, emitter.emit("Mul", x, slope))]


def _gelu(emitter: Emitter, operation: Operation) -> list[str]:
    x, dtype = operation.args[0], result(operation).dtype
    if operation.kwargs.get("approximate", "none") == "none":
        curve = emitter.emit("Erf", emitter.emit("Mul", x, emitter.constant(0.5**0.5, dtype)))
    else:
        cube = emitter.emit("Mul", emitter.emit("Mul", x, x), x)
        bent = emitter.emit("Add", x, emitter.emit("Mul", cube, emitter.constant(0.044715, dtype)))
        curve = emitter.emit("Tanh", emitter.emit("Mul", bent, emitter.constant((2 / np.pi) ** 0.5, dtype)))
    half = emitter.emit("Mul", x, emitter.constant(0.5, dtype))
    return [emitter.emit("Mul", half, emitter.emit("Add", curve, emitter.constant(1, dtype)))]


_UNARY = {
    "relu": "Relu", "exp": "Exp", "log": "Log", "tanh": "Tanh", "sigmoid": "Sigmoid", "sqrt": "Sqrt", "neg": "Neg",
    "abs": "Abs", "erf": "Erf", "sin": "Sin", "cos": "Cos", "floor": "Floor", "ceil": "Ceil", "round": "Round",
    "reciprocal": "Reciprocal", "sign": "Sign", "sgn": "Sign",
}  # fmt: skip
_COMPARISONS = {
    "eq": ("Equal", False), "ne": ("Equal", True), "lt": ("Less", False), "le": ("LessOrEqual", False),
    "gt": ("Greater", False), "ge": ("GreaterOrEqual", False),
}  # fmt: skip
_LOGICAL = {"and": "And", "or": "Or", "xor": "Xor"}


def _overloads(name: str, *overloads: str) -> list[str]:
    return [f"aten.{name}.{overload}" for overload in overloads]


def _table() -> dict[str, Lowering]:
    found: dict[str, Lowering] = {f"aten.{name}.default": _unary(op) for name, op in _UNARY.items()}
    for name, (op, negated) in _COMPARISONS.items():
        found |= dict.fromkeys(_overloads(name, "Tensor", "Scalar"), _comparison(op, negated=negated))
    for name, op in _LOGICAL.items():
        found |= dict.fromkeys(
            [f"aten.logical_{name}.default", *_overloads(f"bitwise_{name}", "Tensor", "Scalar")], _logical(op)
        )
    for name, op in (("add", "Add"), ("sub", "Sub")):
        found |= dict.fromkeys(_overloads(name, "Tensor", "Scalar"), _scaled(op))
    found |= dict.fromkeys(_overloads("mul", "Tensor", "Scalar"), _binary("Mul"))
    found |= dict.fromkeys(_overloads("div", "Tensor", "Scalar", "Tensor_mode", "Scalar_mode"), _div)
    found |= dict.fromkeys(_overloads("pow", "Tensor_Scalar", "Scalar", "Tensor_Tensor"), _pow)
    found |= dict.fromkeys(_overloads("where", "self", "ScalarSelf", "ScalarOther", "Scalar"), _where)
    found |= dict.fromkeys(_overloads("clamp", "default", "Tensor"), _clamp)
    found |= dict.fromkeys(_overloads("remainder", "Tensor", "Scalar"), _remainder)
    found |= dict.fromkeys(("aten.logical_not.default", "aten.bitwise_not.default"), _not)
    return found


POINTWISE: Mapping[str, Lowering] = {
    **_table(),
    "aten.maximum.default": _binary("Max"),
    "aten.minimum.default": _binary("Min"),
    "aten.rsqrt.default": _rsqrt,
    "aten.log1p.default": _log1p,
    "aten.expm1.default": _expm1,
    "aten._to_copy.default": _to,
    "prims.convert_element_type.default": _to,
    "aten.copy.default": _copy,
    "aten.hardtanh.default": _hardtanh,
    "aten.leaky_relu.default": _leaky,
    "aten.gelu.default": _gelu,
}
