"""Using torch.optim without the import of torch._dynamo, which costs 2.2 CPU seconds a process (torch 2.13).

Two wrappers import it, although nothing is compiled: that around `Optimizer.step` at every call, and that of
`torch._disable_dynamo` around `add_param_group`, which constructors call. The class's own step lies beneath the first;
the second calls an attribute of the function it wraps, and imports only where that is missing. Should a later torch
differ, both functions here fall back to torch's own behaviour: slower to start, the same results.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_MARK = "__dynamo_disable"


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
