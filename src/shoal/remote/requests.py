"""What clients ask their owner to let leave, one file each, until a person approves or refuses it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from shoal.core.errors import Conflict, CorruptStore, NotFound, OverLimit
from shoal.store.durable import write_durably

MOST = 200
"""Requests of one person that wait: more would bury the others."""
REASON_LETTERS = 1000

Kind: TypeAlias = Literal["value", "program", "model"]
State: TypeAlias = Literal["waiting", "approved", "refused"]


class Terms(msgspec.Struct, frozen=True):
    """On what terms a request was approved: how many times and, for a model, after what and how clipped."""

    times: int = 1
    rows: int = 0
    steps: int = 0
    clip: float = 0.0
    state: bool = False
    """Whether also what a training writes before it reads it may leave."""


class Request(msgspec.Struct, frozen=True):
    """One request. `key` is what an approval is for: the digest of a value, or of a program with its parameters."""

    id: str
    person: str
    at: float
    kind: Kind
    key: str
    data: tuple[str, ...]
    what: str
    reason: str
    program: str = ""
    inputs: tuple[str, ...] = ()
    steps: int = 0
    rows: dict[str, int] = {}
    state: State = "waiting"
    terms: Terms = Terms()
    note: str = ""


class Requests:
    """The queue of one worker; without a folder it is kept in memory only."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept: dict[str, Request] = {}

    def file(self, request: Request) -> Request:
        """Keep a request under the person's next number, or under its own again. Raises OverLimit.

        Ids are counted, never made from what is asked for: equal ids would tell that two private values are equal.
        """
        if not request.id:
            theirs = [each for each in self if each.person == request.person]
            waiting = sum(each.state == "waiting" for each in theirs)
            if waiting >= MOST:
                raise OverLimit(f"{waiting} requests of {request.person!r} wait", "wait until the owner has seen some")
            last = max((int(each.id.rpartition("-")[2]) for each in theirs), default=0)
            request = msgspec.structs.replace(request, id=f"{request.person}-{last + 1}")
        self._write(request)
        return request

    def __iter__(self) -> Iterator[Request]:
        if self._folder is None:
            yield from self._kept.values()
        elif self._folder.is_dir():
            found = [_read(path) for path in self._folder.glob("*.json")]
            yield from sorted(found, key=lambda request: request.at)

    def find(self, ident: str) -> Request:
        """Return a request by its id. Raises NotFound."""
        for each in self:
            if each.id == ident:
                return each
        raise NotFound(f"no request {ident!r}", "`shoal requests list` shows their ids")

    def approve(self, ident: str, terms: Terms, note: str = "") -> Request:
        """Let what a request is for leave, on these terms. Raises NotFound, Conflict for a refused one."""
        return self._decide(ident, "approved", terms, note)

    def refuse(self, ident: str, note: str = "") -> Request:
        """Let it not leave, also where it was approved before. Raises NotFound."""
        return self._decide(ident, "refused", Terms(), note)

    def approved(self, person: str, key: str) -> list[Request]:
        """Return what a person was granted about a key, oldest first."""
        return [each for each in self if (each.person, each.key, each.state) == (person, key, "approved")]

    def _decide(self, ident: str, state: State, terms: Terms, note: str) -> Request:
        found = self.find(ident)
        if found.state == "refused" and state == "approved":
            raise Conflict(f"request {found.id} was refused", "let the person ask for something else")
        decided = msgspec.structs.replace(found, state=state, terms=terms, note=note)
        self._write(decided)
        return decided

    def _write(self, request: Request) -> None:
        if self._folder is None:
            self._kept[request.id] = request
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(self._folder / f"{request.id}.json", [msgspec.json.encode(request), b"\n"], 0o600)


def _read(path: Path) -> Request:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Request)
    except msgspec.MsgspecError as error:
        raise CorruptStore(f"{path} is no request", "delete it; the person may ask again") from error
