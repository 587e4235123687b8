"""The owner's code at work for one task. Imports torch, so it is imported when the first training task comes."""

from collections.abc import Callable

from shoal.agent.data import OwnerData
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree
from shoal.core.types import Assignment, Update
from shoal.train.data import ClientData
from shoal.train.golden import section
from shoal.train.loop import LoopTrainer
from shoal.train.task import Task, check_code


class Training:
    """Code that was proved to be a task's model, with the data in the task's dtypes.

    Raises CodeMismatch when it is another model, DataError when the data does not fit.
    """

    def __init__(
        self,
        task: Task,
        spec: TaskSpec,
        trees: tuple[Tree, Tree, Tree],
        data: OwnerData,
        progress: Callable[[], None],
    ) -> None:
        initial, self._frozen, golden = trees
        check_code(task, spec, initial, self._frozen, golden)
        self._plan = spec.local
        self._examples = data.examples(section(golden, "batch"))
        self._trainer = LoopTrainer(task, progress)

    def train(self, assignment: Assignment, params: Tree) -> Update:
        """Train from a version's arrays on all rows."""
        client = ClientData(assignment.device, self._examples, assignment.id, assignment.seed)
        (update,) = self._trainer.train({**self._frozen, **params}, self._plan, [client])
        return update
