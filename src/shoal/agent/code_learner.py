"""The app's own code at work on one device, in torch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from shoal.agent.examples import Layout
from shoal.agent.learner import Lesson, local_names, travelling
from shoal.agent.versions import Held, Trees
from shoal.algorithms import registry
from shoal.core.errors import ConfigurationError, TaskError
from shoal.core.task import LocalPlan
from shoal.core.tree import Array, Tree
from shoal.core.types import Update
from shoal.train.arrays import read_arrays, tensor
from shoal.train.client import ClientTrainer
from shoal.train.data import ClientData, array, columns
from shoal.train.evaluate import evaluate, load_model
from shoal.train.loop import LoopTrainer
from shoal.train.objective import USER_ERRORS
from shoal.train.task import Task, check_code


class CodeLearner:
    """A task's model, loss and plan. Raises ConfigurationError for a task without an example."""

    by_plan = False
    ready = True

    def __init__(self, task: Task) -> None:
        if task.example is None:
            raise ConfigurationError(
                f"task {task.name!r} has no example",
                "give one batch, as when it is published: Task(..., example=(x, y))",
            )
        self._task = task
        self.name = task.name
        self.arrays = task.arrays
        self.layout = Layout.like(columns(task.example))
        self._own = read_arrays(task.model, self.arrays)
        self._fixed: Tree = {}
        self._version: Tree = self._own
        self._loaded: tuple[tuple[Tree, ...], nn.Module] | None = None

    def prove(self, held: Held, trees: Trees) -> None:
        """Prove by the golden step that the app's code is the task's. Raises CodeMismatch."""
        check_code(self._task, held.spec, trees.initial, trees.frozen, trees.golden)

    def adopt(self, trees: Trees) -> None:
        """Go on from a version of the task that the code was proved for."""
        self._fixed = trees.frozen
        self._version = trees.version

    def measure(self, version: Tree, frozen: Tree, local: Tree, rows: Mapping[str, Array]) -> dict[str, float]:
        """Return the loss and the task's metrics over rows, of a version that need not be the adopted one."""
        whole = {**self._own, **frozen, **version, **local}
        return evaluate(self._task, whole, ClientData("held out", rows))

    @property
    def fixed(self) -> Tree:
        """The arrays that are fixed for the adopted task."""
        return self._fixed

    @property
    def local(self) -> tuple[str, ...]:
        """The names of the arrays that never leave the device."""
        return local_names(self.arrays)

    def whole(self, own: Tree) -> dict[str, Array]:
        """Return every array of a model: `own` ones, and for the rest those of the newest version and the task."""
        return {**self._own, **self._fixed, **self._version, **own}

    def loss(self, own: Tree, rows: Mapping[str, Array]) -> float | None:
        """Return the task's loss over rows, of the model that `whole` gives."""
        return evaluate(self._task, self.whole(own), ClientData("held out", rows))["loss"]

    def numbers(self, value: Any) -> Array:
        """Return an array or a tensor as an array. Raises DataError."""
        return array(value)

    def predict(self, own: Tree, x: Any) -> Array:
        """Return the model's output for one example or several, as [rows, ...]; a mapping gives keyword arguments."""
        named = {name: array(value) for name, value in x.items()} if isinstance(x, Mapping) else {"x": array(x)}
        if not named or not named.keys() <= self.layout.rows.keys():
            raise TaskError(f"a prediction from {sorted(named)}", f"an example has {sorted(self.layout.rows)}")
        tensors = {name: tensor(self.layout.cast(name, value)) for name, value in named.items()}
        model = self._model(own)
        try:
            with torch.no_grad():
                output = model(**tensors) if isinstance(x, Mapping) else model(tensors["x"])
        except USER_ERRORS as error:
            raise TaskError(f"the model cannot predict: {error}", "give what its forward takes") from error
        return array(output)

    def _model(self, own: Tree) -> nn.Module:
        """Return the model that `whole` describes, the same one until another is asked for."""
        trees, loaded = (own, self._version, self._fixed), self._loaded
        if loaded is None or any(a is not b for a, b in zip(loaded[0], trees, strict=True)):
            loaded = self._loaded = (trees, load_model(self._task, self.whole(own)))
        return loaded[1]

    def personalise(self, own: Tree, plan: LocalPlan, lesson: Lesson, progress: Callable[[], None]) -> Tree:
        """Train the personal model `own` and return it; a proximal plan pulls it to the newest version.

        `progress` is called after every batch and may end the training by raising.
        """
        trainer = LoopTrainer(self._task, progress)
        trainer.personal[lesson.name] = own
        for _ in trainer.train({**self._fixed, **self.version}, plan, [_client(lesson)]):
            pass
        return trainer.personal[lesson.name]

    @property
    def personal_plan(self) -> LocalPlan:
        """The plan by which the personal model is trained: the strategy's own where it has one, as Ditto does."""
        plan = self._task.plan
        rule = registry.local_rule(plan)
        own = None if rule is None else rule.companion(plan)
        return own or replace(plan, start="personal")

    def take_part(
        self,
        params: Tree,
        shared: Tree,
        own: Tree,
        plan: LocalPlan,
        round: int,
        lesson: Lesson,
        progress: Callable[[], None],
    ) -> tuple[Update, Tree]:
        """Train for a round, by the task's rule if it has one; return the update and all that the device keeps."""
        trainer = ClientTrainer(self._task, progress, fixed=self._fixed)
        return trainer.train(params, shared, plan, round, _client(lesson), own)

    @property
    def version(self) -> Tree:
        """The travelling arrays of the newest version, or the task's own before there is one."""
        return {name: self._version[name] for name in travelling(self.arrays)}


def _client(lesson: Lesson) -> ClientData:
    return ClientData(lesson.name, lesson.rows, lesson.assignment, lesson.seed)
