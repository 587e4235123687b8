"""Two traces of one function, of batches of different sizes, as one program for batches of any size.

An integer that differs between the traces is taken to be a * rows + b, a fraction that differs c / rows. Where the
traces differ in anything else, the function does not treat every batch size alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shoal.core.tree import Array
from shoal.plan.graph import Operation, Program, Rows, Share, Value
from shoal.plan.recording import Call, Made, Recording

SAME = frozenset(
    f"aten.{name}.default"
    for name in ("clone", "detach", "detach_copy", "alias", "alias_copy", "lift_fresh_copy", "lift_fresh", "contiguous")
) | {"prims.copy_strided.default"}
"""Operators that give the array that they take."""

CLOSE = 1e-12


class DependsOnSize(Exception):
    """The traces are not of one program; says in what they differ, and where."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One recorded function: what it takes and gives, by name, and the rows of its batch."""

    recording: Recording
    takes: Sequence[str]
    gives: Sequence[str]
    rows: int


def unified(left: Trace, right: Trace) -> Program:
    """Return the program that both traces are of; the same trace twice gives one for its batch size only.

    Raises DependsOnSize when there is none.
    """
    if (list(left.takes), list(left.gives)) != (list(right.takes), list(right.gives)):
        raise DependsOnSize("what it takes and gives differs")
    return _Union(left, right).program()


class _Union:
    def __init__(self, left: Trace, right: Trace) -> None:
        self._left, self._right = left, right
        self._values: dict[Made, Value] = {}
        self._other: dict[Made, Made] = {}
        self._constants: dict[Value, Array] = {}

    def program(self) -> Program:
        left, right = self._left.recording, self._right.recording
        inputs = [self._joined(one, other) for one, other in zip(left.inputs, right.inputs, strict=True)]
        made = [self._placed(one, other) for one, other in zip(left.calls, right.calls, strict=False)]
        if len(left.calls) != len(right.calls):
            raise DependsOnSize(f"{len(left.calls)} and {len(right.calls)} operators")
        outputs = self._merged(left.outputs, right.outputs)
        return Program(
            dict(zip(self._left.takes, inputs, strict=True)),
            dict(zip(self._left.gives, outputs, strict=True)),
            tuple(operation for operation in made if operation is not None),
            self._constants,
        )

    def _joined(self, one: Made, other: Made) -> Value:
        value = self._value(one, other)
        self._values[one], self._other[one] = value, other
        return value

    def _constant(self, one: Made, other: Made) -> Value:
        left, right = self._left.recording.constants[one], self._right.recording.constants.get(other)
        if right is None or left.shape != right.shape or not torch.equal(left, right):
            raise DependsOnSize("an array that is not computed by torch")
        value = self._joined(one, other)
        self._constants[value] = left.numpy()
        return value

    def _placed(self, one: Call, other: Call) -> Operation | None:
        try:
            return self._call(one, other)
        except DependsOnSize as error:
            raise DependsOnSize(f"operator {one.target} {one.where} ({error})") from error

    def _call(self, one: Call, other: Call) -> Operation | None:
        if one.target != other.target:
            raise DependsOnSize(f"{one.target} and {other.target}")
        name = str(one.target)
        plain = name if name == "aten._to_copy.default" else name.replace("_copy.", ".")
        args = self._merged(one.args, other.args)
        kwargs = {key: self._merged(one.kwargs[key], other.kwargs[key]) for key in one.kwargs}
        if SAME.intersection((name, plain)):
            (result,), (twin,) = one.results, other.results
            if result is not None and twin is not None:
                self._values[result], self._other[result] = args[0], twin
            return None
        results = tuple(
            None if left is None or right is None else self._joined(left, right)
            for left, right in zip(one.results, other.results, strict=True)
        )
        return Operation(plain, tuple(args), kwargs, results, one.where)

    def _value(self, left: Made, right: Made) -> Value:
        if len(left.shape) != len(right.shape) or left.dtype != right.dtype:
            raise DependsOnSize("the form of an array")
        shape = tuple(self._size(a, b) for a, b in zip(left.shape, right.shape, strict=True))
        return Value(shape, str(left.dtype).removeprefix("torch."))

    def _merged(self, left: Any, right: Any) -> Any:
        match left:
            case Made():
                return self._known(left, right)
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

    def _known(self, left: Made, right: Any) -> Value:
        if left in self._left.recording.constants and left not in self._values:
            return self._constant(left, right)
        if self._other.get(left) is not right:
            raise DependsOnSize("what is computed from what")
        return self._values[left]

    def _equal(self, left: Any, right: Any) -> Any:
        if left != right:
            raise DependsOnSize(f"{left} and {right}")
        return left

    def _size(self, left: int, right: int) -> int | Rows:
        if left == right:
            return left
        span = self._right.rows - self._left.rows
        if span == 0 or (right - left) % span:
            raise DependsOnSize(f"sizes {left} and {right}")
        times = (right - left) // span
        return Rows(times, left - times * self._left.rows)

    def _number(self, left: float, right: float) -> float | Share:
        if left == right or (math.isnan(left) and math.isnan(right)):
            return left
        of, again = left * self._left.rows, right * self._right.rows
        if not math.isclose(of, again, rel_tol=CLOSE):
            raise DependsOnSize(f"{left} and {right}")
        return Share(of)
