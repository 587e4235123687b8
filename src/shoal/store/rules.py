"""What every store lets in and what it refuses, whatever it keeps its rows in."""

from collections import Counter
from collections.abc import Iterable, Set

from shoal.core.errors import Conflict, NotFound, StreamConflict, Superseded, Unauthorised
from shoal.rounds.events import Committed, Recorded, Reported
from shoal.store.store import DeviceRecord, Entry, TokenRecord

RELOAD = "load the stream again and go on from its end"


def check_head(entry: Entry, position: int, epoch: int) -> None:
    """Refuse an entry whose writer does not know the stream's end, or no longer leads it."""
    if entry.epoch != epoch:
        raise Superseded(
            f"stream {entry.stream!r} is led in epoch {epoch}, not {entry.epoch}", "leave it to its new leader"
        )
    if entry.expect != position:
        raise StreamConflict(f"stream {entry.stream!r} is at position {position}, not {entry.expect}", RELOAD)


def check_once(stream: str, events: Iterable[Recorded], accepted: Set[str], rounds: Set[int]) -> None:
    """Refuse to accept an assignment twice and to commit a round twice, given what the stream has already."""
    assignments, numbers = once(events)
    twice = [*_again(assignments, accepted), *(f"round {number}" for number in _again(numbers, rounds))]
    if twice:
        raise StreamConflict(f"stream {stream!r} would count {', '.join(map(str, twice))} twice", RELOAD)


def once(events: Iterable[Recorded]) -> tuple[list[str], list[int]]:
    """Return what a stream may hold only once: the assignments that report, and the rounds that commit."""
    assignments, rounds = list[str](), list[int]()
    for record in events:
        if isinstance(record.event, Reported):
            assignments.append(record.event.assignment)
        elif isinstance(record.event, Committed):
            rounds.append(record.event.round)
    return assignments, rounds


def _again(given: list[str] | list[int], known: Set[str] | Set[int]) -> list[str | int]:
    return [item for item, times in Counter[str | int](given).items() if times > 1 or item in known]


def check_snapshot(stream: str, position: int, end: int) -> None:
    """Refuse a snapshot of events that the stream does not hold."""
    if position > end:
        raise StreamConflict(f"a snapshot of stream {stream!r} at {position}, past its end at {end}", RELOAD)


def same_device(known: DeviceRecord, device: DeviceRecord) -> DeviceRecord:
    """Return what is kept of a device that enrols again. Raises Conflict when it has another key."""
    if known.public_key != device.public_key:
        raise device_conflict(device)
    return known


def device_conflict(device: DeviceRecord) -> Conflict:
    """Return the refusal of a device whose name or id is another's."""
    return Conflict(
        f"the name {device.name!r} belongs to another device, or its key to another name",
        "choose another name, or start the agent with the home that enrolled it",
    )


def unusable(token: TokenRecord | None, now: float) -> Unauthorised | None:
    """Return why a token lets no more devices join, and nobody in; None when it does."""
    if token is None:
        return Unauthorised("the token is not known here", "give one of this coordinator")
    if token.revoked is not None:
        return Unauthorised(f"the token {token.id} was revoked", "ask an administrator for a new one")
    if token.expires is not None and token.expires <= now:
        return Unauthorised(f"the token {token.id} has expired", "ask an administrator for a new one")
    if token.uses is not None and token.used >= token.uses:
        times = "once" if token.uses == 1 else f"{token.uses} times"
        return Unauthorised(f"the token {token.id} was for use {times}, and was used", "ask for a new one")
    return None


def no_token(token: str) -> NotFound:
    """Return the refusal of a hash that no token has."""
    return NotFound(f"no token {token[:12]!r}", "list the tokens for their ids")


def no_device(device: str) -> NotFound:
    """Return the refusal of an id that no device has."""
    return NotFound(f"no device has the id {device!r}", "list the devices for their ids")


def token_conflict(token: TokenRecord) -> Conflict:
    """Return the refusal of a token that is kept for something else."""
    return Conflict(f"a token for {token.purpose} is kept already with other terms", "make a new token")


def no_blob(digest: str) -> NotFound:
    """Return the refusal of a digest that no blob has."""
    return NotFound(f"no blob has the digest {digest!r}", "ask for one that an assignment or a version names")
