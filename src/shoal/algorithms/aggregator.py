"""Folding updates into one: an aggregator is a monoid."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeVar

from shoal.core.task import TaskSpec
from shoal.core.tree import Tree
from shoal.core.types import Update

S = TypeVar("S")


class Aggregator(Protocol[S]):
    """Streams updates into a state.

    Laws (`shoal.testing.laws.aggregator_laws` checks them): any order and any grouping of the same updates give
    the same bits, so `merge(add(s, a), add(init(spec), b))` equals `add(add(s, a), b)`. `add` and `merge` may
    reuse the memory of their arguments: whoever calls them goes on with what they return.

    `name` is how a TaskSpec refers to the class; its dataclass fields are the options that travel.
    """

    name: ClassVar[str]

    def init(self, spec: TaskSpec) -> S:
        """Return the state that holds nothing yet."""
        ...

    def add(self, state: S, update: Update) -> S:
        """Count one update in. Raises RefusedUpdate if it is not what the task asks for."""
        ...

    def merge(self, left: S, right: S) -> S:
        """Combine two states that hold different updates."""
        ...

    def finish(self, state: S) -> Mapping[str, Tree]:
        """Return "delta" (float64; counters int64) and one tree for each extra tree of the task."""
        ...
