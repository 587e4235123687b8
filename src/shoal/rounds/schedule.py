"""From a schedule to seconds: when the next round opens, and for how long a device has to wait."""

import math
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from shoal.core.errors import TaskError
from shoal.core.schedule import DAY, Schedule
from shoal.core.seeds import SEED_BITS, derive


def check_cron(schedule: Schedule) -> None:
    """Raise TaskError when a cron expression is none, or never comes true."""
    if schedule.cron:
        _next_cron(schedule.cron, 0.0)


def first_opening(schedule: Schedule, published: float) -> float:
    """Return when round 1 opens: at once, or at the first time of the cron expression; 0 without a schedule."""
    if schedule.cron:
        return _next_cron(schedule.cron, published)
    return published if schedule.every else 0.0


def next_opening(schedule: Schedule, former: float, now: float) -> float:
    """Return when the round after the one that opened at `former` opens. Times that were missed are left out.

    0 without a schedule: it opens at once.
    """
    if schedule.cron:
        return _next_cron(schedule.cron, max(former, now))
    if schedule.every:
        return former + schedule.every * max(1, math.ceil((now - former) / schedule.every))
    return 0.0


def _next_cron(expression: str, after: float) -> float:
    try:
        return next(CronSim(expression, datetime.fromtimestamp(after, UTC))).timestamp()
    except (CronSimError, StopIteration) as error:
        raise TaskError(f"schedule with cron={expression!r}", 'give five fields such as "0 3 * * 1-5"') from error


def share(*parts: int | str) -> float:
    """Return a number in [0, 1) that is as good as random, and the same one for the same parts."""
    return derive(*parts) / (1 << SEED_BITS)


def turn(schedule: Schedule, opens: float, place: tuple[int, int, str]) -> float:
    """Return a device's own moment after a round opens; `place` is (task seed, round, device)."""
    return opens + schedule.jitter * share("jitter", *place) if schedule.jitter else opens


def until_window(schedule: Schedule, now: float, utc_offset: float) -> float:
    """Return the seconds until the window opens, 0 within it; `utc_offset` is the device's, in seconds."""
    begin, end = schedule.hours
    time_of_day = (now + (utc_offset if schedule.time_zone == "device" else 0.0)) % DAY
    inside = begin <= time_of_day < end if begin < end else time_of_day >= begin or time_of_day < end
    return 0.0 if inside else (begin - time_of_day) % DAY
