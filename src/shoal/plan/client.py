"""One client's part in a round by its task's plan and rule: what `ClientTrainer` is to installed code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shoal.algorithms import registry
from shoal.algorithms.rule import LocalRule, Ruled, by_plan
from shoal.algorithms.steps import steps_of
from shoal.core.errors import PlanError
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, LocalPlan, TaskSpec
from shoal.core.tree import Array, Tree
from shoal.core.types import Update
from shoal.plan.local import train, update
from shoal.plan.run import Plan, Progress


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a client brings to a round: its rows, what it kept, and what its assignment says."""

    rows: Mapping[str, Array]
    own: Tree
    seed: int
    round: int = 0
    assignment: str = ""


def take_part(
    plan: Plan, arrays: Mapping[str, ArraySpec], local: LocalPlan, version: Tree, shared: Tree, part: Part, do: Progress
) -> tuple[Update, dict[str, Array]]:
    """Return the update that leaves, and all that the client keeps from now on.

    `version` holds every array of the model, a version completed by frozen and local ones; `shared` the rule's trees
    that belong to it. `do` is called after every batch. Raises NotFinite, NoRows, and PlanError for a rule that asks
    for the version's loss and a plan that measures none.
    """
    at, staying = local.at_round(part.round), staying_of(arrays, local)
    begun = {**version, **{name: part.own[name] for name in staying if name in part.own}}
    after = train(plan, begun, part.rows, at, part.seed, version, do)
    made = update(plan, part.assignment, version, after, at.clip_update)
    kept = {**part.own, **{name: after.arrays[name] for name in staying}}
    rule = registry.local_rule(local)
    if rule is not None:
        loss = plan.evaluate(version, part.rows)[0]["loss"] if rule.measures_start else math.nan
        steps = steps_of(after.rows, replace(at, batch_size=plan.manifest.rows or at.batch_size))
        made, trees = Ruled(rule, arrays).finished(made, at, steps, shared, part.own, loss)
        kept |= trees
    return made, kept


def staying_of(arrays: Mapping[str, ArraySpec], local: LocalPlan) -> tuple[str, ...]:
    """Return the arrays that training goes on with in the next round, as the device left them."""
    if local.start == "personal":
        return tuple(name for name, array in arrays.items() if array.role is not Role.FROZEN)
    return tuple(name for name, array in arrays.items() if array.role is Role.LOCAL)


def followed(spec: TaskSpec) -> LocalRule | None:
    """Return the rule of a task, if it has one, that its plan can follow. Raises PlanError for one that it cannot."""
    rule = registry.local_rule(spec.local)
    if rule is None or by_plan(rule, spec.local):
        return rule
    raise PlanError(
        f"task {spec.name!r} has the local rule {rule.name!r}, which the training step of a plan cannot follow",
        "install the task's code; name it with --code",
    )
