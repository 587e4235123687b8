"""What must hold of every store of events."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from shoal.core.errors import Conflict, NotFound, StoreError, StreamConflict, Unauthorised
from shoal.core.receipt import Receipt
from shoal.core.roles import Role
from shoal.core.serving import Canary
from shoal.core.task import ArraySpec, Bounds, Component, LocalPlan, OptimizerSpec, RoundPlan, TaskSpec
from shoal.core.types import Costs
from shoal.rounds.events import (
    CanaryBegan,
    Cancelled,
    CheckedIn,
    Committed,
    Event,
    Extended,
    Failed,
    Guarded,
    GuardPublished,
    Late,
    Noted,
    Paused,
    Promoted,
    Published,
    Recorded,
    Rejected,
    Released,
    Renewed,
    Reported,
    Resumed,
    Rewound,
    RolledBack,
    Ticked,
    Unfit,
)
from shoal.store.store import DeviceRecord, Entry, Store, TokenRecord
from shoal.testing.holding import hold, raises

Reopen: TypeAlias = Callable[[Store], Store]

THREADS = 8

SPEC = TaskSpec(
    name="laws",
    arrays={"weight": ArraySpec((2, 3), "float32"), "steps": ArraySpec((), "int64", Role.COUNTER)},
    rounds=3,
    plan=RoundPlan(goal=2, minimum=1, deadline=float("inf"), lease=0.1),
    seed=2**53 - 1,
    local=LocalPlan(2, 8, OptimizerSpec("sgd", {"lr": 1e-3, "nesterov": True, "momentum": 1.0}), proximal=0.5),
    aggregator=Component("mean", {"option": None, "text": "ü", "number": 3}),
    bounds=Bounds(max_abs=3.5),
    extra={"control": {"weight": ArraySpec((2, 3), "float32", Role.BUFFER)}},
    columns=("a", "b"),
    initial="0" * 64,
)
"""A task with a value of every type that an event can hold."""

EVENTS: Sequence[Event] = (
    Published("laws-1", SPEC),
    CheckedIn('Zoë "at home"'),
    Renewed("a1", "zoe"),
    Released("a1", "zoe", "on battery\n"),
    Reported("a1", "zoe", "1" * 64, 12, 5 << 16, {"loss": 0.1, "lift": float("inf")}, Costs(0.1, 0.2, 0.3, 4, 5)),
    Rejected("a2", "bob", "refused_update", "array 'weight' holds NaN"),
    Committed(1, 1, "2" * 64, "3" * 64),
    Failed(2, 1, "no space left"),
    Cancelled("enough"),
    Late("a3", "carl"),
    Paused(),
    Resumed(),
    Extended(9),
    Promoted(1, "a person", "good"),
    RolledBack(1, 0, "a person", "not good"),
    CanaryBegan(1, Canary(0.25, tolerance=0.5), "guard"),
    GuardPublished(1, "laws-1-guard-1-1"),
    Guarded(1, 0.5, float("inf"), 12),
    Rewound(1, "a person", "the loss went up"),
    Noted(1, "ü", "a person"),
    Unfit(1, "zoe", "it predicts NaN"),
    Ticked(),
)


def store_laws(make_store: Callable[[], Store], reopen: Reopen | None = None) -> None:
    """Check a store; `make_store` returns a new, empty one each time.

    - Events come back equal, of the same types and in order, from any position on; streams in the order of their
      first events.
    - An append is all or nothing: one that does not start at the stream's end, is not its leader's, or would count an
      assignment or a round twice raises StreamConflict and leaves neither events nor bytes.
    - The receipt of an accepted update is found for ever, by its stream, its assignment and its device only.
    - Whoever leads a stream last is the only one to append to it.
    - Bytes of small updates are there with their events, and gone when discarded.
    - The newest snapshot is kept, and none that its stream does not reach.
    - A device's name belongs to one key, its id to one name; a revocation stays; a token is kept once.
    - A token with n uses lets n devices in, however many come at once; one that is revoked or expired, none. A device
      that comes again is let in and not counted again.
    - A device that was turned away stays so until it is enrolled; a secret is that of whoever came first.
    - Of threads that race for a position one wins, threads on different streams do not disturb each other, and a
      failing entry fails no other one.
    - A closed store takes nothing more, and says so.
    - With `reopen`, which closes a store and opens it again: everything that was acknowledged is there afterwards.
    """
    for law in (
        _events_come_back,
        _streams_have_an_order,
        _conflicts_leave_nothing,
        _nothing_counts_twice,
        _receipts_are_found_again,
        _the_last_leader_writes,
        _all_are_taken_over_at_once,
        _bytes_come_with_events,
        _the_newest_snapshot_stays,
        _devices_have_one_key,
        _tokens_are_kept_once,
        _tokens_are_used_as_often_as_they_say,
        _refusals_last_until_enrolment,
        _secrets_are_those_of_the_first,
        _one_of_a_race_wins,
        _streams_grow_side_by_side,
        _a_failure_stays_alone,
    ):
        with closing(make_store()) as store:
            law(store)
    _closed_takes_nothing(make_store())
    if reopen is not None:
        _nothing_is_lost(make_store(), reopen)


def _records(events: Iterable[Event], start: float = 1_000_000.25) -> list[Recorded]:
    return [Recorded(start + number, event) for number, event in enumerate(events)]


def _ticks(number: int) -> list[Recorded]:
    return _records([Ticked()] * number)


def _begin(store: Store, stream: str, events: Iterable[Event] = EVENTS) -> tuple[int, int]:
    """Lead a stream, append events to it, and return its position and epoch."""
    epoch = store.lead(stream)
    return store.append(stream, _records(events), expect=0, epoch=epoch), epoch


def _events_come_back(store: Store) -> None:
    hold(list(store.events("none")) == [], "a stream that nobody wrote to has events")
    end, epoch = _begin(store, "a")
    hold(end == len(EVENTS), f"the position after {len(EVENTS)} events is {end}")
    records = _records(EVENTS)
    expected = list(enumerate(records, 1))
    found = list(store.events("a"))
    hold(found == expected, f"the events read back as {found}")
    hold(
        [repr(record) for _, record in found] == [repr(record) for record in records],
        "an event reads back with values of other types",
    )
    hold(list(store.events("a", 4)) == expected[4:], "events after position 4 are others than those from 5 on")
    hold(list(store.events("a", end)) == [], "there are events after the end")
    many = 2000
    store.append("a", _ticks(many), expect=end, epoch=epoch)
    positions = [position for position, _ in store.events("a")]
    hold(positions == list(range(1, end + many + 1)), "positions of a long stream have gaps or another order")


def _streams_have_an_order(store: Store) -> None:
    for stream in ("led only", "z", "a"):
        store.lead(stream)
    for stream in ("z", "m", "a"):
        _begin(store, stream)
    hold(store.streams() == ["z", "m", "a"], f"streams z, m and a, begun in this order, are {store.streams()}")


def _unchanged(store: Store, entry: Entry, what: str) -> None:
    before = list(store.events(entry.stream))
    with raises(StreamConflict, what):
        store.submit(replace(entry, inline={"f" * 64: b"bytes"})).result(30)
    hold(list(store.events(entry.stream)) == before, f"{what} leaves events")
    hold(store.inline("f" * 64) is None, f"{what} leaves bytes")


def _conflicts_leave_nothing(store: Store) -> None:
    end, epoch = _begin(store, "a")
    for expect in (0, end - 1, end + 1):
        _unchanged(store, Entry("a", _ticks(3), expect, epoch), f"an append at {expect} to a stream at {end}")
    _unchanged(store, Entry("new", _ticks(1), 1, 0), "an append past the end of a new stream")
    hold("new" not in store.streams(), "a stream exists though its only append was refused")
    hold(store.append("a", _ticks(1), expect=end, epoch=epoch) == end + 1, "an append after refused ones is wrong")


def _nothing_counts_twice(store: Store) -> None:
    end, epoch = _begin(store, "a")
    again = Reported("a1", "zoe", "4" * 64, 1, 1)
    _unchanged(store, Entry("a", _records([Ticked(), again]), end, epoch), "accepting an assignment twice")
    twice = _records([Committed(2, 1, "5" * 64, ""), Committed(2, 2, "6" * 64, "")])
    _unchanged(store, Entry("a", twice, end, epoch), "committing a round twice in one append")
    _unchanged(
        store, Entry("a", twice[:1] + _records([Committed(1, 2, "", "")]), end, epoch), "committing round 1 again"
    )
    _begin(store, "b", [again, Committed(1, 1, "7" * 64, "")])


def _receipts_are_found_again(store: Store) -> None:
    stream = "receipts"
    _begin(store, stream)
    known = next(event for event in EVENTS if isinstance(event, Reported))
    at = _records(EVENTS)[EVENTS.index(known)].at
    given = store.accepted(stream, known.assignment, known.device)
    hold(given == Receipt(known.assignment, known.digest, at), f"an accepted update has the receipt {given}")
    hold(store.accepted(stream, known.assignment, "mallory") is None, "another device finds a receipt")
    hold(store.accepted(stream, "a2", "bob") is None, "an update that was not accepted has a receipt")
    hold(store.accepted("another", known.assignment, known.device) is None, "another stream has a receipt")


def _the_last_leader_writes(store: Store) -> None:
    end, epoch = _begin(store, "a")
    later = store.lead("a")
    hold(later > epoch, f"the epoch after {epoch} is {later}")
    _unchanged(store, Entry("a", _ticks(1), end, epoch), "an append by a leader that was replaced")
    hold(store.append("a", _ticks(1), expect=end, epoch=later) == end + 1, "the new leader cannot append")
    _begin(store, "b")


def _all_are_taken_over_at_once(store: Store) -> None:
    ends = {stream: _begin(store, stream) for stream in ("b", "a")}
    store.lead("nothing yet")
    epochs = store.lead_every()
    hold(list(epochs) == store.streams() == ["b", "a"], f"taken over are {list(epochs)}")
    for stream, (end, former) in ends.items():
        hold(epochs[stream] > former, f"the epoch after {former} is {epochs[stream]}")
        _unchanged(store, Entry(stream, _ticks(1), end, former), "an append by a leader that was replaced")
        hold(store.append(stream, _ticks(1), expect=end, epoch=epochs[stream]) == end + 1, "it cannot append")


def _bytes_come_with_events(store: Store) -> None:
    epoch = store.lead("a")
    inline = {"a" * 64: b"", "b" * 64: bytes(range(256))}
    store.submit(Entry("a", _ticks(1), 0, epoch, inline)).result(30)
    store.submit(Entry("a", _ticks(1), 1, epoch, {"b" * 64: bytes(range(256)), "c" * 64: b"c"})).result(30)
    found = {digest: store.inline(digest) for digest in (*inline, "c" * 64)}
    hold(found == {**inline, "c" * 64: b"c"}, f"the bytes read back as {found}")
    hold(store.inline("d" * 64) is None, "there are bytes that nobody brought")
    store.discard(["b" * 64, "d" * 64, "b" * 64])
    hold(store.inline("b" * 64) is None, "discarded bytes are still there")
    hold(store.inline("c" * 64) == b"c", "bytes are gone that were not discarded")


def _the_newest_snapshot_stays(store: Store) -> None:
    end, _ = _begin(store, "a")
    hold(store.snapshot("a") is None, "a stream has a snapshot that nobody saved")
    for position, data in ((2, b"two"), (end, b"\0end"), (3, b"three")):
        store.save_snapshot("a", position, data)
    hold(store.snapshot("a") == (end, b"\0end"), f"the newest snapshot is {store.snapshot('a')}")
    with raises(StreamConflict, "a snapshot past the stream's end"):
        store.save_snapshot("a", end + 1, b"")
    hold(store.snapshot("b") is None, "a stream has the snapshot of another")


def _devices_have_one_key(store: Store) -> None:
    zoe = DeviceRecord("2", "zoe", "key z", 5.5, None, "p-256", ("a", "b"))
    bob = DeviceRecord("1", "bob", "key b", 4.0)
    for device in (zoe, bob, replace(zoe, enrolled=9.0, scope=())):
        store.enrol(device, None)
    hold(store.devices() == [zoe, bob], f"the devices are {store.devices()}")
    with raises(Conflict, "a name with another key"):
        store.enrol(replace(zoe, id="3", public_key="key x"), None)
    with raises(Conflict, "an id with another name"):
        store.enrol(replace(zoe, name="eve"), None)
    store.revoke_device(bob.id, 9.5)
    hold(store.enrol(bob, None).revoked == 9.5, "a device that enrols again is no longer revoked")
    with raises(NotFound, "revoking a device that does not exist"):
        store.revoke_device("3", 9.5)
    expected = [zoe, replace(bob, revoked=9.5)]
    hold(store.devices() == expected, f"the devices are {store.devices()}, not {expected}")


def _tokens_are_kept_once(store: Store) -> None:
    tokens = [TokenRecord("b", "admin", 2.5), TokenRecord("a", "enrolment", 3.0, 4.5)]
    for token in (*tokens, tokens[0]):
        store.add_token(token)
    with raises(Conflict, "a token with another purpose"):
        store.add_token(replace(tokens[1], purpose="admin"))
    hold(store.tokens() == tokens, f"the tokens are {store.tokens()}")
    store.revoke_token("b", 6.0)
    with raises(NotFound, "revoking a token that does not exist"):
        store.revoke_token("c", 6.0)
    hold(store.tokens()[0] == replace(tokens[0], revoked=6.0), "a token that was revoked is not")


def _tokens_are_used_as_often_as_they_say(store: Store) -> None:
    for token in (
        TokenRecord("a", "enrolment", 1.0, 9.0, 3, 0, ("boston",)),
        TokenRecord("b", "enrolment", 1.0),
        TokenRecord("c", "enrolment", 1.0, revoked=2.0),
    ):
        store.add_token(token)
    crowd = [DeviceRecord(str(number), f"device-{number}", f"key {number}", 4.0) for number in range(8)]
    with ThreadPoolExecutor(THREADS) as pool:
        entered = [device for device, came in zip(crowd, pool.map(partial(_enters, store), crowd), strict=True) if came]
    hold(len(entered) == 3, f"a token with 3 uses let {len(entered)} devices in")
    hold(store.enrol(entered[0], "a") == entered[0], "a device that comes again, after the last use, is not let in")
    late = DeviceRecord("late", "late", "key", 9.0)
    for used, what in (("a", "an expired token"), ("c", "a revoked token"), ("d", "an unknown token")):
        with raises(Unauthorised, what):
            store.enrol(late, used)
    store.enrol(late, "b")
    hold([token.used for token in store.tokens()] == [3, 1, 0], f"the uses are {store.tokens()}")
    hold({device.id for device in store.devices()} == {*(one.id for one in entered), "late"}, "a refused device stays")


def _enters(store: Store, device: DeviceRecord) -> bool:
    try:
        store.enrol(device, "a")
    except Unauthorised:
        return False
    return True


def _refusals_last_until_enrolment(store: Store) -> None:
    eve, bob = DeviceRecord("2", "eve", "key", 5.0, None, "p-256"), DeviceRecord("1", "bob", "key", 6.0)
    for device in (bob, eve, eve):
        store.refuse(device)
    hold(list(store.refused()) == [eve, bob], f"eve was turned away before bob, the store has {store.refused()}")
    store.enrol(bob, None)
    hold(list(store.refused()) == [eve], "a device that was enrolled is still turned away")


def _secrets_are_those_of_the_first(store: Store) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        told = set(pool.map(lambda number: store.secret("key", bytes([number])), range(THREADS)))
    hold(len(told) == 1, f"{len(told)} secrets were given out under one name")
    hold(store.secret("other", b"x") == b"x", "a secret is that of another name")


def _one_of_a_race_wins(store: Store) -> None:
    epoch = store.lead("a")

    def append(number: int) -> str | None:
        try:
            store.append("a", _records([CheckedIn(str(number))]), expect=0, epoch=epoch)
        except StreamConflict:
            return None
        return str(number)

    with ThreadPoolExecutor(THREADS) as pool:
        winners = [name for name in pool.map(append, range(THREADS)) if name is not None]
    hold(len(winners) == 1, f"{len(winners)} threads of {THREADS} appended at the same position")
    kept = [record.event for _, record in store.events("a")]
    hold(kept == [CheckedIn(winners[0])], f"the stream holds {kept}, the winner was told {winners[0]}")


def _streams_grow_side_by_side(store: Store) -> None:
    length = 20

    def grow(number: int) -> None:
        stream = f"stream {number}"
        epoch = store.lead(stream)
        entries = [
            Entry(stream, _records([CheckedIn(f"{at}")]), at, epoch, {f"{number}/{at}": b"x"}) for at in range(length)
        ]
        for future in [store.submit(entry) for entry in entries]:
            future.result(30)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(grow, range(THREADS)))
    for number in range(THREADS):
        kept = [record.event for _, record in store.events(f"stream {number}")]
        hold(kept == [CheckedIn(f"{at}") for at in range(length)], f"stream {number} holds {kept}")
        hold(store.inline(f"{number}/{length - 1}") == b"x", f"stream {number} lost the bytes of its last event")


def _a_failure_stays_alone(store: Store) -> None:
    epoch = store.lead("a")
    good = [Entry("a", _ticks(1), position, epoch, {f"good {position}": b"x"}) for position in range(20)]
    bad = [replace(entry, expect=entry.expect + 1, inline={f"bad {entry.expect}": b"x"}) for entry in good]
    futures = [(store.submit(wrong), store.submit(right)) for wrong, right in zip(bad, good, strict=True)]
    for position, (wrong, right) in enumerate(futures):
        hold(right.result(30) == position + 1, "an entry failed, or moved, because of another one")
        hold(isinstance(wrong.exception(30), StreamConflict), "an entry that does not fit was taken")
        hold(store.inline(f"bad {position}") is None, "an entry that failed left bytes")


def _closed_takes_nothing(store: Store) -> None:
    end, epoch = _begin(store, "a")
    pending = [store.submit(Entry("a", _ticks(1), end + number, epoch)) for number in range(20)]
    store.close()
    hold(all(future.done() for future in pending), "the store closed before it had finished")
    hold([future.result() for future in pending][-1] == end + 20, "entries submitted before the end were lost")
    with raises(StoreError, "an append to a closed store"):
        store.submit(Entry("a", _ticks(1), end + 20, epoch)).result(30)
    store.close()


def _nothing_is_lost(store: Store, reopen: Reopen) -> None:
    end, epoch = _begin(store, "b")
    _begin(store, "a")
    store.submit(Entry("b", _ticks(1), end, epoch, {"a" * 64: b"bytes"})).result(30)
    store.save_snapshot("b", end, b"snapshot")
    store.add_token(TokenRecord("b", "enrolment", 2.5, None, 2, 0, ("a",)))
    store.enrol(DeviceRecord("1", "bob", "key", 4.0, None, "p-256", ("a",)), "b")
    store.revoke_device("1", 5.0)
    store.revoke_token("b", 6.0)
    store.refuse(DeviceRecord("2", "eve", "key", 5.0))
    store.secret("key", b"bytes")
    before = _everything(store)
    with closing(reopen(store)) as again:
        hold(_everything(again) == before, f"{before} is, opened again, {_everything(again)}")
        _unchanged(again, Entry("b", _ticks(1), end, epoch), "an append at an old position, after opening again")
        hold(again.lead("b") > epoch, "an epoch is given away again after opening again")


def _everything(store: Store) -> object:
    streams = [(name, list(store.events(name)), store.snapshot(name)) for name in store.streams()]
    return streams, store.inline("a" * 64), store.devices(), store.tokens(), store.refused(), store.secret("key", b"")
