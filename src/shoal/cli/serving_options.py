"""Options about which versions devices serve."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shoal.core.serving import Canary, Serving


class Promotion(StrEnum):
    """When a new version becomes the one that devices serve."""

    ALWAYS = "always"
    CANARY = "canary"
    PERSON = "person"


Serve = Annotated[
    Promotion, typer.Option(help="Serve each new version at once, after a canary, or when a person promotes it.")
]
Fraction = Annotated[
    float, typer.Option("--canary", min=1e-6, max=1.0, help="Share of the devices that try a version first.")
]
Guard = Annotated[str, typer.Option("--guard", metavar="METRIC", help="What guards a canary, on rows held out.")]
Tolerance = Annotated[float, typer.Option(min=0.0, help="By how much --guard may be worse than what is served.")]
GuardHigher = Annotated[bool, typer.Option("--guard-higher", help="Higher values of --guard are better.")]
GuardDevices = Annotated[int, typer.Option(min=2, help="Devices that measure a canary.")]
GuardRows = Annotated[int, typer.Option(min=1, help="Rows that a canary must be measured on.")]
GuardDeadline = Annotated[float, typer.Option(min=0.1, help="Seconds after which an unmeasured canary is rolled back.")]


def canary_of(
    fraction: float, metric: str, tolerance: float, higher: bool, devices: int, rows: int, deadline: float
) -> "Canary":
    """Return the trial that the options make."""
    from shoal.core.serving import Canary

    better = "higher" if higher else "lower"
    return Canary(fraction, metric, tolerance, better, devices, rows, deadline)  # type: ignore[arg-type]


def serving_of(promote: Promotion, canary: "Canary") -> "Serving":
    """Return when versions are served."""
    from shoal.core.serving import Serving

    return Serving(promote.value, canary)
