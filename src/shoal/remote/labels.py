"""Whose data went into a tensor, and the one place that is asked before anything happens to it.

A label names the owner's data sets that a tensor was made from; a tensor made only of what the client itself sent has
none. Labels are joined through every operator, and belong to storage: what is written into a view is in its base too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from shoal.remote.operators import Operator

if TYPE_CHECKING:
    from shoal.remote.objects import Held


@dataclass(frozen=True, slots=True)
class Label:
    """The names of the owner's data sets that something was made from."""

    sources: frozenset[str] = field(default_factory=frozenset)

    @property
    def private(self) -> bool:
        """Whether any of it is the owner's."""
        return bool(self.sources)


OWN = Label()
"""Made only of what the client itself sent."""


def join(labels: Iterable[Label]) -> Label:
    """Return the label of what is made of all these."""
    joined = OWN
    for label in labels:
        if label is not joined and label.sources:
            joined = label if not joined.sources else Label(joined.sources | label.sources)
    return joined


@dataclass(frozen=True, slots=True)
class Release:
    """A tensor that a client asks for, and why."""

    held: "Held"
    reason: str | None

    @property
    def tensor(self) -> torch.Tensor:
        """What is asked for."""
        return self.held.tensor

    @property
    def label(self) -> Label:
        """What it was made from."""
        return self.held.storage.label

    def __str__(self) -> str:
        dtype = str(self.tensor.dtype).removeprefix("torch.")
        return f"a tensor {dtype}{list(self.tensor.shape)} made from data set {names(self.label)}"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A statistic over the rows of an array that a client asks for, and what it would spend for it."""

    data: str
    array: str
    statistic: str
    epsilon: float


class Gate(Protocol):
    """What an owner lets one client do: every operator, program and release passes here."""

    def operate(self, operator: Operator, label: Label, *, tells_values: bool) -> None:
        """Raise NotPermitted where this operator may not run on data of this label; `tells_values` in a shape."""
        ...

    def accept(self, nbytes: int) -> None:
        """Raise NotPermitted where a client may not bring a tensor of so many bytes."""
        ...

    def release(self, asked: Release) -> torch.Tensor:
        """Return what may leave of this. Raises NotPermitted."""
        ...

    def mock(self, data: str, *, real: bool) -> None:
        """Raise NotPermitted where made-up rows may not be had; `real` if they are drawn from the real ones."""
        ...

    def aggregate(self, asked: Aggregate) -> None:
        """Take from the budget what this costs. Raises NotPermitted."""
        ...

    def traceback(self, label: Label) -> bool:
        """Return whether a failure on data of this label may be described."""
        ...

    def failed(self, label: Label) -> None:
        """Count a failure on data of this label, which ends the session."""
        ...


def names(label: Label) -> str:
    """Return the data sets of a label as text."""
    return " and ".join(repr(name) for name in sorted(label.sources))
