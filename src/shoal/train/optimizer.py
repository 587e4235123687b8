"""From an OptimizerSpec, which is plain data, to an optimizer of torch.optim. Only classes listed here are built."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shoal.algorithms import local
from shoal.algorithms.registry import nearest
from shoal.core.errors import ConfigurationError, UnknownSetting
from shoal.core.rate import CONSTANT, Rate
from shoal.core.task import OptimizerSpec, Option
from shoal.train.startup import light_construction, light_step


@dataclass(frozen=True, slots=True)
class _Kind:
    make: Callable[..., torch.optim.Optimizer]
    defaults: Mapping[str, Option]


KINDS: Mapping[str, _Kind] = {
    "sgd": _Kind(torch.optim.SGD, local.sgd(0.01).options),
    "adam": _Kind(torch.optim.Adam, local.adam().options),
    "adamw": _Kind(torch.optim.AdamW, local.adamw().options),
}


class Stepper:
    """One optimizer over some parameters: `step` applies the gradients and forgets them.

    Step t has `rate.at(t)` times the learning rate. The L2 norm of all gradients is `clip` at most, if that is given.
    """

    def __init__(
        self,
        spec: OptimizerSpec,
        parameters: Iterable[nn.Parameter],
        rate: Rate = CONSTANT,
        clip: float | None = None,
    ) -> None:
        self.parameters = list(parameters)
        self.optimizer = build(spec, self.parameters)
        self._step = light_step(self.optimizer)
        self._rate = rate
        self._clip = clip
        self._taken = 0

    def step(self) -> None:
        """Move the parameters by their gradients, as `torch.optim` does, and set the gradients to None."""
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self._clip)
        if self._rate != CONSTANT:
            for group in self.optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * self._rate.at(self._taken)
        self._taken += 1
        with torch.no_grad():
            self._step()
        for parameter in self.parameters:
            parameter.grad = None


def check_optimizer(spec: OptimizerSpec) -> None:
    """Raise ConfigurationError for an unknown optimizer, UnknownSetting for an unknown option."""
    kind = KINDS.get(spec.name)
    if kind is None:
        hint = nearest(spec.name, KINDS)
        raise ConfigurationError(f"no local optimizer {spec.name!r}", f"use one of {', '.join(KINDS)}{hint}")
    for option in spec.options:
        if option not in kind.defaults:
            hint = nearest(option, kind.defaults)
            raise UnknownSetting(f"{spec.name} has no option {option!r}", f"use one of {sorted(kind.defaults)}{hint}")


def build(spec: OptimizerSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the torch.optim optimizer that a spec names.

    Raises ConfigurationError for an unknown optimizer or a value that torch refuses, UnknownSetting for an unknown
    option.
    """
    check_optimizer(spec)
    kind = KINDS[spec.name]
    options: dict[str, Any] = {**kind.defaults, **spec.options}
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    try:
        with light_construction():
            return kind.make(parameters, **options)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{spec.name} with {dict(spec.options)}: {error}", "correct the value") from error
