"""What clients do beside plain training: a rule changes their gradients, their updates, or what stays with them.

A rule is plain data with pure functions. All trees of a rule have the names and shapes of the model's trainable arrays
and begin at zero. Those that it `shares` belong to the version: clients get them with it, and the trees of the same
names in their updates, averaged, are added to them. Those that it `keeps` stay with a client from round to round.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from shoal.core.roles import Role
from shoal.core.task import ArraySpec, LocalPlan
from shoal.core.tree import Array, Tree
from shoal.core.types import Update

Trees: TypeAlias = Mapping[str, Tree]


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What a client did in a round: its update so far, by `plan`, in `steps` optimizer steps.

    `arrays` are the model's, `trees` those that the rule shares and keeps. `start_loss` is the loss over its rows of
    the version that it began with, if the rule asks for it.
    """

    update: Update
    plan: LocalPlan
    steps: int
    arrays: Mapping[str, ArraySpec]
    trees: Trees = field(default_factory=dict[str, Tree])
    start_loss: float = 0.0


class LocalRule(Protocol):
    """One paper's work of a client. The defaults do nothing; a rule overrides what its paper says.

    `on_devices` says that real devices can carry it out, which come and go as they like.
    """

    name: ClassVar[str]
    shares: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[tuple[str, ...]] = ()
    measures_start: ClassVar[bool] = False
    on_devices: ClassVar[bool] = False

    def check(self, plan: LocalPlan) -> None:
        """Raise TaskError for a local plan that the paper's reasoning does not hold for."""
        del plan

    def extra_trees(self, arrays: Mapping[str, ArraySpec]) -> Mapping[str, Mapping[str, ArraySpec]]:
        """Return the trees that an update carries beside its delta."""
        return {tree: trainable_specs(arrays) for tree in self.shares}

    def correction(self, trees: Trees) -> Tree:
        """Return what is added to every gradient; nothing when it is empty. `trees` are shared and kept ones."""
        del trees
        return {}

    def finish(self, work: Work) -> tuple[Update, Trees]:
        """Return the update that leaves, with its extra trees, and the trees that the client keeps."""
        return work.update, {}

    def companion(self, plan: LocalPlan) -> LocalPlan | None:
        """Return the plan of a second training in each round, whose result stays with the client."""
        del plan
        return None


def trainable_specs(arrays: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """Return the trainable arrays of a model."""
    return {name: spec for name, spec in arrays.items() if spec.role is Role.TRAINABLE}


def zeros(arrays: Mapping[str, ArraySpec]) -> dict[str, Array]:
    """Return a tree of zeros for the trainable arrays of a model."""
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in trainable_specs(arrays).items()}


def section(tree: Tree, name: str, arrays: Mapping[str, ArraySpec]) -> dict[str, Array]:
    """Return the arrays that a tree holds as "<name>/<array>", zeros where it holds none."""
    return {array: tree.get(f"{name}/{array}", zero) for array, zero in zeros(arrays).items()}


def mapped(function: Callable[..., Array], first: Tree, *others: Tree) -> dict[str, Array]:
    """Return a tree of what a function makes of the arrays of each name, in the dtype of the first."""
    return {
        name: np.asarray(function(array, *(other[name] for other in others)), array.dtype)
        for name, array in first.items()
    }
