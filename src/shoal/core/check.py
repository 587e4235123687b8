"""Checks of an update against its task, before anything is cast, folded or kept."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from shoal.core.errors import RefusedUpdate
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, TaskSpec, weight_units
from shoal.core.tree import Array, Tree
from shoal.core.types import Update


def check_weight(weight: int, bounds: Bounds) -> None:
    """Refuse a weight (in units of 2**-16) that is not positive or beyond the task's `max_weight`."""
    most = weight_units(bounds.max_weight)
    if not 1 <= weight <= most:
        raise RefusedUpdate(
            f"weight {weight} (units of 2**-16)",
            f"the task takes 1 to {most}; weigh by the number of examples",
        )


def check_names(tree: str, expected: Mapping[str, ArraySpec], given: Mapping[str, object]) -> None:
    """Refuse a tree with a missing or an extra array, by name."""
    if expected.keys() == given.keys():
        return
    missing = sorted(expected.keys() - given.keys())
    surplus = sorted(given.keys() - expected.keys())
    if missing:
        raise RefusedUpdate(f"tree {tree!r} lacks the arrays {missing}", "send every array of the task")
    if surplus:
        raise RefusedUpdate(f"tree {tree!r} has unknown arrays {surplus}", "send only the arrays of the task")


def check_layout(name: str, expected: ArraySpec, dtype: str, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape or dtype than the task says."""
    if tuple(shape) != expected.shape:
        raise RefusedUpdate(f"array {name!r} has shape {tuple(shape)}", f"the task says {expected.shape}")
    if dtype != expected.dtype:
        raise RefusedUpdate(f"array {name!r} has dtype {dtype}", f"the task says {expected.dtype}")


def check_values(name: str, expected: ArraySpec, values: Array, bounds: Bounds) -> None:
    """Refuse NaN, infinity, and values beyond `max_abs` (counters: negative steps)."""
    if values.size == 0:
        return
    if expected.role is Role.COUNTER:
        if values.min() < 0:
            raise RefusedUpdate(f"counter {name!r} moved by {values.min()}", "counters only grow")
        return
    largest = float(max(values.max(), -values.min()))
    if not np.isfinite(largest):
        raise RefusedUpdate(f"array {name!r} holds NaN or infinity", "lower the learning rate or check the data")
    if largest > bounds.max_abs:
        raise RefusedUpdate(
            f"array {name!r} holds {largest:.6g}",
            f"the task takes values up to {bounds.max_abs:g}; lower the learning rate or raise bounds.max_abs",
        )


@lru_cache
def _name(dtype: np.dtype[Any]) -> str:
    # numpy makes the name anew each time, which takes longer than all other checks of a small array
    return str(dtype.name)


def check_tree(tree: str, expected: Mapping[str, ArraySpec], given: Tree, bounds: Bounds) -> None:
    """Refuse a tree whose names, shapes, dtypes or values are not the task's."""
    check_names(tree, expected, given)
    for name, spec in expected.items():
        array = given[name]
        check_layout(name, spec, _name(array.dtype), array.shape)
        check_values(name, spec, array, bounds)


def check_update(spec: TaskSpec, update: Update) -> None:
    """Refuse an update that is not exactly what the task asks for.

    Raises RefusedUpdate (422), naming the array and the value.
    """
    check_trees(spec.trees, update, spec.bounds)


def check_trees(expected: Mapping[str, Mapping[str, ArraySpec]], update: Update, bounds: Bounds) -> None:
    """Refuse an update whose weight or trees are not as expected; `check_update` with a task's trees at hand."""
    check_weight(update.weight, bounds)
    given = update.trees
    if expected.keys() != given.keys():
        raise RefusedUpdate(f"update with trees {sorted(given)}", f"the task asks for {sorted(expected)}")
    for tree in expected:
        check_tree(tree, expected[tree], given[tree], bounds)
