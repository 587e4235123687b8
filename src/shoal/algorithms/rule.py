"""What clients do beside plain training: a rule changes their gradients, their updates, or what stays with them.

A rule is plain data with pure functions. All trees of a rule have the names and shapes of the model's trainable arrays
and begin at zero. Those that it `shares` belong to the version: clients get them with it, and the trees of the same
names in their updates, averaged, are added to them. Those that it `keeps` stay with a client from round to round.
"""

from collections.abc import Callable, Iterable, Mapping
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

    `corrects` says that it changes gradients, which a plan has no input for; `on_devices` that real devices can carry
    it out, which come and go as they like and begin at zero again when they lost what they kept.
    """

    name: ClassVar[str]
    shares: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[tuple[str, ...]] = ()
    measures_start: ClassVar[bool] = False
    corrects: ClassVar[bool] = False
    on_devices: ClassVar[bool] = True

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

    def local_first(self, plan: LocalPlan) -> LocalPlan | None:
        """Return the plan of a training of the local arrays alone, after which the others are trained alone."""
        del plan
        return None

    def companion(self, plan: LocalPlan) -> LocalPlan | None:
        """Return the plan of a second training in each round, whose result stays with the client."""
        del plan
        return None


def by_plan(rule: LocalRule, plan: LocalPlan) -> bool:
    """Whether the exported training step of a task is enough to follow a rule: one training, of plain gradients."""
    return not (rule.corrects or rule.companion(plan) is not None or rule.local_first(plan) is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Ruled:
    """A rule at work on one model, for one client at a time.

    `version` holds the shared trees and `own` what the client keeps, as "<tree>/<array>"; what is missing is zero.
    """

    rule: LocalRule
    arrays: Mapping[str, ArraySpec]

    def correction(self, version: Tree, own: Tree) -> Tree:
        """Return what is added to every gradient of a client."""
        return self.rule.correction(self._trees(version, own))

    def finished(
        self, update: Update, plan: LocalPlan, steps: int, version: Tree, own: Tree, start_loss: float
    ) -> tuple[Update, dict[str, Array]]:
        """Return the update that leaves, and the rule's part of what the client keeps from now on."""
        work = Work(update, plan, steps, self.arrays, self._trees(version, own), start_loss)
        with np.errstate(over="ignore", invalid="ignore"):  # refused by name where the update is checked
            update, kept = self.rule.finish(work)
        return update, {f"{tree}/{name}": array for tree, arrays in kept.items() for name, array in arrays.items()}

    def _trees(self, version: Tree, own: Tree) -> Trees:
        shared = {tree: section(version, tree, self.arrays) for tree in self.rule.shares}
        return {**shared, **{tree: section(own, tree, self.arrays) for tree in self.rule.keeps}}


def trainable_specs(arrays: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """Return the trainable arrays of a model."""
    return {name: spec for name, spec in arrays.items() if spec.role is Role.TRAINABLE}


def shared_specs(arrays: Mapping[str, ArraySpec], trees: Iterable[str]) -> dict[str, ArraySpec]:
    """Return the layout of trees of a rule in one, as "<tree>/<array>"."""
    return {f"{tree}/{name}": spec for tree in trees for name, spec in trainable_specs(arrays).items()}


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
