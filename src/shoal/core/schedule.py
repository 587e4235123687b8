"""When a task's rounds open, and when a device may take part in them."""

import re
from dataclasses import dataclass

from shoal.core.errors import TaskError

DAY = 86400.0
CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When rounds open and who may take part then. Times are seconds; 0 and "" ask nothing.

    A round opens at once when the one before is done, or every `every` seconds counted from the publication, or at the
    times of the `cron` expression. `window` such as "22:00-06:00" is the part of each day in which devices get work.
    Both are in the `time_zone`: "utc", a name of the IANA database such as "Europe/Berlin" with its summer time, or
    "device", where a round opens for each device at its own time of day. Each device comes at a moment of its own in
    the `jitter` seconds after a round opens. A device gets work again `period` seconds after it last got some of this
    task, and `separation` seconds after it last got some of any other, at the earliest.
    """

    every: float = 0.0
    cron: str = ""
    window: str = ""
    time_zone: str = "utc"
    jitter: float = 0.0
    period: float = 0.0
    separation: float = 0.0

    def __post_init__(self) -> None:
        times = (self.every, self.jitter, self.period, self.separation)
        if not all(0 <= time < 1e9 for time in times):
            raise TaskError(
                f"schedule with every={self.every}, jitter={self.jitter}, period={self.period}, "
                f"separation={self.separation}",
                "give seconds that are not negative",
            )
        if self.every and self.cron:
            raise TaskError(f"schedule with every={self.every:g} and cron={self.cron!r}", "give one of the two")
        if self.time_zone != "utc" and not (self.window or self.cron):
            raise TaskError(f"schedule with time_zone={self.time_zone!r} and no time of day", "give a window or cron")
        if self.jitter and not self.opens_rounds:
            raise TaskError(f"schedule with jitter={self.jitter:g} and nothing to open rounds", "give every or cron")
        if self.window:
            self._check_window()

    def _check_window(self) -> None:
        if CLOCK.fullmatch(self.window) is None or self.hours[0] == self.hours[1]:
            raise TaskError(f"schedule with window={self.window!r}", 'give two times of day such as "22:00-06:00"')

    @property
    def opens_rounds(self) -> bool:
        """Whether rounds wait for a time."""
        return bool(self.every or self.cron)

    @property
    def hours(self) -> tuple[float, float]:
        """Where the window begins and ends, in seconds after midnight; the whole day without one."""
        found = CLOCK.fullmatch(self.window)
        if found is None:
            return 0.0, DAY
        first_hour, first_minute, last_hour, last_minute = map(int, found.groups())
        return first_hour * 3600.0 + first_minute * 60.0, last_hour * 3600.0 + last_minute * 60.0
