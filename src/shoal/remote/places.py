"""Which worker makes a tensor that comes from no other, as in `torch.zeros(3, device="remote")`.

The innermost of `with worker.here():`, of the modules that are being computed and of the optimizers at work; else the
worker that this thread last sent an operator to, which is how gradients find theirs: autograd has threads of its own.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoal.core.errors import NotRecordable, WrongPlace

if TYPE_CHECKING:
    from shoal.remote.worker import Worker


class _Places(threading.local):
    def __init__(self) -> None:
        self.inside: list[Worker | None] = []
        self.last: Worker | None = None
        self.recorded: Worker | None = None


_places = _Places()


@contextmanager
def at(worker: "Worker") -> Iterator[None]:
    """Let tensors that come from no other be made at this worker."""
    enter(worker)
    try:
        yield
    finally:
        leave()


def enter(worker: "Worker | None") -> None:
    """Begin to make them at this worker; None changes nothing until `leave`."""
    _places.inside.append(worker)


def leave() -> None:
    """End what the last `enter` began."""
    _places.inside.pop()


@contextmanager
def recorded_at(worker: "Worker") -> Iterator[None]:
    """Let this thread work at one worker only, while a function is recorded there."""
    before, _places.recorded = _places.recorded, worker
    try:
        yield
    finally:
        _places.recorded = before


def noted(worker: "Worker") -> "Worker":
    """Remember the worker that something goes to. Raises NotRecordable for a second one in a recording."""
    _places.last = worker
    recorded = _places.recorded
    if recorded is not None and recorded is not worker:
        raise NotRecordable(
            f"{recorded.session.recording.line()}: work at {worker.name!r} in a function recorded at {recorded.name!r}",
            "record a function for each worker",
        )
    return worker


def current() -> "Worker":
    """Return the worker that makes a tensor now. Raises WrongPlace where there is none."""
    inside = next((worker for worker in reversed(_places.inside) if worker is not None), _places.last)
    if inside is None:
        raise WrongPlace('a tensor on device "remote", but at which worker?', "make it inside `with worker.here():`")
    return inside
