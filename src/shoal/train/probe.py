"""Trying a model and its loss on one batch, before anything is published."""

import math

import torch
from torch import nn

from shoal.core.errors import BroadcastingLoss, NotFinite, TaskError
from shoal.train.objective import USER_ERRORS, Batch, Measure, check_batch, objective, takes_model
from shoal.train.randomness import seeded


def probe(model: nn.Module, loss: Measure, batch: Batch) -> None:
    """Run a batch through a model and its loss, in training mode.

    Raises TaskError when the model does not take the batch or the loss is no scalar that depends on the model,
    BroadcastingLoss when output and target would broadcast, NotFinite for a loss of NaN or infinity.
    """
    check_batch({"loss": loss}, batch)
    model.train()
    try:
        with seeded(0):
            if not takes_model(loss):
                check_shapes(model(batch["x"]), batch["y"])
            value = objective(loss)(model, batch)
    except USER_ERRORS as error:
        shapes = {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in batch.items()}
        raise TaskError(
            f"model and loss do not run on the example {shapes}: {error}", "correct the model, or give another example"
        ) from error
    _check_value(value)


def check_shapes(output: object, target: torch.Tensor) -> None:
    """Refuse an output and a target of different shapes, which a loss would broadcast or misread.

    Class indices (an integer target without the class axis) are meant to differ.
    """
    if not isinstance(output, torch.Tensor) or output.shape == target.shape:
        return
    one_short = output.dim() == target.dim() + 1 and output.shape[:1] + output.shape[2:] == target.shape
    if not target.dtype.is_floating_point and not (one_short and output.shape[1] == 1):
        return
    raise BroadcastingLoss(
        f"the model's output has shape {tuple(output.shape)}, the target {tuple(target.shape)}",
        f"{_reshape(output, target)}or give the target shape {tuple(output.shape)}; "
        "a loss that means it is written loss(model, batch)",
    )


def _reshape(output: torch.Tensor, target: torch.Tensor) -> str:
    if output.shape == (*target.shape, 1):
        return "add .squeeze(-1) to the model "
    if target.shape == (*output.shape, 1):
        return "add .unsqueeze(-1) to the model "
    return "change the model's output "


def _check_value(value: object) -> None:
    if not isinstance(value, torch.Tensor) or value.dim() != 0:
        found = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise TaskError(f"the loss is no scalar tensor but {found}", "reduce it, for example with .mean()")
    if not math.isfinite(value.item()):
        raise NotFinite(
            f"the loss on the example is {value.item()}", "check the example and the model's initial values"
        )
    if not value.requires_grad:
        raise TaskError("the loss does not depend on any trainable array", "compute it from the model's output")
