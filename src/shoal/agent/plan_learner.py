"""A task's plan at work on one device: no code of the task, no torch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from shoal.agent.examples import Layout
from shoal.agent.learner import Lesson, local_names, travelling
from shoal.agent.versions import Held, Trees
from shoal.core.errors import CodeMismatch, DataError, TaskError
from shoal.core.task import ArraySpec, LocalPlan
from shoal.core.tree import Array, Tree
from shoal.core.types import Update
from shoal.plan.client import Part, followed, staying_of, take_part
from shoal.plan.local import train
from shoal.plan.run import Plan, from_bytes
from shoal.plan.selftest import proved


class PlanLearner:
    """The model of a task that was published with a plan; there is none here before `prove` and `adopt`."""

    by_plan = True

    def __init__(self, name: str) -> None:
        self.name = name
        self._held: Held | None = None
        self._plan: Plan | None = None
        self._trees: Trees | None = None

    @property
    def ready(self) -> bool:
        """Whether a version was adopted."""
        return self._trees is not None

    def prove(self, held: Held, trees: Trees) -> None:
        """Find a runtime that computes the plan's golden step.

        Raises PlanError for a plan that is not of the task, RuntimeMismatch, and CodeMismatch for a task whose
        examples are not like those that this device keeps.
        """
        if self._plan is not None and self._held is not None and self._held.spec.exported == held.spec.exported:
            self._held = held
            return
        plan = from_bytes(trees.exported)
        plan.check_arrays(held.spec.arrays)
        followed(held.spec)
        if self._plan is not None and _layout(plan) != _layout(self._plan):
            raise CodeMismatch(f"task {held.task!r} takes other examples than are kept here", "join with another home")
        self._plan, self._held = proved(plan), held

    def adopt(self, trees: Trees) -> None:
        """Go on from a version of the task that was proved last."""
        self._trees = trees

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """Every array of the model."""
        return self._known.spec.arrays

    @property
    def layout(self) -> Layout:
        """What one example is like."""
        return _layout(self._ready)

    @property
    def personal_plan(self) -> LocalPlan:
        """The plan by which the personal model is trained."""
        return replace(self._known.spec.local, start="personal")

    @property
    def version(self) -> Tree:
        """The travelling arrays of the newest version."""
        return {name: self._adopted.version[name] for name in travelling(self.arrays)}

    @property
    def fixed(self) -> Tree:
        """The arrays that are fixed for the adopted task."""
        return self._adopted.frozen

    @property
    def local(self) -> tuple[str, ...]:
        """The names of the arrays that never leave the device."""
        return local_names(self.arrays)

    def measure(self, version: Tree, frozen: Tree, local: Tree, rows: Mapping[str, Array]) -> dict[str, float]:
        """Return the loss and the task's metrics over rows, {} where they are fewer than the plan takes at once."""
        golden = {} if self._trees is None else self._beginning
        return self._ready.evaluate({**golden, **frozen, **version, **local}, rows)[0]

    def loss(self, own: Tree, rows: Mapping[str, Array]) -> float | None:
        """Return the loss over rows of the newest version with the device's own arrays in it, None as above."""
        return self._ready.evaluate(self._whole(own), rows)[0].get("loss")

    def numbers(self, value: Any) -> Array:
        """Return what the app gave as an array. Raises DataError."""
        found = np.asarray(value)
        if found.dtype.kind not in "fiub":
            raise DataError(f"data of dtype {found.dtype}", "give numbers or truth values")
        return found

    def predict(self, own: Tree, x: Any) -> Array:
        """Return the model's output for one example or several, as [rows, ...]; a mapping gives several arrays."""
        plan = self._ready
        takes = [name.removeprefix("batch/") for name in plan.inputs("predict") if name.startswith("batch/")]
        given = x if isinstance(x, Mapping) else dict.fromkeys(takes[:1], x)
        if given.keys() != set(takes):
            raise TaskError(f"a prediction from {sorted(given)}", f"the model takes {takes}")
        rows = {name: self.layout.cast(name, self.numbers(value)) for name, value in given.items()}
        output = plan.predict(self._whole(own), rows)
        return np.asarray(output[0] if isinstance(output, tuple) else output)

    def personalise(self, own: Tree, plan: LocalPlan, lesson: Lesson, progress: Callable[[], None]) -> Tree:
        """Train the personal model `own` and return it; a proximal plan pulls it to the newest version.

        Raises NoRows for fewer rows than the plan takes at once.
        """
        version, staying = self._whole({}), staying_of(self.arrays, plan)
        begun = {**version, **{name: own[name] for name in staying if name in own}}
        after = train(self._ready, begun, lesson.rows, plan, lesson.seed, version, progress)
        return {name: after.arrays[name] for name in staying}

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
        """Train for a round, by the task's rule if it has one; return the update and all that the device keeps.

        Raises NoRows for fewer rows than the plan takes at once.
        """
        version = {**self._beginning, **self.fixed, **params, **{name: own[name] for name in self.local if name in own}}
        part = Part(lesson.rows, own, lesson.seed, round, lesson.assignment)
        return take_part(self._ready, self.arrays, plan, version, shared, part, progress)

    def _whole(self, own: Tree) -> dict[str, Array]:
        return {**self._beginning, **self.fixed, **self._adopted.version, **own}

    @property
    def _beginning(self) -> Tree:
        """How the arrays begin that stay on the device."""
        return {name: self._adopted.golden[f"local/{name}"] for name in self.local}

    @property
    def _known(self) -> Held:
        return self._held if self._held is not None else self._nothing()

    @property
    def _adopted(self) -> Trees:
        return self._trees if self._trees is not None else self._nothing()

    @property
    def _ready(self) -> Plan:
        return self._plan if self._plan is not None else self._nothing()

    def _nothing(self) -> Any:
        raise TaskError(f"nothing of task {self.name!r} is here yet", "publish it with a plan, then call sync()")


def _layout(plan: Plan) -> Layout:
    return Layout({entry.name: (entry.shape, np.dtype(entry.dtype)) for entry in plan.manifest.batch})
