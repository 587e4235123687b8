"""Keeping a place in a round while the work for it makes progress."""

import time
from collections.abc import Callable
from threading import Event

from shoal.core.errors import ShoalError
from shoal.core.types import Assignment
from shoal.wire.backoff import transient
from shoal.wire.http import Connection
from shoal.wire.messages import RenewReply


class Stopped(Exception):
    """The agent was told to stop in the middle of its work."""


class Lease:
    """The lease on the assignment in hand, renewed by progress and not by being alive."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._path = ""
        self._half = 0.0
        self._due = 0.0
        self._stop = Event()

    def begin(self, assignment: Assignment, seconds: float, stop: Event) -> None:
        """Take up an assignment that is leased for a number of seconds."""
        self._path = f"/v1/assignments/{assignment.id}/renew"
        self._half = seconds / 2
        self._due = self._clock() + self._half
        self._stop = stop

    def progress(self) -> None:
        """Note that the work moved on; renew the lease when half of it has passed.

        Raises Gone when the round does not need the work any more, Stopped when the agent is to stop.
        """
        if self._stop.is_set():
            raise Stopped("the agent was told to")
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._half
        try:
            self._connection.call("POST", self._path, None, RenewReply)
        except ShoalError as error:
            if not transient(error):
                raise
