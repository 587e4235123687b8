"""The audit of a store finds each thing that it looks for."""

from dataclasses import replace

import numpy as np
import pytest

from shoal.core.task import RoundPlan
from shoal.core.tree import Tree, digest, encode
from shoal.core.types import Assignment, ModelVersion, Update
from shoal.rounds.effects import Assign, Contribution
from shoal.rounds.events import CheckedIn, Committed, Event, Published, Recorded, Reported
from shoal.rounds.state import TaskState
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.testing.audit import Account, audit, doubled
from shoal.testing.audit import Recorded as Round
from shoal.testing.chaos import task
from shoal.testing.in_process import run_rounds
from shoal.testing.mortal import step
from shoal.wire.codec import join_trees

DEVICES = ("bob", "alice")
MADE, INITIAL = task("small", 1)
SPEC = replace(MADE, rounds=2, plan=RoundPlan(2, 2))


class Home:
    """A store and blobs as a coordinator would leave them after two rounds, and what its devices know."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.blobs = MemoryBlobs()
        self.receipts: dict[str, str] = {}
        self.trees = [tree for _, tree in run_rounds(SPEC, INITIAL, DEVICES, step)]

    def fill(self, *, version: Tree | None = None, other: bool = False) -> None:
        """`version` stands in for the last one; with `other`, the last update is recorded with other bytes."""
        published = Published("small-1", SPEC)
        state = TaskState.begin(published, 0.0)
        self.events: list[Event] = [published]
        for number in (1, 2):
            for name in DEVICES:
                [assign] = self.take(state, CheckedIn(name))
                assert isinstance(assign, Assign)
                self.report(state, assign.assignment, self.trees[number - 1], other and number == 2)
            tree = version if version is not None and number == 2 else self.trees[number]
            self.take(state, Committed(number, 1, self.publish(tree), ""))
        records = [Recorded(0.0, event) for event in self.events]
        self.store.append("small-1", records, expect=0, epoch=self.store.lead("small-1"))

    def take(self, state: TaskState, event: Event) -> list[object]:
        self.events.append(event)
        return list(state.handle(event, 0.0))

    def report(self, state: TaskState, given: Assignment, params: Tree, other: bool) -> None:
        update = step(given, params)
        found = "ff" * 32 if other else digest(join_trees(update.trees))
        self.receipts[given.id] = found
        self.take(state, Reported(given.id, given.device, found, 1, update.weight))

    def publish(self, tree: Tree) -> str:
        writer = self.blobs.writer("published")
        writer.write(encode(tree))
        return writer.commit()

    def audit(self) -> Account:
        return audit(self.store, self.blobs, "small-1", INITIAL, self.receipts, step)


@pytest.fixture
def home() -> Home:
    return Home()


def test_nothing_is_wrong_with_a_home_that_nobody_touched(home: Home):
    home.fill()
    account = home.audit()
    assert (account.lost, account.doubled, account.wrong) == ((), (), ())
    assert [version.digest for version in account.versions] == [digest(tree) for tree in home.trees[1:]]


def test_an_update_with_a_receipt_and_no_version_is_lost(home: Home):
    home.fill()
    first = next(iter(home.receipts))
    home.receipts |= {"nowhere": "00" * 32, first: "11" * 32}
    assert home.audit().lost == tuple(sorted(("nowhere", first)))


def test_a_version_that_is_not_the_sum_of_its_updates_is_wrong(home: Home):
    last = home.trees[2]
    home.fill(version={**last, "w": np.nextafter(last["w"], np.float32(9))})
    assert home.audit().wrong == (2,)


def test_a_version_of_updates_that_no_device_made_is_wrong(home: Home):
    home.fill(other=True)
    assert home.audit().wrong == (2,)


def test_an_update_in_two_versions_and_two_of_one_device_in_one_are_doubled():
    def given(name: str, device: str) -> Assignment:
        return Assignment(name, "small-1", 1, 1, device, "", 0, 0.0)

    def counted(number: int, **devices: str) -> Round:
        version = ModelVersion(number, "", "", 0.0)
        contributions = tuple(Contribution(name, "", 1) for name in devices)
        return Round(version, contributions, {name: given(name, device) for name, device in devices.items()})

    assert sorted(doubled([counted(1, a="bob", b="alice"), counted(2, c="bob", d="alice")])) == []
    twice = doubled([counted(1, a="bob", b="alice"), counted(2, a="bob", c="carol", d="carol")])
    assert sorted(twice) == ["a", "carol in round 2"]


def test_a_step_is_the_same_each_time_and_another_for_another_seed():
    def made(seed: int) -> Update:
        return step(Assignment("a", "small-1", 1, 1, "bob", "", seed, 0.0), INITIAL)

    assert digest(made(1).delta) == digest(made(1).delta) != digest(made(2).delta)
