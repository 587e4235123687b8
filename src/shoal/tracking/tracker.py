"""Who takes note of a run elsewhere: one small interface, which MLflow and TensorBoard fill, and a class of yours."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from shoal.core.manifest import spec_digest
from shoal.core.task import TaskSpec

Status: TypeAlias = Literal["finished", "failed", "stopped"]
"""How a run ended: to its end, by an error, or by whoever followed it (Ctrl-C)."""

Value: TypeAlias = str | int | float | bool


@runtime_checkable
class Tracker(Protocol):
    """Is told of a run as it happens. What a tracker raises ends the run, or the following of it."""

    def begin(self, name: str, params: Mapping[str, Value]) -> None:
        """Take note of a run that begins: its task's name, and what it is made of."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take note of a round's numbers."""
        ...

    def end(self, status: Status) -> None:
        """Take note of how it ended; nothing follows."""
        ...


def params(spec: TaskSpec) -> dict[str, Value]:
    """Return what a run is made of, flat: its task's digest, seed, rounds, strategy and local plan."""
    plan = spec.local
    return {
        "task": spec.name,
        "task_digest": spec_digest(spec),
        "seed": spec.seed,
        "rounds": spec.rounds,
        "goal": spec.plan.goal,
        "aggregator": spec.aggregator.name,
        **{f"aggregator.{name}": value for name, value in _plain(spec.aggregator.options)},
        "server": spec.server.name,
        **{f"server.{name}": value for name, value in _plain(spec.server.options)},
        "local.epochs": plan.epochs,
        "local.batch_size": plan.batch_size,
        "local.optimizer": plan.optimizer.name,
        **{f"local.{name}": value for name, value in _plain(plan.optimizer.options)},
    }


def _plain(options: Mapping[str, object]) -> Iterator[tuple[str, Value]]:
    for name, value in options.items():
        yield name, value if isinstance(value, str | int | float | bool) else str(value)


class Noted:
    """A run that is tracked: `log` passes a round's row on."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(self, row: Mapping[str, object]) -> None:
        """Pass on the numbers of a row, by column; its texts stay here."""
        numbers = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
        step = int(numbers.pop("round"))
        for tracker in self._trackers:
            tracker.log(step, numbers)


@contextmanager
def noting(trackers: Sequence[Tracker], spec: TaskSpec) -> Iterator[Noted]:
    """Begin all trackers, and end those that began, whatever happens."""
    with ExitStack() as ending:
        for tracker in trackers:
            tracker.begin(spec.name, params(spec))
            ending.enter_context(_ended(tracker))
        yield Noted(trackers)


@contextmanager
def _ended(tracker: Tracker) -> Iterator[None]:
    try:
        yield
    except Exception:
        tracker.end("failed")
        raise
    except BaseException:  # Ctrl-C
        tracker.end("stopped")
        raise
    tracker.end("finished")
