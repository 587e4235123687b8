"""A task's plan at work on an owner's rows: what `Training` is to installed code, without code and without torch."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from shoal.agent.client_state import ClientStates
from shoal.agent.data import OwnerData
from shoal.agent.policy import Policy
from shoal.agent.settings import LocalSettings
from shoal.agent.work import HOLDOUT
from shoal.core.manifest import data_digest
from shoal.core.origin import Environment, Origin
from shoal.core.schema import check_rows
from shoal.core.seeds import derive, permutation
from shoal.core.task import TaskSpec
from shoal.core.tree import Array, Tree
from shoal.core.types import Assignment, Update
from shoal.plan.client import Part, followed, take_part
from shoal.plan.run import Plan
from shoal.plan.selftest import proved


class PlanTraining:
    """A plan that is its task's and passed its golden step here, with the data in the task's dtypes.

    `local` are the arrays that stay on the device, as they begin. Raises PlanError for another model's plan or a rule
    that the plan cannot follow, RuntimeMismatch when no runtime here computes it, DataError (SchemaMismatch) when the
    data does not fit.
    """

    def __init__(
        self,
        plan: Plan,
        spec: TaskSpec,
        trees: tuple[Tree, Tree],
        data: OwnerData,
        progress: Callable[[], None],
        settings: LocalSettings,
        states: ClientStates,
    ) -> None:
        plan.check_arrays(spec.arrays)
        followed(spec)
        self._states = states
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

    def train(self, assignment: Assignment, params: Tree, shared: Tree) -> Update:
        """Train from a version's arrays on the rows that are for it; measure that version on those that are not.

        What stays here is proposed to the client's state.
        """
        held, rows = self._split(assignment.device)
        own = self._states.of(assignment.task)
        before = self._whole(params, own)
        measured = self._evaluated(held, before) if self._held else {}
        part = Part(rows, own, assignment.seed, assignment.round, assignment.id)
        made, kept = take_part(self._plan, self._spec.arrays, self._spec.local, before, shared, part, self._progress)
        if kept:
            self._states.propose(assignment.task, kept, assignment.id)
        return replace(made, metrics={**made.metrics, **{f"{HOLDOUT}{name}": v for name, v in measured.items()}})

    def measure(self, task: str, device: str, params: Tree) -> dict[str, float]:
        """Return the loss and the task's metrics of a version on the rows that are kept out of training."""
        return self._evaluated(self._split(device)[0], self._whole(params, self._states.of(task)))

    def _evaluated(self, held: Tree, whole: Tree) -> dict[str, float]:
        return self._plan.evaluate(whole, held)[0]

    def _whole(self, params: Tree, own: Tree) -> dict[str, Array]:
        """Return every array of the model: a version, completed by the local arrays as they are by now."""
        local = {name: own.get(name, array) for name, array in self._local.items()}
        return {**self._frozen, **local, **params}

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
