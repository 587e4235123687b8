"""Optimizers whose parameters were sent: their state follows, and in a recording it lives at the worker whole.

torch.optim calls a hook before each step. There the state goes to where its parameters are. Outside a recording an
optimizer keeps its form, so that results are those of local torch bit by bit; in one, Adam and its like count their
steps in a tensor at the worker (`fused` or `capturable`): a count kept here would be fixed for ever.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from shoal.remote.places import enter, leave
from shoal.remote.tensor import RemoteTensor, wrapped

if TYPE_CHECKING:
    from shoal.remote.worker import Worker

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
"""Those with a fused kernel whose count of steps is a tensor."""

_followed: "weakref.WeakKeyDictionary[Optimizer, list[dict[str, Any]]]" = weakref.WeakKeyDictionary()
"""Optimizers with state at a worker, and the forms that their groups had before."""


@dataclass(frozen=True, slots=True)
class Settings:
    """An optimizer's numbers as they were when it was recorded."""

    optimizer: "weakref.ref[Optimizer]"
    groups: list[dict[str, Any]]

    def same(self) -> bool:
        """Whether they still are."""
        optimizer = self.optimizer()
        return optimizer is not None and self.groups == _numbers(optimizer)


def settings_of(optimizer: Optimizer) -> Settings:
    """Return an optimizer's numbers."""
    return Settings(weakref.ref(optimizer), _numbers(optimizer))


def _numbers(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def _before(optimizer: Optimizer, *_: Any) -> None:
    first = optimizer.param_groups[0]["params"][0]
    if type(first) is not RemoteTensor:
        if optimizer in _followed:
            _bring_back(optimizer)
        return
    worker = first.location
    if optimizer not in _followed:
        _followed[optimizer] = _forms(optimizer)
        _move_state(optimizer)
    if worker.session.recording is not None:
        _keep_all_there(optimizer)
        worker.session.recording.settings.append(settings_of(optimizer))
        worker.session.recording.optimizing = True
    enter(worker)


def _after(optimizer: Optimizer, *_: Any) -> None:
    if optimizer in _followed:
        recording = optimizer.param_groups[0]["params"][0].location.session.recording
        if recording is not None:
            recording.optimizing = False
        leave()


def _forms(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [
        {name: group[name] for name in ("fused", "capturable") if name in group} for group in optimizer.param_groups
    ]


def _tensors(optimizer: Optimizer) -> Iterator[tuple[Any, dict[str, Any], str, torch.Tensor]]:
    for parameter, state in optimizer.state.items():
        for name, value in list(state.items()):
            if isinstance(value, torch.Tensor):
                yield parameter, state, name, value


def _move_state(optimizer: Optimizer) -> None:
    for parameter, state, name, value in _tensors(optimizer):
        if value.dim() and type(value) is not RemoteTensor:
            state[name] = _sent(parameter.location, value)


def _keep_all_there(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if isinstance(optimizer, FUSED):
            group["fused"] = True
        elif "capturable" in group:
            group["capturable"] = True
    for parameter, state, name, value in _tensors(optimizer):
        if type(value) is not RemoteTensor:
            state[name] = _sent(parameter.location, value)


def _sent(worker: "Worker", value: torch.Tensor) -> RemoteTensor:
    """Send a state beside a recording: it is there before the recorded function begins, as it were."""
    recording, worker.session.recording = worker.session.recording, None
    try:
        return wrapped(worker, value)
    finally:
        worker.session.recording = recording


def _bring_back(optimizer: Optimizer) -> None:
    for group, form in zip(optimizer.param_groups, _followed[optimizer], strict=False):
        group.update(form)
    for _, state, name, value in _tensors(optimizer):
        if isinstance(value, RemoteTensor):
            state[name] = value.get()
    del _followed[optimizer]


@cache
def follow() -> None:
    """From now on, take the state of optimizers to where their parameters are."""
    register_optimizer_step_pre_hook(_before)
    register_optimizer_step_post_hook(_after)
