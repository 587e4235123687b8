"""What every store lets in and what it refuses, whatever it keeps its rows in."""

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import replace

from shoal.core.errors import Conflict, NotFound, StreamConflict, Superseded
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


def renewed(known: DeviceRecord, device: DeviceRecord) -> DeviceRecord:
    """Return what to keep when a known device enrols again: its new record, revoked if it was."""
    if known.public_key != device.public_key:
        raise device_conflict(device)
    return device if known.revoked is None else replace(device, revoked=known.revoked)


def device_conflict(device: DeviceRecord) -> Conflict:
    """Return the refusal of a device whose name or id is another's."""
    return Conflict(f"device {device.name!r} is enrolled with another key", "choose another name")


def no_device(device: str) -> NotFound:
    """Return the refusal of an id that no device has."""
    return NotFound(f"no device has the id {device!r}", "list the devices for their ids")


def token_conflict(token: TokenRecord) -> Conflict:
    """Return the refusal of a token that is kept for something else."""
    return Conflict(f"a token for {token.purpose} is kept already with other terms", "make a new token")


def no_blob(digest: str) -> NotFound:
    """Return the refusal of a digest that no blob has."""
    return NotFound(f"no blob has the digest {digest!r}", "ask for one that an assignment or a version names")
