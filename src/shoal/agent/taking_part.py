"""What one device's examples, policy and personal model make of assignments."""

from collections.abc import Callable, Mapping

import numpy as np

from shoal.agent.adopting import Adopting
from shoal.agent.client_state import ClientStates
from shoal.agent.data import ArrayData
from shoal.agent.distributions import count
from shoal.agent.evaluating import measured, subject
from shoal.agent.examples import ExampleStore
from shoal.agent.learner import Learner, Lesson
from shoal.agent.personal import PersonalFile, trained
from shoal.agent.shared import fetch_shared
from shoal.agent.standing import DeviceSettings
from shoal.agent.work import Result, check, measure
from shoal.agent.work import trained as described
from shoal.algorithms import registry
from shoal.core.errors import SchemaMismatch, TaskError
from shoal.core.subject import AGAINST, Subject
from shoal.core.task import LocalPlan, TaskSpec
from shoal.core.tree import Array, Tree
from shoal.core.types import Assignment
from shoal.wire import tracing
from shoal.wire.http import Connection
from shoal.wire.models import fetch_tree


class TakingPart:
    """Carries out a device's assignments: updates, and what its policy allows of metrics and statistics."""

    ready = True

    def __init__(
        self,
        connection: Connection,
        learner: Learner,
        adopting: Adopting,
        personal: PersonalFile,
        examples: ExampleStore,
        states: ClientStates,
        settings: DeviceSettings,
        progress: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.adopting = adopting
        self._learner = learner
        self._personal = personal
        self._examples = examples
        self._states = states
        self._settings = settings
        self._progress = progress

    @property
    def tasks(self) -> tuple[str, ...]:
        """The name of the task."""
        return (self._learner.name,)

    def load(self) -> None:
        """Do nothing: code is the app's, and a plan comes with the version."""

    def work(self, assignment: Assignment) -> Result:
        """Train on the examples that are not held out, measure on those that are, or count over all.

        What stays here of a training is proposed to the personal file. Raises NotPermitted, TaskError, DataError:
        reasons to give the assignment back.
        """
        held = self.adopting.held
        if held is not None and held.task == assignment.task:
            return self._trained(assignment, held.spec)
        spec = self.connection.call("GET", f"/v1/tasks/{assignment.task}", None, TaskSpec)
        match spec.kind:
            case "training":
                return self._trained(assignment, self._proved(assignment.task))
            case "evaluation":
                return self._evaluated(assignment, spec)
            case _:
                return self._counted(assignment, spec)

    def _proved(self, task: str) -> TaskSpec:
        """Return the spec of a training task that the app's code was proved to be for. Raises TaskError."""
        if self.adopting.held is None or self.adopting.held.task != task:
            self.adopting.refresh()
        if self.adopting.held is None or self.adopting.held.task != task:
            raise TaskError(f"task {task} is not the newest {self._learner.name!r}", "wait for that")
        return self.adopting.held.spec

    def _trained(self, assignment: Assignment, spec: TaskSpec) -> Result:
        rows, count = self._examples.rows(held=False), self._examples.count(held=False)
        self._settings.policy.check(spec, assignment.round, count)
        params = self._version(assignment.version, spec)
        lesson = Lesson(assignment.device, rows, assignment.seed, assignment.id)
        shared = fetch_shared(self.connection, assignment, spec)
        plan, own = spec.local, self._own(assignment.task, spec.local)
        with tracing.span("train"):
            update, kept = self._learner.take_part(params, shared, own, plan, assignment.round, lesson, self._progress)
        self._keep(assignment, plan, kept)
        return described(assignment, update, count)

    def _own(self, task: str, plan: LocalPlan) -> Tree:
        """Return what this device brings along: its rule's trees, and its personal model or the local arrays."""
        now = self._personal.now
        arrays = now.arrays if _personalises(plan) and now.arrays else now.local
        return {**self._states.of(task), **arrays}

    def _keep(self, assignment: Assignment, plan: LocalPlan, kept: Tree) -> None:
        model = {name: array for name, array in kept.items() if name in self._learner.arrays}
        local = {name: model[name] for name in self._learner.local}
        arrays = model if _personalises(plan) else {}
        self._personal.propose(trained(self._personal.now, arrays, local, assignment.version), assignment.id)
        trees = {name: array for name, array in kept.items() if name not in model}
        if trees:
            self._states.propose(assignment.task, trees, assignment.id)

    def _evaluated(self, assignment: Assignment, spec: TaskSpec) -> Result:
        rows, count = self._examples.rows(held=True), self._examples.count(held=True)
        asked = subject(spec, count)
        self._settings.policy.check(spec, assignment.round, count)
        trained_by = self._proved(asked.task)
        values = self._measured(asked, trained_by, rows)
        return measured(assignment, spec, values, count)

    def _measured(self, asked: Subject, trained_by: TaskSpec, rows: Mapping[str, Array]) -> dict[str, float]:
        local, fixed = self._personal.now.local, self._learner.fixed
        values = self._learner.measure(self._version(asked.version, trained_by), fixed, local, rows)
        if not asked.against:
            return values
        other = self._learner.measure(self._version(asked.against, trained_by), fixed, local, rows)
        return values | {f"{AGAINST}{name}": value for name, value in other.items()}

    def _counted(self, assignment: Assignment, spec: TaskSpec) -> Result:
        data = ArrayData(self._all_rows(), self._settings.columns)
        self._settings.policy.check(spec, assignment.round, data.rows)
        if spec.checks:
            return _checked(assignment, spec, data)
        so_far = self._version(assignment.version, spec)
        if spec.kind == "statistics":
            return measure(assignment, spec, so_far, data)
        return count(assignment, spec, so_far, data)

    def _all_rows(self) -> dict[str, Array]:
        parts = [rows for held in (False, True) if (rows := self._examples.rows(held=held))]
        empty = {name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in self._learner.layout.rows.items()}
        return {name: np.concatenate([part[name] for part in (empty, *parts)]) for name in empty}

    def _version(self, digest: str, spec: TaskSpec) -> Tree:
        return fetch_tree(self.connection, digest, spec.travelling)


def _personalises(plan: LocalPlan) -> bool:
    """Whether a round trains the device's personal model: instead of the global one, or, as Ditto does, beside it."""
    rule = registry.local_rule(plan)
    return plan.start == "personal" or (rule is not None and rule.companion(plan) is not None)


def _checked(assignment: Assignment, spec: TaskSpec, data: ArrayData) -> Result:
    try:
        return check(assignment, spec, data)
    except SchemaMismatch:
        # the reason goes to the coordinator, and the error names a value of an example
        raise SchemaMismatch(
            f"this device's examples are not what task {spec.checks!r} asks for", "see the ranges that it declares"
        ) from None
