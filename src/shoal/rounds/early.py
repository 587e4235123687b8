"""Whether a device may have work now, as the task's schedule says."""

import math
from typing import TYPE_CHECKING

from shoal.rounds import schedule
from shoal.rounds.events import CheckedIn

if TYPE_CHECKING:  # a state hands its events to these functions
    from shoal.rounds.state import TaskState


def not_yet(state: "TaskState", event: CheckedIn, now: float) -> tuple[str, float] | None:
    """Return why a device gets no work yet, and in how many seconds it may; None when it may now."""
    plan = state.spec.schedule
    opens = schedule.turn(plan, state.opens, (state.spec.seed, state.round, event.device), event.utc_offset)
    if now < opens:
        return f"round {state.round} has not opened for this device", opens - now
    rested = state.served.get(event.device, -plan.period) + plan.period if plan.period else now
    if now < rested:
        return f"this device works once in {plan.period:g} s", rested - now
    apart = (event.elsewhere or -math.inf) + plan.separation
    if now < apart:
        return f"this device worked for another task less than {plan.separation:g} s ago", apart - now
    closed = schedule.until_window(plan, now, event.utc_offset) if plan.window else 0.0
    return (f"outside of {plan.window} ({plan.time_zone} time)", closed) if closed else None


def serve(state: "TaskState", device: str, now: float) -> None:
    """Remember that a device gets work now, as long as that matters; those who rested are forgotten."""
    period = state.spec.schedule.period
    if not period:
        return
    state.served.pop(device, None)
    state.served[device] = now
    while (oldest := next(iter(state.served))) != device and state.served[oldest] + period <= now:
        del state.served[oldest]
