"""Carrying out one assignment, up to the moment before anything leaves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shoal.agent.data import OwnerData
from shoal.agent.distributions import count
from shoal.agent.evaluating import measured, subject
from shoal.agent.home import AgentHome, Fetch
from shoal.agent.policy import Policy
from shoal.agent.settings import LocalSettings
from shoal.agent.shared import fetch_shared
from shoal.agent.work import Result, check, measure, trained
from shoal.core.errors import CodeMismatch, PlanError
from shoal.core.origin import Origin
from shoal.core.roles import Role
from shoal.core.subject import AGAINST, Subject
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree
from shoal.core.types import Assignment
from shoal.wire import tracing
from shoal.wire.http import Connection
from shoal.wire.models import FileTree, fetch_tree, file_size, open_tree

if TYPE_CHECKING:
    from shoal.agent.plan_training import PlanTraining
    from shoal.agent.training import Training
    from shoal.train.task import Task

GOLDEN_BYTES = 64 << 20
"""Most bytes that the batch of a golden step may add to a model's size."""


IN_MEMORY = 1 << 20
"""Versions of more bytes than this go through a file in the agent's home, and are read from it array by array."""


class Labour(Protocol):
    """What an agent asks of whoever carries out its assignments; `Participant` is the one for an owner's torch code."""

    @property
    def ready(self) -> bool:
        """Whether there is nothing that is still to be loaded."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that it can train."""
        ...

    def load(self) -> None:
        """Load what is still to be loaded."""
        ...

    def work(self, assignment: Assignment) -> Result:
        """Carry out an assignment. Raises NotPermitted, TaskError or DataError to give it back."""
        ...


class Participant:
    """What one owner's rows, code and policy make of assignments.

    The code is loaded when `load` is called and not before; torch is imported with it. Each task's code is proved
    once, on the task's golden step.
    """

    def __init__(
        self,
        connection: Connection,
        home: AgentHome,
        data: OwnerData,
        policy: Policy,
        code: "Callable[[], Task] | None",
        progress: Callable[[], None],
        settings: LocalSettings | None = None,
        plans: Sequence[str] = (),
    ) -> None:
        self._connection = connection
        self._plans = tuple(plans)
        self._home = home
        self._data = data
        self._policy = policy
        self._code = code
        self._progress = progress
        self._settings = settings or LocalSettings()
        self._settings.check(data.rows, policy)
        self._task: Task | None = None
        self._specs: dict[str, TaskSpec] = {}
        self._trainings: dict[str, Training | PlanTraining] = {}
        self._introduced: set[str] = set()

    @property
    def ready(self) -> bool:
        """Whether there is no code that is still to be loaded."""
        return self._code is None or self._task is not None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that the loaded code is for, and of those that are trained by plan."""
        coded = () if self._task is None else (self._task.name,)
        return (*coded, *(name for name in self._plans if name not in coded))

    def load(self) -> None:
        """Load the owner's code. Raises ConfigurationError when it cannot be."""
        if self._code is not None:
            self._task = self._code()

    def work(self, assignment: Assignment) -> Result:
        """Train, measure or count, as the assignment's task says.

        Raises NotPermitted, CodeMismatch and other TaskErrors, DataError: reasons to give the assignment back.
        """
        spec = self._spec(assignment.task)
        held = self._settings.held(self._data.rows)
        asked = subject(spec, held) if spec.kind == "evaluation" else None
        self._policy.check(spec, assignment.round, self._data.rows if asked is None else held)
        if spec.checks:
            return check(assignment, spec, self._data)
        if asked is not None:
            return self._evaluated(assignment, spec, asked, held)
        params = self._version(assignment.version, spec)
        if spec.kind == "statistics":
            return measure(assignment, spec, params, self._data)
        if spec.kind in ("histogram", "quantiles"):
            return count(assignment, spec, params, self._data)
        training = self._training(assignment.task, spec)
        shared = fetch_shared(self._connection, assignment, spec)
        with tracing.span("train"):
            update = training.train(assignment, params, shared)
        return trained(assignment, update, training.rows, self._introduction(assignment.task, training))

    def _evaluated(self, assignment: Assignment, spec: TaskSpec, asked: Subject, held: int) -> Result:
        trained_by = self._spec(asked.task)
        training = self._training(asked.task, trained_by)
        values = training.measure(asked.task, assignment.device, self._version(asked.version, trained_by))
        if asked.against:
            other = training.measure(asked.task, assignment.device, self._version(asked.against, trained_by))
            values |= {f"{AGAINST}{name}": value for name, value in other.items()}
        return measured(assignment, spec, values, held)

    def _introduction(self, task: str, training: "Training | PlanTraining") -> Origin | None:
        if task in self._introduced:
            return None
        self._introduced.add(task)
        return training.origin(self._policy)

    def _spec(self, task: str) -> TaskSpec:
        if task not in self._specs:
            self._specs[task] = self._connection.call("GET", f"/v1/tasks/{task}", None, TaskSpec)
        return self._specs[task]

    def _training(self, task: str, spec: TaskSpec) -> "Training | PlanTraining":
        if task not in self._trainings:
            self._trainings[task] = self._prove(spec)
        return self._trainings[task]

    def _prove(self, spec: TaskSpec) -> "Training | PlanTraining":
        if self._task is not None and self._task.name == spec.name:
            from shoal.agent.training import Training

            trees = (self._version(spec.initial, spec), self._fixed(spec), self._golden(spec))
            return Training(self._task, spec, trees, self._data, self._progress, self._settings, self._home.states)
        if spec.name in self._plans:
            return self._by_plan(spec)
        raise CodeMismatch(
            f"no code for task {spec.name!r} here", f"install it and name it with --code, or give --plan {spec.name}"
        )

    def _by_plan(self, spec: TaskSpec) -> "PlanTraining":
        from shoal.agent.plan_training import PlanTraining
        from shoal.plan.file import MOST_BYTES
        from shoal.plan.run import from_bytes

        if not spec.exported:
            raise PlanError(f"task {spec.name!r} was published without a plan", "install its code; name it with --code")
        plan = from_bytes(self._kept(spec.exported, MOST_BYTES).read_bytes())
        golden = self._golden(spec)
        local = {name: golden[f"local/{name}"] for name, array in spec.arrays.items() if array.role is Role.LOCAL}
        trees = (dict(self._fixed(spec)), local)
        return PlanTraining(plan, spec, trees, self._data, self._progress, self._settings, self._home.states)

    def _fixed(self, spec: TaskSpec) -> Tree:
        frozen = {name: array for name, array in spec.arrays.items() if array.role is Role.FROZEN}
        return open_tree(self._kept(spec.frozen, file_size(frozen)), frozen)

    def _golden(self, spec: TaskSpec) -> Tree:
        return FileTree(self._kept(spec.golden, 2 * file_size(spec.arrays) + GOLDEN_BYTES))

    def _version(self, digest: str, spec: TaskSpec) -> Tree:
        arrays = spec.travelling
        size = file_size(arrays)
        if size <= IN_MEMORY:
            return fetch_tree(self._connection, digest, arrays)
        path = self._home.version(digest) or self._home.keep_version(digest, self._fetched(digest, size))
        return open_tree(path, arrays)

    def _kept(self, digest: str, most: int) -> Path:
        return self._home.blob(digest) or self._home.keep_blob(digest, self._fetched(digest, most))

    def _fetched(self, digest: str, most: int) -> Fetch:
        return lambda start: self._connection.stream(digest, most, start)
