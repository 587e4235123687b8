"""The owner's code at work for one task. Imports torch, so it is imported when the first training task comes."""

from collections.abc import Callable
from dataclasses import replace

from shoal.agent.client_state import ClientStates
from shoal.agent.data import OwnerData
from shoal.agent.policy import Policy
from shoal.agent.settings import LocalSettings
from shoal.agent.work import HOLDOUT
from shoal.core.manifest import data_digest
from shoal.core.origin import Origin
from shoal.core.schema import check_rows
from shoal.core.seeds import derive, permutation
from shoal.core.task import TaskSpec
from shoal.core.tree import Layered, Tree
from shoal.core.types import Assignment, Update
from shoal.train.client import ClientTrainer
from shoal.train.data import ClientData
from shoal.train.device import torch_device
from shoal.train.evaluate import evaluate
from shoal.train.golden import section
from shoal.train.provenance import code_digest, environment
from shoal.train.task import Task, check_code


class Training:
    """Code that was proved to be a task's model, with the data in the task's dtypes.

    `settings` may keep rows out of training; which ones follows from the device's name, so it is the same ones in
    every round and after every start. Raises CodeMismatch when it is another model, DataError (SchemaMismatch) when the
    data does not fit, ConfigurationError for a device that torch lacks.
    """

    def __init__(
        self,
        task: Task,
        spec: TaskSpec,
        trees: tuple[Tree, Tree, Tree],
        data: OwnerData,
        progress: Callable[[], None],
        settings: LocalSettings,
        states: ClientStates,
    ) -> None:
        initial, self._frozen, golden = trees
        check_code(task, spec, initial, self._frozen, golden)
        self._task = task
        self._spec = spec
        self._examples = data.examples(section(golden, "batch"))
        check_rows(spec.schema, self._examples, data.names)
        self._held = settings.held(data.rows)
        self._rows = data.rows
        self._states = states
        self._trainer = ClientTrainer(task, progress, torch_device(settings.device), self._frozen)

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
        client = ClientData(assignment.device, rows, assignment.id, assignment.seed)
        measured = self._evaluated(assignment.device, params, held, own) if self._held else {}
        update, kept = self._trainer.train(params, shared, self._spec.local, assignment.round, client, own)
        if kept:
            self._states.propose(assignment.task, kept, assignment.id)
        return replace(
            update, metrics={**update.metrics, **{f"{HOLDOUT}{name}": value for name, value in measured.items()}}
        )

    def measure(self, task: str, device: str, params: Tree) -> dict[str, float]:
        """Return the loss and the task's metrics of a version on the rows that are kept out of training."""
        return self._evaluated(device, params, self._split(device)[0], self._states.of(task))

    def _split(self, device: str) -> tuple[Tree, Tree]:
        if not self._held:
            return {}, self._examples
        order = permutation(derive(0, device, "holdout"), self._rows)
        held, kept = order[: self._held], order[self._held :]
        arrays = self._examples.items()
        return {name: array[held] for name, array in arrays}, {name: array[kept] for name, array in arrays}

    def _evaluated(self, device: str, params: Tree, held: Tree, own: Tree) -> dict[str, float]:
        whole = Layered(self._trainer.local(own), params, self._frozen)
        return evaluate(self._task, whole, ClientData(device, held))

    def origin(self, policy: Policy) -> Origin | None:
        """Return what the owner's policy lets be known of this code, these rows and this machine, or None."""
        if not policy.versions:
            return None
        data = data_digest(self._spec, self._examples) if policy.data_digest else ""
        return Origin(code_digest(self._task), "loop", data, environment())
