"""The traced step as data: operations on values whose sizes may depend on the rows of a batch. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from shoal.core.tree import Array


@dataclass(frozen=True, slots=True)
class Rows:
    """The integer `times * rows + plus`."""

    times: int
    plus: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """The number `of / rows`, such as the weight of one row in a mean."""

    of: float


Size: TypeAlias = int | Rows


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One array between operations. `dtype` is numpy's name."""

    shape: tuple[Size, ...]
    dtype: str


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One core operator of torch, such as "aten.mm.default". `args` hold Values, numbers, Rows, Shares, lists of them.

    `where` says in which module and at which line of whose code it began.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[Value | None, ...]
    where: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Operations in order, with what goes in and comes out, by name."""

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    operations: tuple[Operation, ...]
    constants: Mapping[Value, Array] = field(default_factory=dict[Value, Array])


def operands(operation: Operation) -> list[Value]:
    """Return the values that an operation reads."""
    return list(_values([*operation.args, *operation.kwargs.values()]))


def _values(given: list[Any]) -> list[Value]:
    found: list[Value] = []
    for entry in given:
        if isinstance(entry, Value):
            found.append(entry)
        elif isinstance(entry, list | tuple):
            found.extend(_values(list(entry)))
    return found


def live(program: Program) -> Program:
    """Leave out the operations whose results nobody needs."""
    needed = set(program.outputs.values())
    kept: list[Operation] = []
    for operation in reversed(program.operations):
        if needed.intersection(operation.results):
            kept.append(operation)
            needed.update(operands(operation))
    constants = {value: array for value, array in program.constants.items() if value in needed}
    return Program(program.inputs, program.outputs, tuple(reversed(kept)), constants)
