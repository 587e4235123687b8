"""Whose data went into a tensor, and the one place that is asked before anything happens to it.

A label names the owner's data sets that a tensor was made from; a tensor made only of what the client itself sent has
none. Labels are joined through every operator, and belong to storage: what is written into a view is in its base too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from shoal.core.errors import NotPermitted
from shoal.remote.operators import Operator


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
    """A tensor that a client asks for."""

    label: Label
    dtype: str
    shape: tuple[int, ...]
    reason: str | None
    program: str | None
    """Digest of the recorded program that made it, where one did."""


class Gate(Protocol):
    """What an owner lets one client do: every operator, program and release passes here."""

    def operate(self, operator: Operator, label: Label) -> None:
        """Raise NotPermitted where this operator may not run on data of this label."""
        ...

    def release(self, asked: Release) -> None:
        """Raise NotPermitted where this may not leave."""
        ...

    def traceback(self, label: Label) -> bool:
        """Return whether a failure on data of this label may be described."""
        ...


class OwnOnly:
    """The default: a client gets back what is made of its own tensors, and handles to everything else."""

    def operate(self, operator: Operator, label: Label) -> None:
        """Refuse what would show values in a shape."""
        if operator.data_dependent and label.private:
            raise NotPermitted(
                f"{operator.name} on data set {_names(label)}: the shape of its result would show values",
                "use torch.where or a product with a mask",
            )

    def release(self, asked: Release) -> None:
        """Refuse what has the owner's data in it."""
        if asked.label.private:
            raise NotPermitted(
                f"a tensor {asked.dtype}{list(asked.shape)} made from data set {_names(asked.label)}",
                "keep it at the worker; the owner's policy releases nothing of this data set",
            )

    def traceback(self, label: Label) -> bool:
        """Describe failures on the client's own data only."""
        return not label.private


def _names(label: Label) -> str:
    return " and ".join(repr(name) for name in sorted(label.sources))
