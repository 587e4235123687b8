"""From a function of named tensors to a program, for batches of any size where the function allows it."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from shoal.core.errors import NotExportable
from shoal.plan.decompositions import INSTEAD, table
from shoal.plan.graph import Program, live
from shoal.plan.places import Places
from shoal.plan.private import plain_operators
from shoal.plan.randomness import Noise
from shoal.plan.recording import decomposed, recorded
from shoal.plan.step import Named, Tensors
from shoal.plan.unify import DependsOnSize, Trace, unified
from shoal.train.objective import USER_ERRORS
from shoal.train.startup import light_calls

TRIED = (3, 5)
"""Rows of the batches that are traced to find out what depends on their number."""

Given = Callable[[int, int], Tensors]
"""Makes the inputs of a function, for a batch of so many rows; the second number says which such batch."""

TRUSTED = "publish it without a plan, for owners who install its code: plan=False, or --no-plan"


@dataclass(frozen=True, slots=True)
class Traced:
    """A program, and the one number of rows that it takes (None: any)."""

    program: Program
    rows: int | None


def traced(function: Named, given: Given, places: Places, rows: int, *, flexible: bool = True) -> Traced:
    """Trace a function for batches of any size, or where it does not treat all alike, of `rows` rows.

    Raises NotExportable for what cannot be traced.
    """
    if flexible:
        with contextlib.suppress(DependsOnSize, NotExportable):  # it may be for one size, and the plan says so
            return Traced(_unified(function, given, places, TRIED), None)
    try:
        return Traced(_unified(function, given, places, (rows, rows)), rows)
    except DependsOnSize as error:
        raise NotExportable(f"the step depends on the numbers themselves: {error}", TRUSTED) from error


def _unified(function: Named, given: Given, places: Places, sizes: tuple[int, int]) -> Program:
    return live(unified(*(_trace(function, given(rows, draw), places, rows) for draw, rows in enumerate(sizes))))


def _trace(function: Named, given: Tensors, places: Places, rows: int) -> Trace:
    try:
        with plain_operators(), places.followed(), light_calls():
            return _recorded(function, given, places, rows)
    except USER_ERRORS as error:
        raise NotExportable(_said(error, places), TRUSTED) from error


def _recorded(function: Named, given: Tensors, places: Places, rows: int) -> Trace:
    with Noise(places=places) as drawn:
        function(given)
    given = {**given, **{f"noise/{index}": torch.rand(shape) for index, shape in enumerate(drawn.shapes)}}
    names, gives = list(given), list[str]()

    def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
        named = dict(zip(names, tensors, strict=True))
        noise = [tensor for name, tensor in named.items() if name.startswith("noise/")]
        with Noise(noise, places, INSTEAD):
            found = function(named)
        gives[:] = found
        return list(found.values())

    tensors = list(given.values())
    whole = recorded(flat, tensors, lambda: places.last)
    return Trace(decomposed(whole, tensors, table()), names, gives, rows)


def _said(error: Exception, places: Places) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"the step cannot be traced {places.last}: {text}"
