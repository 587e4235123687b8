"""Local training by a plan: epochs over one client's rows, in the order in which every trainer takes them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shoal.algorithms.clipping import clip_update
from shoal.core.errors import NoRows
from shoal.core.roles import Role
from shoal.core.seeds import derive, permutation
from shoal.core.task import LocalPlan, weight_units
from shoal.core.tree import Array, Tree
from shoal.core.types import Update
from shoal.plan.file import roles
from shoal.plan.run import Plan, Progress, Training


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What local training gives: every array of the model, the mean loss of the last epoch, the rows it used."""

    arrays: Tree
    loss: float
    rows: int


def train(
    plan: Plan, params: Tree, rows: Mapping[str, Array], local: LocalPlan, seed: int, start: Tree, progress: Progress
) -> Trained:
    """Train from `params`, every array of the model, as `LoopTrainer` does with torch; FedProx pulls to `start`.

    Where the plan takes one batch size only, what is left over at the end of an epoch is dropped. `progress` is called
    after every batch. Raises NotFinite, NoRows when there are fewer rows than a batch takes.
    """
    count = len(next(iter(rows.values())))
    size = plan.manifest.rows or local.batch_size
    if plan.manifest.rows and count < size:
        raise NoRows(f"{count} rows, the plan takes {size} at once", "train with the task's code, or on more rows")
    lr = float(local.optimizer.options.get("lr") or plan.manifest.learning_rate)
    training = Training(plan, params, lr=lr, rate=local.per_step, seed=seed, start=start)
    total, used = 0.0, 0
    for epoch in range(local.epochs):
        order = permutation(derive(seed, epoch), count) if local.shuffle else slice(None)
        total, used = 0.0, 0
        for batch in plan.parts({name: array[order] for name, array in rows.items()}, size):
            many = len(next(iter(batch.values())))
            total, used = total + training.step(batch) * many, used + many
            progress()
    return Trained(training.arrays, total / used if used else math.nan, used)


def update(plan: Plan, assignment: str, before: Tree, after: Trained, clip: float | None) -> Update:
    """Return what a training changed of the travelling arrays, weighted by the rows that it used."""
    delta = {name: after.arrays[name] - before[name] for name in travelling(plan)}
    if clip is not None:
        clip_update(delta, roles(plan.manifest, Role.TRAINABLE), clip)
    return Update(assignment, delta, weight_units(after.rows), {"loss": after.loss})


def travelling(plan: Plan) -> Sequence[str]:
    """Return the names of the arrays that are part of every version."""
    return [entry.name for entry in plan.manifest.arrays if entry.role.travels]
