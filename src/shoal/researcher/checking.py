"""Looking at the rows of all owners together before a task is trained, without seeing one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from shoal.algorithms import statistics
from shoal.core.errors import SchemaMismatch
from shoal.core.schema import columns
from shoal.core.task import Component, RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest

POLL_SECONDS = 1.0
"""How often it is looked whether an owner refused."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """What a check found over all owners: how many rows there are, and (smallest, largest) of each column."""

    owners: int
    rows: int
    columns: Mapping[str, tuple[float, float]]


def check_spec(spec: TaskSpec, goal: int, deadline: float) -> TaskSpec:
    """Return the task of one round in which `goal` owners compare their rows with the schema of `spec`."""
    names = columns(spec.schema)
    return TaskSpec(
        name=f"{spec.name[:58]}-check",
        kind="statistics",
        arrays=statistics.arrays(len(names)),
        rounds=1,
        plan=RoundPlan(goal, goal, deadline, attempts=1),
        aggregator=Component(statistics.Moments.name),
        bounds=replace(spec.bounds, max_updates=max(goal, spec.bounds.max_updates)),
        columns=names,
        initial=digest(statistics.nothing(len(names))),
        schema=spec.schema,
        checks=spec.name,
    )


def found(spec: TaskSpec, owners: int, tree: Tree) -> Ranges:
    """Read the result of a check."""
    pairs = zip(tree["minimum"].tolist(), tree["maximum"].tolist(), strict=True)
    return Ranges(owners, int(tree["count"][0]), dict(zip(spec.columns, pairs, strict=True)))


def refuse(task: str, refusals: Mapping[str, str]) -> None:
    """Raise SchemaMismatch naming every owner whose rows are not what the task asks for."""
    if refusals:
        said = "; ".join(f"owner {name!r}: {reason}" for name, reason in sorted(refusals.items()))
        raise SchemaMismatch(
            f"task {task!r} does not fit the rows of all owners ({said})",
            "correct the rows or the task's example and ranges, then publish again",
        )
