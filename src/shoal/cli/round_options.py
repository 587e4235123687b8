"""Options about when a round closes and when a task ends."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shoal.core.plan import EarlyStop
    from shoal.core.schedule import Schedule

Minimum = Annotated[
    int | None,
    typer.Option(min=1, help="Reports with which a round may close at its deadline.", show_default="as --owners"),
]
Deadline = Annotated[float, typer.Option(min=0.1, help="Seconds from its first device after which a round closes.")]
Confidence = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=0.9999,
        help="Ask more devices, so many that the goal is reached with this probability given those that dropped out "
        "before; 0 asks no more than the goal.",
    ),
]


class Late(StrEnum):
    """What becomes of updates that come when their round has closed."""

    DROP = "drop"
    CARRY = "carry"


LateUpdates = Annotated[Late, typer.Option(help="Turn late updates away, or count them in the next round.")]
StopMetric = Annotated[
    str | None, typer.Option(metavar="METRIC", help="End before the last round when this metric no longer improves.")
]
Patience = Annotated[int, typer.Option(min=1, help="Versions without improvement that end a task.")]
MinImprovement = Annotated[float, typer.Option(min=0.0, help="What counts as an improvement of --stop-metric.")]
Higher = Annotated[bool, typer.Option("--higher", help="Higher values of --stop-metric are better.")]


def early_stop(metric: str | None, patience: int, improvement: float, higher: bool) -> "EarlyStop | None":
    """Return the rule that the options make."""
    from shoal.core.plan import EarlyStop

    return None if metric is None else EarlyStop(metric, patience, improvement, "higher" if higher else "lower")


Every = Annotated[float, typer.Option(min=0.0, help="Seconds from the opening of one round to that of the next.")]
Cron = Annotated[str, typer.Option(metavar="FIELDS", help="When rounds open, such as '0 3 * * 1-5'.")]
Window = Annotated[
    str, typer.Option(metavar="HH:MM-HH:MM", help="The part of each day in which devices get work: 22:00-06:00.")
]
Jitter = Annotated[float, typer.Option(min=0.0, help="Seconds over which devices come after a round opens.")]
Period = Annotated[float, typer.Option(min=0.0, help="Least seconds from one work of a device to its next.")]
Separation = Annotated[
    float, typer.Option(min=0.0, help="Least seconds from a device's work for another task to its work for this one.")
]
ZoneOfTimes = Annotated[
    str, typer.Option("--time-zone", metavar="ZONE", help="Of --cron and --window: utc, device or as Europe/Berlin.")
]


def schedule_of(
    every: float, cron: str, window: str, zone: str, jitter: float, period: float, separation: float
) -> "Schedule":
    """Return the schedule that the options make."""
    from shoal.core.schedule import Schedule

    return Schedule(every, cron, window, zone, jitter, period, separation)
