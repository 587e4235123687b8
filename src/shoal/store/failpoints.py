"""Named places at which a coordinator can be made to die, to prove that nothing depends on where it does.

A process that was armed, as `shoal server` is by SHOAL_FAILPOINT=after_blob:3, ends without a word when it comes to
the named place for the third time. A process that was not pays one comparison at each place.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping

from shoal.core.errors import ConfigurationError

VARIABLE = "SHOAL_FAILPOINT"
"""The environment variable that arms a process: `<place>` or `<place>:<nth time>`."""

CLOCK = "SHOAL_CLOCK_AHEAD"
"""The environment variable with the seconds by which `shoal server` takes its clock to be ahead; for tests."""

EXIT_CODE = 137
"""That of a process that SIGKILL ended, as a shell tells it."""

PLACES: Mapping[str, str] = {
    "mid_load": "a task's events are read, what a crash interrupted is not yet taken up",
    "after_enrol": "a device is kept, its secret is not yet sent",
    "after_assign": "an assignment is durable, not yet sent",
    "mid_upload": "some of an update's bytes have arrived",
    "after_part": "a part of a large update is durable, its device was not told",
    "after_blob": "a large update is a durable blob, no event names it",
    "before_accept": "an update was checked, nothing says so on disk",
    "mid_commit": "a transaction is written, not yet committed",
    "after_commit": "a transaction is durable, nobody was told",
    "after_accept": "a report is durable, the round has not gone on",
    "before_ack": "a receipt exists, it is not yet sent",
    "mid_fold": "some blocks of the next version are written",
    "before_model": "the next version is written, not yet durable",
    "after_model": "the next version is a durable blob, no event names it",
    "before_version": "a round is combined, its version is not yet an event",
    "after_version": "a version is an event, its updates still lie there",
    "before_discard": "updates are to be deleted, none is",
    "mid_discard": "small updates are deleted, blobs are not",
    "after_discard": "the updates of a version are deleted",
    "mid_snapshot": "the old snapshot is deleted, the new one is not yet there",
}
"""Every place, and what is true there."""


class _Armed:
    def __init__(self, place: str, times: int) -> None:
        self.place = place
        self._left = times
        self._lock = threading.Lock()

    def count(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os._exit(EXIT_CODE)


_armed: _Armed | None = None


def arm(text: str | None) -> None:
    """Make this process die at a place; None or "" disarms it. Raises ConfigurationError for a place nobody has."""
    global _armed  # a process dies as a whole
    place, _, nth = (text or "").partition(":")
    times = int(nth) if nth.isdigit() else 0 if nth else 1
    if place and (place not in PLACES or times < 1):
        raise ConfigurationError(f"{VARIABLE}={text}", f"give PLACE or PLACE:NTH, with one of {', '.join(PLACES)}")
    _armed = _Armed(place, times) if place else None


def clock(text: str | None) -> Callable[[], float]:
    """Return a clock that is so many seconds ahead. Raises ConfigurationError for what is no number."""
    try:
        ahead = float(text or 0.0)
    except ValueError as error:
        raise ConfigurationError(f"{CLOCK}={text}", "give a number of seconds") from error
    return time.time if not ahead else lambda: time.time() + ahead


def reached(place: str) -> None:
    """Die here, when this process was armed for it."""
    if _armed is not None and _armed.place == place:
        _armed.count()
