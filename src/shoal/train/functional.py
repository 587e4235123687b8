"""torch.optim's SGD, Adam and AdamW for many clients at once: every array has a leading axis of clients.

The same operations in the same order as torch.optim's own loops, on stacked arrays and in place, so that a slice of
the clients can take a step by itself. What depends on how many steps a client has taken (bias corrections, the first
momentum) is one number a client, computed outside in double precision: clients may have taken different numbers.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch

from shoal.core.errors import ConfigurationError
from shoal.core.task import OptimizerSpec
from shoal.train.optimizer import KINDS, check_optimizer

Arrays: TypeAlias = list[torch.Tensor]
"""Arrays [C, ...] of C clients, one for each array that is trained."""


class StackedOptimizer(Protocol):
    """One torch.optim class over stacked arrays.

    With `scheduled` the learning rate is one of the `factors`, so that it may differ from step to step.
    """

    @property
    def slots(self) -> int:
        """Arrays of state kept for each trained array."""
        ...

    @property
    def counts_steps(self) -> bool:
        """Whether there are `factors` at all."""
        ...

    def factors(self, steps: torch.Tensor, rates: torch.Tensor) -> Arrays:
        """Return the numbers [C] that the step `steps` [C] of every client (the first is 1) needs.

        `rates` [C] is what the learning rate is multiplied by, 1 unless it is `scheduled`.
        """
        ...

    def update(self, params: Arrays, grads: Arrays, state: list[Arrays], factors: Arrays) -> None:
        """Move `params` and `state`, in place, by gradients."""
        ...


@dataclass(frozen=True, slots=True)
class StackedSGD:
    """torch.optim.SGD."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    scheduled: bool = False

    @property
    def slots(self) -> int:
        """One momentum buffer, if there is momentum."""
        return int(self.momentum != 0)

    @property
    def counts_steps(self) -> bool:
        """With a schedule every step differs from the others, with dampening the first."""
        return self.scheduled or self._dampened

    @property
    def _dampened(self) -> bool:
        return self.momentum != 0 and self.dampening != 0

    def factors(self, steps: torch.Tensor, rates: torch.Tensor) -> Arrays:
        """Return what of a gradient enters the momentum (all of the first, 1 - dampening of the others) and -lr."""
        entering = [torch.where(steps == 1, 1.0, 1.0 - self.dampening)] if self._dampened else []
        return [*entering, -self.lr * rates] if self.scheduled else entering

    def update(self, params: Arrays, grads: Arrays, state: list[Arrays], factors: Arrays) -> None:
        """Step against the gradient or its momentum."""
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            direction = grad.add(param, alpha=self.weight_decay) if self.weight_decay else grad
            if self.momentum:
                direction = self._with_momentum(direction, state[0][i], factors)
            if self.scheduled:
                param.add_(direction * _each(factors[-1], param))
            else:
                param.add_(direction, alpha=-self.lr)

    def _with_momentum(self, grad: torch.Tensor, buffer: torch.Tensor, factors: Arrays) -> torch.Tensor:
        entering = grad * _each(factors[0], grad) if self._dampened else grad
        buffer.mul_(self.momentum).add_(entering)
        return grad.add(buffer, alpha=self.momentum) if self.nesterov else buffer


@dataclass(frozen=True, slots=True)
class StackedAdam:
    """torch.optim.Adam, and with `decoupled` torch.optim.AdamW."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decoupled: bool
    scheduled: bool = False

    @property
    def slots(self) -> int:
        """Both moments."""
        return 2

    @property
    def counts_steps(self) -> bool:
        """The moments begin at zero, which is corrected by the number of steps."""
        return True

    def factors(self, steps: torch.Tensor, rates: torch.Tensor) -> Arrays:
        """Return lr / (1 - beta1**t), sqrt(1 - beta2**t) and, with a schedule, what decay leaves of a weight."""
        taken = steps.to(torch.float64)
        moments = [self.lr * rates / (1 - self.beta1**taken), (1 - self.beta2**taken).sqrt()]
        return [*moments, 1 - self.lr * rates * self.weight_decay] if self.scheduled else moments

    def update(self, params: Arrays, grads: Arrays, state: list[Arrays], factors: Arrays) -> None:
        """Step by the first moment over the root of the second."""
        size, correction, *left = factors
        for param, grad, first, second in zip(params, grads, *state, strict=True):
            direction = grad
            if self.weight_decay and self.decoupled:
                param.mul_(_each(left[0], param) if left else 1 - self.lr * self.weight_decay)
            elif self.weight_decay:
                direction = grad.add(param, alpha=self.weight_decay)
            first.lerp_(direction, 1 - self.beta1)
            second.mul_(self.beta2).addcmul_(direction, direction, value=1 - self.beta2)
            scale = (second.sqrt() / _each(correction, param)).add_(self.eps)
            param.sub_(first / scale * _each(size, param))


def stacked_optimizer(spec: OptimizerSpec, *, scheduled: bool = False) -> StackedOptimizer:
    """Build the stacked form of the optimizer that a spec names; `scheduled` when its learning rate changes.

    Raises ConfigurationError for one that has none, UnknownSetting for an unknown option.
    """
    check_optimizer(spec)
    options: dict[str, float] = {**KINDS[spec.name].defaults, **spec.options}  # type: ignore[dict-item]
    if spec.name == "sgd":
        nesterov = bool(options.pop("nesterov"))
        return StackedSGD(**options, nesterov=nesterov, scheduled=scheduled)
    if spec.name in ("adam", "adamw"):
        return StackedAdam(**options, decoupled=spec.name == "adamw", scheduled=scheduled)
    raise ConfigurationError(f"no stacked form of the optimizer {spec.name!r}", 'train with trainer="loop"')


def clipped(grads: Arrays, most: float) -> Arrays:
    """Scale every client's gradients so that the L2 norm of all of them is `most` at most, as clip_grad_norm_."""
    norms = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
    scales = (most / (norms + 1e-6)).clamp(max=1.0)
    return [grad * _each(scales, grad) for grad in grads]


def _each(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Give one number a client the dtype and the dimensions of an array of clients."""
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))
