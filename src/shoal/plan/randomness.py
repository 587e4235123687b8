"""Random numbers of a model as inputs: dropout and its like read the uniform numbers that they are given.

Works below autograd, so that a module, torch's own attention and recurrent layers are all seen alike.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from shoal.core.errors import NotExportable
from shoal.plan.places import Places
from shoal.plan.private import DispatchMode

aten = torch.ops.aten

OUTSIDE = "take what is random from dropout, or add it to the batch as an array"


class Noise(DispatchMode):
    """Let every random operator inside read the next of `given`; without `given`, note the shapes that it would take.

    `instead` are functions to call in the place of operators.
    Raises NotExportable for a random operator that uniform numbers do not give.
    """

    def __init__(
        self,
        given: Sequence[torch.Tensor] | None = None,
        places: Places | None = None,
        instead: Mapping[Any, Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self._given = given
        self._places = places or Places({})
        self._instead = instead or {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        drawing = _DRAWING.get(func)
        if drawing is not None:
            return drawing(self._next, *args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotExportable(f"operator {func} {self._places.here()}", OUTSIDE)
        self._places.note(str(func))
        return self._instead.get(func, func)(*args, **(kwargs or {}))

    def _next(self, like: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(like.shape))
        if self._given is None:
            return torch.full(like.shape, 0.5)
        return self._given[len(self.shapes) - 1]


Next = Callable[[torch.Tensor], torch.Tensor]


def _bernoulli(following: Next, x: torch.Tensor, p: float = 0.5, **_: Any) -> torch.Tensor:
    return x.copy_(following(x) < p)


def _drawn(following: Next, x: torch.Tensor, p: float = 0.5, **_: Any) -> torch.Tensor:
    return (following(x) < p).to(x.dtype)


def _dropout(
    following: Next, x: torch.Tensor, p: float, train: bool | None = True
) -> tuple[torch.Tensor, torch.Tensor]:
    if not train:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    kept = following(x) < 1 - p
    return x * kept.to(x.dtype) * (1 / (1 - p)), kept


def _rand_like(following: Next, x: torch.Tensor, **_: Any) -> torch.Tensor:
    return following(x).to(x.dtype)


def _uniform(following: Next, x: torch.Tensor, low: float = 0.0, high: float = 1.0, **_: Any) -> torch.Tensor:
    return x.copy_(following(x) * (high - low) + low)


_DRAWING: Mapping[Any, Callable[..., Any]] = {
    aten.bernoulli_.float: _bernoulli,
    aten.bernoulli.p: _drawn,
    aten.native_dropout.default: _dropout,
    aten.rand_like.default: _rand_like,
    aten.uniform_.default: _uniform,
}
