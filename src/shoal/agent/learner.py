"""What a `Device` asks of whoever carries out its task: the app's own code in torch, or the task's plan without."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shoal.agent.examples import Layout
from shoal.agent.versions import Held, Trees
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, LocalPlan
from shoal.core.tree import Array, Tree
from shoal.core.types import Update


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """The examples that one training is over; `assignment` is empty where none asked for it."""

    name: str
    rows: Mapping[str, Array]
    seed: int
    assignment: str = ""


class Learner(Protocol):
    """A task's model at work on one device: prove it, measure, predict, train."""

    by_plan: bool
    """Whether it takes the task's plan from the coordinator."""

    @property
    def name(self) -> str:
        """The task's name."""
        ...

    @property
    def ready(self) -> bool:
        """Whether there is a model; all properties below need it."""
        ...

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """Every array of the model."""
        ...

    @property
    def layout(self) -> Layout:
        """What one example is like."""
        ...

    @property
    def personal_plan(self) -> LocalPlan:
        """The plan by which the personal model is trained: the strategy's own where it has one, as Ditto does."""
        ...

    @property
    def version(self) -> Tree:
        """The travelling arrays of the newest version, or the task's own before there is one."""
        ...

    @property
    def fixed(self) -> Tree:
        """The arrays that are fixed for the adopted task."""
        ...

    @property
    def local(self) -> tuple[str, ...]:
        """The names of the arrays that never leave the device."""
        ...

    def prove(self, held: Held, trees: Trees) -> None:
        """Prove by a golden step that what is here is the task's. Raises CodeMismatch and other TaskErrors."""
        ...

    def adopt(self, trees: Trees) -> None:
        """Go on from a version of the task that was proved last."""
        ...

    def measure(self, version: Tree, frozen: Tree, local: Tree, rows: Mapping[str, Array]) -> dict[str, float]:
        """Return the loss and the task's metrics over rows, of a version that need not be the adopted one.

        {} where the rows are too few to be measured.
        """
        ...

    def loss(self, own: Tree, rows: Mapping[str, Array]) -> float | None:
        """Return the loss over rows of the newest version with the device's own arrays in it, None as above."""
        ...

    def predict(self, own: Tree, x: Any) -> Array:
        """Return the model's output for one example or several, as [rows, ...]; a mapping gives several arrays."""
        ...

    def numbers(self, value: Any) -> Array:
        """Return what the app gave as an array. Raises DataError."""
        ...

    def personalise(self, own: Tree, plan: LocalPlan, lesson: Lesson, progress: Callable[[], None]) -> Tree:
        """Train the personal model `own` and return it; a proximal plan pulls it to the newest version.

        `progress` is called after every batch and may end the training by raising.
        """
        ...

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
        ...


def local_names(arrays: Mapping[str, ArraySpec]) -> tuple[str, ...]:
    """Return the names of arrays that stay on a device."""
    return tuple(name for name, spec in arrays.items() if spec.role is Role.LOCAL)


def travelling(arrays: Mapping[str, ArraySpec]) -> tuple[str, ...]:
    """Return the names of arrays that are part of every version."""
    return tuple(name for name, spec in arrays.items() if spec.role.travels)
