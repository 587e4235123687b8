"""Two traces of one function, of batches of different sizes, as one program for batches of any size.

An integer that differs between the traces is taken to be a * rows + b, a fraction that differs c / rows. Where the
traces differ in anything else, the function does not treat every batch size alike.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from shoal.core.errors import NotExportable
from shoal.core.tree import Array
from shoal.plan.graph import Operation, Program, Rows, Share, Value
from shoal.plan.private import where

SAME = frozenset(
    f"aten.{name}.default"
    for name in ("clone", "detach", "detach_copy", "alias", "alias_copy", "lift_fresh_copy", "lift_fresh", "contiguous")
) | {"prims.copy_strided.default"}
"""Operators that give the array that they take."""

CLOSE = 1e-12


class DependsOnSize(Exception):
    """The traces are not of one program."""


class Trace:
    """One recorded function: its graph, the names of what it takes and gives, and the rows of its batch."""

    def __init__(self, graph: fx.GraphModule, takes: Sequence[str], gives: Sequence[str], rows: int) -> None:
        self.module = graph
        self.takes = tuple(takes)
        self.gives = tuple(gives)
        self.rows = rows
        self.nodes = list(graph.graph.nodes)

    def constant(self, node: fx.Node) -> torch.Tensor:
        """Return the array that a node stands for."""
        found: torch.Tensor = operator.attrgetter(str(node.target))(self.module)
        return found.detach()


def unified(left: Trace, right: Trace) -> Program:
    """Return the program that both traces are of; the same trace twice gives one for its batch size only.

    Raises DependsOnSize when there is none.
    """
    if len(left.nodes) != len(right.nodes) or (left.takes, left.gives) != (right.takes, right.gives):
        raise DependsOnSize("a number of operators")
    return _Union(left, right).program()


class _Union:
    def __init__(self, left: Trace, right: Trace) -> None:
        self._left, self._right = left, right
        self._made: dict[fx.Node, Any] = {}
        self._other: dict[fx.Node, fx.Node] = {}
        self._inputs: dict[str, Value] = {}
        self._constants: dict[Value, Array] = {}
        self._operations: list[Operation] = []

    def program(self) -> Program:
        outputs: dict[str, Value] = {}
        for one, other in zip(self._left.nodes, self._right.nodes, strict=True):
            self._other[one] = other
            if one.op != other.op or (one.op == "call_function" and one.target != other.target):
                raise DependsOnSize(f"{one.target} and {other.target}")
            if one.op == "output":
                given = self._merged(one.args[0], other.args[0])
                outputs = dict(zip(self._left.gives, given, strict=True))
            else:
                self._made[one] = self._node(one, other)
        return Program(self._inputs, outputs, tuple(self._operations), self._constants)

    def _node(self, one: fx.Node, other: fx.Node) -> Any:
        if one.op == "placeholder":
            name = self._left.takes[len(self._inputs)]
            value = self._inputs[name] = self._value(one.meta["val"], other.meta["val"])
            return value
        if one.op == "get_attr":
            return self._constant(one, other)
        if one.target is operator.getitem:
            return self._made[one.args[0]][one.args[1]]  # type: ignore[index]
        return self._call(one, other)

    def _constant(self, one: fx.Node, other: fx.Node) -> Value:
        left, right = self._left.constant(one), self._right.constant(other)
        if left.shape != right.shape or not torch.equal(left, right):
            raise DependsOnSize("an array that the model makes")
        value = self._value(left, right)
        self._constants[value] = left.numpy()
        return value

    def _call(self, one: fx.Node, other: fx.Node) -> Any:
        name = (
            str(one.target).replace("_copy.", ".")
            if str(one.target) != "aten._to_copy.default"
            else "aten._to_copy.default"
        )
        args = self._merged(list(one.args), list(other.args))
        kwargs = {key: self._merged(one.kwargs[key], other.kwargs[key]) for key in one.kwargs}
        if str(one.target) in SAME or name in SAME:
            return args[0]
        left, right = one.meta.get("val"), other.meta.get("val")
        if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            value = self._value(left, right)
            self._operations.append(Operation(name, tuple(args), kwargs, (value,), where(one)))
            return value
        if not isinstance(left, tuple | list) or not isinstance(right, tuple | list):
            raise NotExportable(f"operator {one.target} {where(one)}", "leave it out of the model and the loss")
        results = tuple(
            self._value(a, b) if isinstance(a, torch.Tensor) else None for a, b in zip(left, right, strict=True)
        )
        self._operations.append(Operation(name, tuple(args), kwargs, results, where(one)))
        return results

    def _value(self, left: Any, right: Any) -> Value:
        if left.dim() != right.dim() or left.dtype != right.dtype:
            raise DependsOnSize("the form of an array")
        shape = tuple(self._size(int(a), int(b)) for a, b in zip(left.shape, right.shape, strict=True))
        return Value(shape, str(left.dtype).removeprefix("torch."))

    def _merged(self, left: Any, right: Any) -> Any:
        match left:
            case fx.Node():
                if self._other.get(left) is not right:
                    raise DependsOnSize("what is computed from what")
                return self._made[left]
            case list() | tuple():
                if not isinstance(right, list | tuple) or len(left) != len(right):
                    raise DependsOnSize("a list of sizes")
                return [self._merged(a, b) for a, b in zip(left, right, strict=True)]
            case bool():
                return self._equal(left, right)
            case int():
                return self._size(left, right)
            case float():
                return self._number(left, right)
            case torch.dtype():
                return str(self._equal(left, right)).removeprefix("torch.")
            case _:
                return self._equal(left, right)

    def _equal(self, left: Any, right: Any) -> Any:
        if left != right:
            raise DependsOnSize(f"{left} and {right}")
        return left

    def _size(self, left: int, right: int) -> int | Rows:
        if left == right:
            return left
        span = self._right.rows - self._left.rows
        if span == 0 or (right - left) % span:
            raise DependsOnSize(f"{left} and {right}")
        times = (right - left) // span
        return Rows(times, left - times * self._left.rows)

    def _number(self, left: float, right: float) -> float | Share:
        if left == right or (math.isnan(left) and math.isnan(right)):
            return left
        of, again = left * self._left.rows, right * self._right.rows
        if not math.isclose(of, again, rel_tol=CLOSE):
            raise DependsOnSize(f"{left} and {right}")
        return Share(of)
