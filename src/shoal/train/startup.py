"""Using torch.optim and torch.func without the import of torch._dynamo, 2.2 CPU seconds a process (torch 2.13).

Two wrappers import it, although nothing is compiled: that around `Optimizer.step` at every call, and that of
`torch._disable_dynamo` around `add_param_group`, which constructors call, and around decompositions. The class's own
step lies beneath the first; the second calls an attribute of the function it wraps, and imports only where that is
missing. torch.func asks it to disable compiled gradients, which nobody can have enabled before it was imported. Should
a later torch differ, all functions here fall back to torch's own behaviour: slower to start, the same results.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

_MARK = "__dynamo_disable"
_DYNAMO = "torch._dynamo"


@contextmanager
def light_construction() -> Iterator[None]:
    """Let torch.optim constructors run without torch._dynamo; torch is as before afterwards."""
    method = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    if "torch._dynamo" in sys.modules or _MARK in vars(method):
        yield
        return
    setattr(method, _MARK, method)
    try:
        yield
    finally:
        vars(method).pop(_MARK, None)


def light_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """Return the step of a torch.optim optimizer without its wrappers and hooks; call it under `torch.no_grad()`."""
    step = inspect.unwrap(type(optimizer).step)
    return lambda: step(optimizer)


class _NotImported(ModuleType):
    """Stands in for torch._dynamo while nobody has imported it; whatever else is asked of it imports it."""

    __spec__ = None

    class compiled_autograd:  # noqa: N801  (torch's name)
        @staticmethod
        def _disable() -> AbstractContextManager[None]:
            return nullcontext()

    def __init__(self) -> None:
        super().__init__(_DYNAMO)
        self.told: list[Any] = []

    def disable(self, function: Any, *_: Any, **__: Any) -> Any:
        self.told.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        self.withdraw()
        return getattr(import_module(_DYNAMO), name)

    def withdraw(self) -> None:
        """Let torch be as before: forget also what it noted on functions that it asked to be left alone."""
        if sys.modules.get(_DYNAMO) is self:
            del sys.modules[_DYNAMO]
            vars(torch).pop("_dynamo", None)
        while self.told:
            vars(self.told.pop()).pop(_MARK, None)


@contextmanager
def light_calls() -> Iterator[None]:
    """Let torch.func and torch's decompositions run without torch._dynamo; torch is as before afterwards."""
    if _DYNAMO in sys.modules:
        yield
        return
    stand_in = _NotImported()
    vars(torch)["_dynamo"] = sys.modules[_DYNAMO] = stand_in
    try:
        yield
    finally:
        stand_in.withdraw()
