"""A worker: who may come, what each may take, and the sessions of those who are here or will be back."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shoal.core.errors import OverLimit, SessionLost, Unauthorised, WrongProtocol
from shoal.remote.catalogue import Catalogue
from shoal.remote.frames import PROTOCOL, Hello, Welcome
from shoal.remote.labels import Gate
from shoal.remote.limits import Limits
from shoal.remote.visit import Visit


class Tokens:
    """Who may come: names of people by the SHA-256 of their tokens."""

    def __init__(self, people: Mapping[str, str]) -> None:
        self._people = {person: _digest(token) for person, token in people.items()}

    def person(self, token: str) -> str:
        """Return whose token this is. Raises Unauthorised."""
        given = _digest(token)
        found = [person for person, digest in self._people.items() if hmac.compare_digest(digest, given)]
        if not found:
            raise Unauthorised("no such token at this worker", "ask the worker's owner for one")
        return found[0]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@dataclass(slots=True)
class _Seat:
    visit: Visit
    gone_since: float | None = None


class Host:
    """One worker and its sessions. `rules` gives the owner's gate for a person."""

    def __init__(
        self,
        name: str,
        tokens: Tokens,
        catalogue: Catalogue,
        limits: Limits,
        rules: Callable[[str], Gate],
    ) -> None:
        self.name = name
        self.limits = limits
        self._tokens = tokens
        self._catalogue = catalogue
        self._rules = rules
        self._seats: dict[str, _Seat] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._seats)

    def admit(self, token: str) -> str:
        """Return whose token this is. Raises Unauthorised."""
        return self._tokens.person(token)

    def open(self, hello: Hello, person: str, now: float) -> tuple[Visit, int]:
        """Return the session that a greeting begins or goes on with, and the number of its connection.

        Raises WrongProtocol, Unauthorised, SessionLost for one that is over, OverLimit when there are too many.
        """
        if hello.protocol != PROTOCOL:
            raise WrongProtocol(f"protocol {hello.protocol} at a worker that speaks {PROTOCOL}", "use the same version")
        with self._lock:
            self._sweep(now)
            seat = self._returned(hello, person) if hello.session else self._new(person)
            seat.gone_since = None
        turn = seat.visit.next_turn()  # waits for what the connection before still does, and nobody waits for that
        with self._lock:
            seat.gone_since = None
        return seat.visit, turn

    def welcome(self, visit: Visit) -> Welcome:
        """Return the answer to a greeting."""
        limits = self.limits
        return Welcome(
            visit.ident,
            visit.secret,
            self.name,
            visit.done,
            limits.window,
            limits.window_bytes,
            limits.part,
            limits.frame,
        )

    def left(self, visit: Visit, turn: int, now: float) -> None:
        """Note that a connection is gone: the session waits for another until its lease ends."""
        with self._lock:
            seat = self._seats.get(visit.ident)
            if seat is None or visit.turn != turn:
                return
            seat.gone_since = now
            if visit.over:
                del self._seats[visit.ident]

    def sweep(self, now: float) -> None:
        """Free what belongs to clients whose lease is over."""
        with self._lock:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        for ident, seat in list(self._seats.items()):
            if seat.gone_since is not None and now - seat.gone_since >= self.limits.lease:
                seat.visit.executor.objects.clear()
                seat.visit.over = True
                del self._seats[ident]

    def _new(self, person: str) -> _Seat:
        if len(self._seats) >= self.limits.clients:
            raise OverLimit(f"{len(self._seats)} sessions are open at worker {self.name!r}", "try again later")
        visit = Visit(person, self._rules(person), self.limits, self._catalogue)
        seat = self._seats[visit.ident] = _Seat(visit)
        return seat

    def _returned(self, hello: Hello, person: str) -> _Seat:
        seat = self._seats.get(hello.session)
        if seat is None or seat.visit.over or seat.visit.person != person:
            raise SessionLost(
                f"worker {self.name!r} has no such session: its tensors were freed", "connect again and send them anew"
            )
        if not secrets.compare_digest(seat.visit.secret, hello.secret):
            raise Unauthorised("the session is somebody else's", "connect anew")
        return seat
