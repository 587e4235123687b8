"""What a user's loss and metrics are called with: (output, target), or (model, batch)."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from shoal.core.errors import TaskError

Batch: TypeAlias = Mapping[str, torch.Tensor]
Measure: TypeAlias = Callable[..., Any]
"""`f(output, target)` on batches of "x" and "y", or `f(model, batch)`: told apart by a first parameter `model`."""
USER_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError)
"""What torch and a user's model and loss raise on data that do not fit them."""

Objective: TypeAlias = Callable[[nn.Module, Batch], torch.Tensor]


def takes_model(measure: Measure) -> bool:
    """Whether the first parameter is called `model`; a builtin without a signature takes output and target."""
    try:
        return next(iter(inspect.signature(measure).parameters), "") == "model"
    except ValueError:
        return False


def objective(loss: Measure) -> Objective:
    """Return a loss of either form as a function of (model, batch)."""
    if takes_model(loss):
        return loss
    return lambda model, batch: loss(model(batch["x"]), batch["y"])


def check_batch(measures: Mapping[str, Measure], batch: Mapping[str, object]) -> None:
    """Raise TaskError for a measure of (output, target) when a batch has no "x" and "y"."""
    if {"x", "y"} <= batch.keys():
        return
    for name, measure in measures.items():
        if not takes_model(measure):
            raise TaskError(
                f"{name} takes (output, target), a batch has {sorted(batch)}",
                f'write {name}(model, batch), or name the arrays "x" and "y"',
            )


def measured(measures: Mapping[str, Measure], model: nn.Module, batch: Batch) -> dict[str, float]:
    """Return every measure of a batch; the model runs once for all those of (output, target)."""
    direct = {name: measure for name, measure in measures.items() if not takes_model(measure)}
    output = model(batch["x"]) if direct else None
    return {
        name: float(measure(output, batch["y"]) if name in direct else measure(model, batch))
        for name, measure in measures.items()
    }
