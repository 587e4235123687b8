"""From a schedule to seconds: when the next round opens, and for how long a device has to wait."""

import math
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from shoal.core.errors import TaskError
from shoal.core.schedule import Schedule
from shoal.core.seeds import SEED_BITS, derive

EASTERNMOST = 14 * 3600.0
"""By how much the time of day is ahead of UTC where it is ahead most."""


def check_schedule(schedule: Schedule) -> None:
    """Raise TaskError when a time zone is not known, or a cron expression is none or never comes true."""
    _zone(schedule)
    if schedule.cron:
        _next_cron(schedule, 0.0)


def _zone(schedule: Schedule) -> tzinfo:
    """Return the time zone that times of day are in; UTC for the devices' own, which are told apart by their offset."""
    if schedule.time_zone in ("utc", "device"):
        return UTC
    try:
        return ZoneInfo(schedule.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise TaskError(
            f"schedule in the time zone {schedule.time_zone!r}", 'give "device", "utc" or a name as "Europe/Berlin"'
        ) from error


def first_opening(schedule: Schedule, published: float) -> float:
    """Return when round 1 opens: at once, or at the first time of the cron expression; 0 without a schedule."""
    if schedule.cron:
        return _next_cron(schedule, published)
    return published if schedule.every else 0.0


def next_opening(schedule: Schedule, former: float, now: float) -> float:
    """Return when the round after the one that opened at `former` opens. Times that were missed are left out.

    0 without a schedule: it opens at once.
    """
    if schedule.cron:
        return _next_cron(schedule, max(former, now))
    if schedule.every:
        return former + schedule.every * max(1, math.ceil((now - former) / schedule.every))
    return 0.0


def _next_cron(schedule: Schedule, after: float) -> float:
    # the hour that is there twice when summer time ends comes once, what is in the hour that is missing comes after it
    try:
        return next(CronSim(schedule.cron, datetime.fromtimestamp(after, _zone(schedule)))).timestamp()
    except (CronSimError, StopIteration) as error:
        raise TaskError(f"schedule with cron={schedule.cron!r}", 'give five fields such as "0 3 * * 1-5"') from error


def share(*parts: int | str) -> float:
    """Return a number in [0, 1) that is as good as random, and the same one for the same parts."""
    return derive(*parts) / (1 << SEED_BITS)


def _by_device(schedule: Schedule) -> bool:
    return bool(schedule.cron) and schedule.time_zone == "device"


def earliest(schedule: Schedule, opens: float) -> float:
    """Return when the first device may come to a round that opens at `opens`."""
    return opens - EASTERNMOST if _by_device(schedule) else opens


def turn(schedule: Schedule, opens: float, place: tuple[int, int, str], utc_offset: float = 0.0) -> float:
    """Return a device's own moment after a round opens; `place` is (task seed, round, device).

    Where cron is in the devices' time, `opens` is the time of day as if it were UTC; `utc_offset` is in seconds.
    """
    opens -= utc_offset if _by_device(schedule) else 0.0
    return opens + schedule.jitter * share("jitter", *place) if schedule.jitter else opens


def until_window(schedule: Schedule, now: float, utc_offset: float) -> float:
    """Return the seconds until the window opens, 0 within it; `utc_offset` is the device's, in seconds."""
    begin, end = schedule.hours
    local = datetime.fromtimestamp(now + (utc_offset if schedule.time_zone == "device" else 0.0), _zone(schedule))
    time_of_day = local.hour * 3600.0 + local.minute * 60.0 + local.second + local.microsecond / 1e6
    if begin <= time_of_day < end if begin < end else time_of_day >= begin or time_of_day < end:
        return 0.0
    opens = (local + timedelta(days=time_of_day >= begin)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    # a time on a clock: the seconds until then depend on whether summer time begins or ends before
    return (opens + timedelta(seconds=begin)).timestamp() - local.timestamp()
