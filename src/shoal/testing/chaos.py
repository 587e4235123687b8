"""A real coordinator that is killed again and again while devices train, and whether anything came of it.

The coordinator is a process with a home on disk. The devices are real agents in threads, with their outboxes, over real
sockets and a network that drops, repeats and loses; they die too, before and after an update is durable, and come back.
Two tasks run at once: the updates of one lie in the database, those of the other are blobs. When all kills are done,
the store is audited, and every version compared with those of a run in one thread that nothing disturbed.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

import numpy as np

from shoal.core.errors import Abandoned
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import Tree, digest, encode
from shoal.researcher.coordinator import Coordinator
from shoal.store.blobs import FolderBlobs
from shoal.store.failpoints import EXIT_CODE, PLACES
from shoal.store.sql import SqlStore
from shoal.store.store import Store
from shoal.testing.audit import Account, audit
from shoal.testing.in_process import run_rounds
from shoal.testing.mortal import Device, step
from shoal.testing.nursery import Nursery
from shoal.testing.server_process import ServerProcess
from shoal.testing.troubles import Troubles
from shoal.wire.http import Connection
from shoal.wire.messages import BlobReply, TaskStatus

Mode: TypeAlias = Literal["points", "random", "both", "takeovers"]
"""Where it dies: at named places, anywhere, both and in every trouble, or while another one stands by on PostgreSQL."""

DEVICES = 6
FOR_EVER = 1e9
WITHIN_SECONDS = 120.0
"""How long a version may take before the run is given up as stuck."""

POINT_SECONDS = 5.0
"""How long a coordinator may live on without coming to its place, before it is killed where it is."""

LIFE_SECONDS = (0.02, 0.6)
"""Between these, drawn anew each time, a coordinator lives that is killed at random."""

TROUBLED_SECONDS = (0.5, 1.5)
"""The same for one in trouble, which takes a while to be noticed."""

WHOLE = 20
"""With a nursery, one life in so many is a start from nothing, and only such count as restarts."""

SIZES = {"small": 64, "large": 17_000}
"""Elements of each task's model: updates of the first lie in the database, those of the second are blobs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. `lost` and `doubled` count updates, over both tasks; times are seconds.

    What was acknowledged and then asked for again counts as lost. `digest_equal`: every version is the exact sum of
    its recorded updates, its bytes are what its digest says, and the digests are those of an undisturbed run.
    `restart_s_max`, `restart_s_median`: from the start of a process, imports and all, to its first answer.
    `by_point`: kills by place, "random" for those anywhere. `resumed`: reports that a device found in its outbox when
    it came back. `repeated`: receipts that were given again. `refused`: answers that turned a report away, by code:
    none but for uploads whose bytes were damaged, which are sent again. `turned_away`: 5xx answers to uploads and
    reports, by code. `troubles`: what befell it beside, by kind.
    """

    kills: int
    acknowledged: int
    lost: int
    doubled: int
    digest_equal: bool
    restart_s_max: float
    restart_s_median: float
    seed: int
    versions: int
    by_point: Mapping[str, int]
    resumed: int
    repeated: int
    refused: Mapping[str, int]
    turned_away: Mapping[str, int]
    troubles: Mapping[str, int]
    damaged_parts: int

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, doubled or changed."""
        # one answer for the report of damaged bytes, and one for its duplicate
        damage = {"bad_request", "not_found"} >= self.refused.keys()
        excused = damage and sum(self.refused.values()) <= 2 * self.damaged_parts
        return self.digest_equal and excused and not (self.lost or self.doubled)


def task(name: str, seed: int) -> tuple[TaskSpec, Tree]:
    """Return a task that every device is part of, and its version 0; no deadline ever closes a round."""
    arrays = {"w": ArraySpec((SIZES[name],), "float32"), "n": ArraySpec((), "int64", Role.COUNTER)}
    initial: Tree = {"w": np.zeros(SIZES[name], np.float32), "n": np.zeros((), np.int64)}
    spec = TaskSpec(
        name=name,
        arrays=arrays,
        rounds=1_000_000,
        plan=RoundPlan(DEVICES, DEVICES, deadline=FOR_EVER, lease=FOR_EVER),
        seed=seed,
        bounds=Bounds(max_abs=16.0, max_weight=64.0, max_updates=8),
        initial=digest(initial),
    )
    return spec, initial


@dataclass(slots=True)
class Killer:
    """Starts a coordinator again and again, and sees to it that each life ends."""

    server: ServerProcess
    random: random.Random
    mode: Mode
    troubles: Troubles
    nursery: Nursery | None = None
    by_point: Counter[str] = field(default_factory=Counter[str])
    restarts: list[float] = field(default_factory=list[float])
    _places: list[str] = field(default_factory=list[str])

    def life(self) -> None:
        """Live once: start, and die at a place, or anywhere; every third time in trouble."""
        lives = self.by_point.total()
        self.server.nursery = None if lives % WHOLE == 1 else self.nursery
        if self.mode == "takeovers":
            self._ended(self.troubles.two(self._seconds(TROUBLED_SECONDS)), "")
            return
        if self.mode == "both" and lives % 3 == 2:
            self._ended(self.troubles.live(self._seconds(TROUBLED_SECONDS)), "")
            return
        at_place = self.mode == "points" or (self.mode == "both" and self.random.random() < 0.5)
        place = self._place() if at_place else ""
        self.start(f"{place}:{self.random.randint(1, 3)}" if place else "")
        seconds = POINT_SECONDS if place else self._seconds(LIFE_SECONDS)
        self._ended(self.server.ended(seconds), place)

    def _seconds(self, span: tuple[float, float]) -> float:
        # one that is forked serves sooner, and has done as much in half the time
        return self.random.uniform(*span) * (1.0 if self.server.nursery is None else 0.5)

    def _ended(self, code: int | None, place: str) -> None:
        if code not in (None, EXIT_CODE):
            raise Abandoned(f"the coordinator ended by itself with exit code {code}", "see its log")
        self.by_point[place if code == EXIT_CODE else "random"] += 1
        if place and code != EXIT_CODE:
            self._places.insert(0, place)  # it was not come to: that is tried again after the others
        self.server.kill()

    def start(self, failpoint: str = "") -> None:
        """Start and note how long it took until it served."""
        served = self.server.start(failpoint)
        if served is not None and self.server.nursery is None:
            self.restarts.append(served)

    def _place(self) -> str:
        # devices enrol once, in the first life
        if not self._places:
            self._places = [place for place in PLACES if place != "after_enrol" or not self.by_point]
            self.random.shuffle(self._places)
            self._places.sort(key=lambda place: place == "after_enrol")
        return self._places.pop()


def run(
    folder: Path,
    *,
    kills: int,
    seed: int,
    mode: Mode = "both",
    say: Callable[[str], None] = print,
    database: str = "",
    nursery: Nursery | None = None,
) -> Outcome:
    """Train while a coordinator dies `kills` times, and audit what is left in `folder`, which must be empty.

    `database` is the URL of an empty PostgreSQL database, without one it lies in the home. A `nursery` forks the
    coordinators, which spares each its imports. Raises what a device ended with that should have gone on, and Abandoned
    when no version comes any more.
    """
    last: dict[str, int] = {}
    with ServerProcess(folder / "home", folder / "server.log", database=database, nursery=nursery) as server:
        draw = random.Random(seed)  # noqa: S311  (no secret)
        killer = Killer(server, draw, mode, Troubles(server, draw), nursery)
        server.start()
        tasks = {name: _publish(server, name, seed) for name in SIZES}
        devices = [
            Device(f"device-{n}", server, folder / f"device-{n}", seed + n, tuple(SIZES), last) for n in range(DEVICES)
        ]
        server.kill()
        try:
            for device in devices:
                device.start()
            for number in range(1, kills + 1):
                killer.life()
                _check(devices)
                say(f"kill {number} of {kills}: {dict(killer.by_point)}")
            server.nursery = None
            killer.start()
            _finish(server, tasks, last)
        finally:
            for device in devices:
                device.end()
        server.stop()
    store = SqlStore(database or folder / "home" / "shoal.db")
    with closing(store):
        accounts = [_audited(store, folder / "home", name, tasks[name], seed, devices) for name in tasks]
    return _outcome(seed, killer, accounts, devices)


def _check(devices: list[Device]) -> None:
    for device in devices:
        if not device.alive:
            raise Abandoned(f"{device.name} gave up", f"see what it ended with: {device.error!r}") from device.error


def _publish(server: ServerProcess, name: str, seed: int) -> str:
    spec, initial = task(name, seed)
    with Connection(server.url, server.admin_token) as connection:
        connection.upload("/v1/blobs", encode(initial), BlobReply)
        return connection.call("POST", "/v1/tasks", spec, TaskStatus).id


def _finish(server: ServerProcess, tasks: Mapping[str, str], last: dict[str, int]) -> None:
    with Coordinator.connect(server.url, token=server.admin_token) as coordinator:
        for identity in tasks.values():
            # no device can be this far ahead of the answer
            last[identity] = coordinator.status(identity).round + 3
        for identity in tasks.values():
            for version in coordinator.run(identity).follow(within=WITHIN_SECONDS):
                if version.number == last[identity]:
                    break


def _audited(
    store: Store, home: Path, name: str, identity: str, seed: int, devices: list[Device]
) -> tuple[Account, bool]:
    _, initial = task(name, seed)
    acknowledged = {one: given for device in devices for one, given in device.acknowledged(identity).items()}
    account = audit(store, FolderBlobs(home / "blobs"), identity, initial, acknowledged, step)
    spec = replace(account.spec, rounds=len(account.versions))
    calm = run_rounds(spec, initial, [device.name for device in devices], step)[1:]
    return account, [version.digest for version, _ in calm] == [version.digest for version in account.versions]


def _outcome(seed: int, killer: Killer, audits: list[tuple[Account, bool]], devices: list[Device]) -> Outcome:
    accounts = [account for account, _ in audits]
    ledgers = [device.ledger for device in devices]
    return Outcome(
        kills=killer.by_point.total(),
        acknowledged=sum(len(ledger.receipts) for ledger in ledgers),
        lost=sum(len(account.lost) for account in accounts) + sum(len(device.forgotten) for device in devices),
        doubled=sum(len(account.doubled) for account in accounts),
        digest_equal=all(same and not account.wrong for account, same in audits),
        restart_s_max=round(max(killer.restarts), 3),
        restart_s_median=round(median(killer.restarts), 3),
        seed=seed,
        versions=sum(len(account.versions) for account in accounts),
        by_point=dict(sorted(killer.by_point.items())),
        resumed=sum(device.resumed for device in devices),
        repeated=sum(ledger.repeated for ledger in ledgers),
        turned_away=dict(sum((ledger.turned_away for ledger in ledgers), start=Counter())),
        troubles=dict(sorted(killer.troubles.happened.items())),
        damaged_parts=killer.troubles.parts,
        refused=dict(sum((ledger.refused for ledger in ledgers), start=Counter())),
    )
