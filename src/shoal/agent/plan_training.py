"""A task's plan at work on an owner's rows: what `Training` is to installed code, without code and without torch."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from shoal.agent.data import OwnerData
from shoal.agent.policy import Policy
from shoal.agent.settings import LocalSettings
from shoal.agent.work import HOLDOUT
from shoal.core.errors import TaskError
from shoal.core.manifest import data_digest
from shoal.core.origin import Environment, Origin
from shoal.core.roles import Role
from shoal.core.schema import check_rows
from shoal.core.seeds import derive, permutation
from shoal.core.task import TaskSpec
from shoal.core.tree import Array, Tree
from shoal.core.types import Assignment, Update
from shoal.plan.file import roles
from shoal.plan.local import train, update
from shoal.plan.run import Plan
from shoal.plan.selftest import proved


class PlanTraining:
    """A plan that is its task's and passed its golden step here, with the data in the task's dtypes.

    `local` are the arrays that stay on the device, as they begin. Raises PlanError for another model's plan,
    RuntimeMismatch when no runtime here computes it, DataError (SchemaMismatch) when the data does not fit.
    """

    def __init__(
        self,
        plan: Plan,
        spec: TaskSpec,
        trees: tuple[Tree, Tree],
        data: OwnerData,
        progress: Callable[[], None],
        settings: LocalSettings,
    ) -> None:
        if spec.local.start == "personal":
            raise TaskError(
                f"task {spec.name!r} starts from personal models, an agent keeps none", "take part with shoal.Device"
            )
        plan.check_arrays(spec.arrays)
        self._plan = proved(plan)
        self._spec = spec
        self._frozen, self._local = trees
        self._progress = progress
        self._examples = data.examples(like(plan))
        check_rows(spec.schema, self._examples, data.names)
        self._held = settings.held(data.rows)
        self._rows = data.rows

    @property
    def rows(self) -> int:
        """Number of rows that are trained on."""
        return self._rows - self._held

    def train(self, assignment: Assignment, params: Tree) -> Update:
        """Train from a version's arrays on the rows that are for it; measure that version on those that are not."""
        held, kept = self._split(assignment.device)
        local = self._spec.local.at_round(assignment.round)
        before = self._whole(params)
        measured = self._evaluated(held, before) if self._held else {}
        after = train(self._plan, before, kept, local, assignment.seed, before, self._progress)
        self._local = {name: after.arrays[name] for name in roles(self._plan.manifest, Role.LOCAL)}
        made = update(self._plan, assignment.id, before, after, local.clip_update)
        return replace(made, metrics={**made.metrics, **{f"{HOLDOUT}{name}": v for name, v in measured.items()}})

    def measure(self, device: str, params: Tree) -> dict[str, float]:
        """Return the loss and the task's metrics of a version on the rows that are kept out of training."""
        return self._evaluated(self._split(device)[0], self._whole(params))

    def _evaluated(self, held: Tree, whole: Tree) -> dict[str, float]:
        return self._plan.evaluate(whole, held)[0]

    def _whole(self, params: Tree) -> dict[str, Array]:
        return {**self._frozen, **self._local, **params}

    def _split(self, device: str) -> tuple[Tree, Tree]:
        order = permutation(derive(0, device, "holdout"), self._rows)
        held, kept = order[: self._held], order[self._held :]
        arrays = self._examples.items()
        if not self._held:
            return {}, self._examples
        return {name: array[held] for name, array in arrays}, {name: array[kept] for name, array in arrays}

    def origin(self, policy: Policy) -> Origin | None:
        """Return what the owner's policy lets be known of this plan, these rows and this machine, or None."""
        if not policy.versions:
            return None
        data = data_digest(self._spec, self._examples) if policy.data_digest else ""
        return Origin(self._spec.exported, self._plan.runtime, data, _environment())


def like(plan: Plan) -> Mapping[str, Array]:
    """Return a batch of a plan's own, for its dtypes."""
    return {entry.name: plan.golden[f"batch/{entry.name}"] for entry in plan.manifest.batch}


def _environment() -> Environment:
    return Environment(
        shoal=version("shoal"),
        python=platform.python_version(),
        numpy=np.__version__,
        platform=f"{platform.system()} {platform.machine()}",
    )
