"""What a plan says about itself: names, shapes, dtypes and operators, as JSON. docs/plans.md describes the format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from shoal.core.roles import Role

FORMAT = 1
OPSET = 18
IR_VERSION = 8

Dim: TypeAlias = tuple[int, int]
"""A size that may depend on the rows of a batch: (a, b) stands for a * rows + b."""


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """One array of the model."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One array of a batch; `shape` is that of one row."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One array of the optimizer's state, which begins as zeros with every training."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """The inputs and outputs of one graph, in order, and the operators that occur in it."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """An array of the golden step that is drawn: clip(middle + spread * (2 u - 1), low, high) with `noise.uniform`."""

    index: int
    middle: float
    spread: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Golden:
    """How a runtime proves itself: `docs/plans.md#the-golden-step`."""

    seed: int
    rows: int
    drawn: Mapping[str, Drawn] = field(default_factory=dict[str, Drawn])
    relative: float = 1e-4
    absolute: float = 1e-7


@dataclass(frozen=True, slots=True)
class Manifest:
    """A plan without its graphs.

    `rows` is the one batch size that the graphs take, None for any. `noise` are the shapes of the uniform numbers that
    a training step takes. `proximal` says whether it takes the arrays it started from. `unmeasured` names metrics of
    the task that could not be exported, with the reason.
    """

    task: str
    arrays: tuple[ArrayEntry, ...]
    batch: tuple[BatchEntry, ...]
    state: tuple[StateEntry, ...]
    noise: tuple[tuple[Dim, ...], ...]
    learning_rate: float
    graphs: Mapping[str, GraphEntry]
    golden: Golden
    rows: int | None = None
    proximal: bool = False
    unmeasured: Mapping[str, str] = field(default_factory=dict[str, str])
    opset: int = OPSET
    ir_version: int = IR_VERSION
    format: int = FORMAT

    @property
    def trained(self) -> tuple[str, ...]:
        """The names of the arrays that a training step may change."""
        return tuple(entry.name for entry in self.arrays if entry.role is not Role.FROZEN)
