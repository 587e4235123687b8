"""One training step of C clients at once: torch.func.vmap over stacked arrays, in place.

The step is a function of a flat list of tensors, so that it can be traced once and replayed (`train.graph`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from shoal.train.functional import Arrays, StackedOptimizer, clipped
from shoal.train.objective import Batch, Objective
from shoal.train.packing import Which, by_column
from shoal.train.startup import light_calls

Step: TypeAlias = Callable[..., torch.Tensor]
"""Flat operands -> losses [C]; moves the trained arrays, the optimizer's state and the buffers in place."""


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """What a step reads and moves. All are [C, ...] but `fixed` and `anchors`, which are the same for all clients.

    `anchors` are where the proximal term pulls to, one for each trained array, or none. `corrections` are added to the
    gradients, one for each trained array, or none.
    """

    trained: Arrays
    state: list[Arrays]
    buffers: Arrays
    anchors: Arrays
    fixed: Arrays
    corrections: Arrays = field(default_factory=list[torch.Tensor])
    batch: Arrays = field(default_factory=list[torch.Tensor])
    factors: Arrays = field(default_factory=list[torch.Tensor])

    def flat(self) -> Arrays:
        """Return all tensors in one list."""
        slots = [array for arrays in self.state for array in arrays]
        return [
            *self.trained,
            *slots,
            *self.buffers,
            *self.anchors,
            *self.fixed,
            *self.corrections,
            *self.batch,
            *self.factors,
        ]

    def given(self, batch: Arrays, factors: Arrays) -> "Operands":
        """Return the operands of all clients with a batch."""
        return replace(self, batch=batch, factors=factors)

    def at(self, which: Which, batch: Arrays, factors: Arrays) -> "Operands":
        """Return the operands of some clients: views where `which` is a range, copies where it is positions."""
        return Operands(
            [array[which] for array in self.trained],
            [[array[which] for array in arrays] for arrays in self.state],
            [array[which] for array in self.buffers],
            self.anchors,
            self.fixed,
            [array[which] for array in self.corrections],
            batch,
            factors,
        )

    def moved(self) -> Arrays:
        """Return all that a step moves."""
        return [*self.trained, *(array for arrays in self.state for array in arrays), *self.buffers]

    def put_back(self, which: Which, values: Arrays) -> None:
        """Write copies of what a step moves to the places of these clients."""
        for array, copy in zip(self.moved(), values, strict=True):
            array[which] = copy


@dataclass(frozen=True, slots=True, eq=False)
class StepMaker:
    """Makes the step of a model, a loss and an optimizer. Names are those of the model's arrays, in operand order."""

    model: nn.Module
    objective: Objective
    optimizer: StackedOptimizer
    trained: Sequence[str]
    buffers: Sequence[str]
    fixed: Sequence[str]
    columns: Sequence[str]
    proximal: float = 0.0
    pulled: frozenset[str] = frozenset()
    corrected: bool = False
    clip: float | None = None

    def eager(self) -> Step:
        """Return the step as it runs without tracing."""
        measured = _Measured(self.model, self.objective)

        def loss_of(trained: Arrays, buffers: Arrays, fixed: Arrays, batch: Arrays) -> tuple[torch.Tensor, Arrays]:
            # modules move buffers in place, which must not reach through to the arrays that were passed in
            moved = [buffer.clone() for buffer in buffers]
            arrays = self._named(trained, moved, fixed)
            return functional_call(measured, arrays, (by_column(self.columns, batch),)), moved

        every = vmap(grad_and_value(loss_of, has_aux=True), in_dims=(0, 0, None, 0), randomness="different")

        def step(*flat: torch.Tensor) -> torch.Tensor:
            of = self._unflatten(flat)
            with light_calls():
                grads, (losses, moved) = every(of.trained, of.buffers, of.fixed, of.batch)
            with torch.no_grad():
                self.optimizer.update(of.trained, self._added(grads, of), of.state, of.factors)
                for buffer, values in zip(of.buffers, moved, strict=True):
                    buffer.copy_(values)
            return losses  # type: ignore[no-any-return]

        return step

    def _named(self, trained: Arrays, buffers: Arrays, fixed: Arrays) -> dict[str, torch.Tensor]:
        names = [*self.trained, *self.buffers, *self.fixed]
        return {f"model.{name}": array for name, array in zip(names, [*trained, *buffers, *fixed], strict=True)}

    def _added(self, grads: Arrays, of: Operands) -> Arrays:
        if of.anchors:
            grads = [
                grad.add(array - anchor, alpha=self.proximal) if name in self.pulled else grad
                for name, grad, array, anchor in zip(self.trained, grads, of.trained, of.anchors, strict=True)
            ]
        if of.corrections:
            grads = [grad + correction for grad, correction in zip(grads, of.corrections, strict=True)]
        return grads if self.clip is None else clipped(grads, self.clip)

    def _unflatten(self, flat: Sequence[torch.Tensor]) -> Operands:
        rest = list(flat)

        def take(count: int) -> Arrays:
            taken, rest[:] = rest[:count], rest[count:]
            return taken

        trained = take(len(self.trained))
        state = [take(len(self.trained)) for _ in range(self.optimizer.slots)]
        buffers = take(len(self.buffers))
        anchors = take(len(self.trained) if self.proximal else 0)
        fixed = take(len(self.fixed))
        corrections = take(len(self.trained) if self.corrected else 0)
        return Operands(trained, state, buffers, anchors, fixed, corrections, take(len(self.columns)), rest)


class _Measured(nn.Module):
    """A model with its loss as one module, so that functional_call reaches the model inside the loss."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = objective

    def forward(self, batch: Batch) -> torch.Tensor:
        return self._objective(self.model, batch)
