"""A strategy: how updates are combined, and how the combination moves the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.algorithms.aggregator import Aggregator
from shoal.algorithms.optimizer import ServerOptimizer
from shoal.algorithms.rule import LocalRule
from shoal.core.errors import NotFinite, TaskError
from shoal.core.plan import Buffered
from shoal.core.roles import Role
from shoal.core.task import ArraySpec
from shoal.core.tree import Array, Tree

NORMALISATION = "normalisation"
"""Stands, among patterns of arrays that stay with clients, for the arrays of all layers that normalise."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """An aggregator, a server optimizer, and what they ask of local training and of the rounds.

    `proximal` is FedProx's mu; None leaves the task's local plan as it is. `buffered` makes the rounds asynchronous.
    `rule` is what clients do beside plain training. `staying` says which arrays stay with them: patterns on names, or
    `NORMALISATION`.
    """

    name: str
    aggregator: Aggregator[Any]
    server: ServerOptimizer
    proximal: float | None = None
    buffered: Buffered | None = None
    rule: LocalRule | None = None
    staying: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rule is not None and self.buffered is not None:
            raise TaskError(
                f"strategy {self.name!r} with the rule {self.rule.name!r} in buffered rounds",
                "leave one of them out: an update of an old version would be corrected by a newer one",
            )


def trainable(arrays: Mapping[str, ArraySpec], tree: Tree) -> Tree:
    """Return the part of a tree that server optimizers may touch."""
    return {name: array for name, array in tree.items() if arrays[name].role is Role.TRAINABLE}


def advance(
    arrays: Mapping[str, ArraySpec], params: Tree, delta: Tree, server: ServerOptimizer, state: Tree
) -> tuple[Tree, Tree]:
    """Return the next version of `params` and of the server optimizer's state, each array by its role.

    Trainable arrays go through `server`; buffers and counters move by their combined delta. Works on whole trees
    and on blocks of flattened arrays alike. Raises NotFinite when the result is not a model.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # refused below, by name
        moved, state = server.step(trainable(arrays, params), trainable(arrays, delta), state)
        result = dict(moved)
        for name, array in params.items():
            if arrays[name].role is Role.COUNTER:
                result[name] = _counted(array, delta[name])
            elif name not in result:
                result[name] = np.asarray(array + delta[name], array.dtype)
    for name, array in result.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NotFinite(f"the new version of array {name!r} holds NaN or infinity", "lower the learning rates")
    return result, state


def first_memory(arrays: Mapping[str, ArraySpec], params: Tree, server: ServerOptimizer, shares: Sequence[str]) -> Tree:
    """Return what belongs to version 0 beside its arrays: the server optimizer's state, and zeros for shared trees."""
    movable = trainable(arrays, params)
    shared = {f"{tree}/{name}": np.zeros_like(array) for tree in shares for name, array in movable.items()}
    return {**server.init(movable), **shared}


def next_version(
    arrays: Mapping[str, ArraySpec], params: Tree, combined: Mapping[str, Tree], server: ServerOptimizer, memory: Tree
) -> tuple[Tree, Tree]:
    """Return the next version of `params` and of `memory`, from all that an aggregator gave.

    Trees beside the delta are added to the memory's arrays of the same names, where it has such; others were for the
    aggregator. Works on blocks as `advance` does, and raises what it raises.
    """
    moved, state = advance(arrays, params, combined["delta"], server, memory)
    beside = {
        f"{tree}/{name}": array for tree, given in combined.items() if tree != "delta" for name, array in given.items()
    }
    shared = {name: array for name, array in beside.items() if name in memory}
    return moved, {**state, **{name: _added(name, memory[name], change) for name, change in shared.items()}}


def _added(name: str, array: Array, change: Array) -> Array:
    result = np.asarray(array + change, array.dtype)
    if not np.isfinite(result).all():
        raise NotFinite(f"the shared array {name!r} holds NaN or infinity", "lower the learning rates")
    return result


def _counted(array: Array, delta: Array) -> Array:
    # a step is never negative, so a sum that fell has wrapped; one device's huge step must not turn a counter negative
    total = np.asarray(array.astype(np.int64) + delta)
    limit = np.iinfo(array.dtype).max
    return np.asarray(np.where(total < array, limit, np.minimum(total, limit)), array.dtype)
