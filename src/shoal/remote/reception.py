"""One connection at a worker, without a socket: a greeting first, then the messages of a session."""

import time
from collections.abc import Callable

from shoal.core.errors import BadRequest, ShoalError
from shoal.remote import frames
from shoal.remote.frames import Failed, Hello
from shoal.remote.host import Host
from shoal.remote.visit import Say, Visit


class Reception:
    """Takes the messages of one connection of a person to a host; `say` sends an answer."""

    def __init__(self, host: Host, person: str, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._person = person
        self._say = say
        self._clock = clock
        self._visit: Visit | None = None
        self._turn = 0
        self._refused = False

    @property
    def over(self) -> bool:
        """Whether there is nothing more to take."""
        return self._refused or (self._visit is not None and self._visit.over)

    def take(self, data: bytes) -> None:
        """Carry out one message."""
        if self._visit is not None:
            self._visit.take(data, self._turn, self._say)
        elif not self._refused:
            self._greet(data)

    def lost(self) -> None:
        """Note that the connection is gone."""
        if self._visit is not None:
            self._host.left(self._visit, self._turn, self._clock())

    def _greet(self, data: bytes) -> None:
        try:
            hello = frames.question(data)
            if not isinstance(hello, Hello):
                raise BadRequest("a connection that begins without a greeting", "use the same version on both sides")
            self._visit, self._turn = self._host.open(hello, self._person, self._clock())
        except ShoalError as error:
            self._refused = True
            self._say(frames.encode(Failed(0, 0, error.code, error.problem, error.fix)))
        else:
            self._say(frames.encode(self._host.welcome(self._visit)))
            self._visit.resume(hello.waiting, self._say)
