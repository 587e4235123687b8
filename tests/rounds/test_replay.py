"""Random histories: what was recorded, cut anywhere, gives the state that lived through them.

A small model that knows only plain sets stands beside the state machine and says what it may never do. Versions are
folded for real, by the server's own fold from what the state asks for, and by the model from what it saw accepted: both
come to the same digests.
"""

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from shoal.core.errors import CorruptStore
from shoal.core.plan import Buffered
from shoal.core.receipt import Receipt
from shoal.core.task import WEIGHT_UNIT, ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import digest
from shoal.core.types import Assignment
from shoal.rounds.effects import (
    Abandon,
    Accept,
    Assign,
    Contribution,
    Discard,
    Effect,
    End,
    Fold,
    Publish,
    Refuse,
)
from shoal.rounds.events import (
    Cancelled,
    CheckedIn,
    Committed,
    Event,
    Extended,
    Failed,
    Late,
    Paused,
    Published,
    Recorded,
    Rejected,
    Released,
    Renewed,
    Reported,
    Resumed,
    Ticked,
)
from shoal.rounds.replay import replay
from shoal.rounds.state import LeaseState, Phase, TaskState
from shoal.store.events import decode_state, encode_state
from tests.rounds.folding import INITIAL, Folding

SPEC = TaskSpec(
    "t",
    {"w": ArraySpec((1,), "float32")},
    rounds=3,
    plan=RoundPlan(goal=1),
    seed=1,
    initial=digest(INITIAL),
    bounds=Bounds(max_abs=4.0, max_weight=16 / WEIGHT_UNIT, max_updates=4),
)
DEVICES = st.sampled_from(["ann", "bob", "carl", "dora"])
TIMES = {"deadline": 20.0, "lease": 6.0}
SYNCHRONOUS = st.builds(
    lambda goal, spare, attempts, confidence, late: RoundPlan(
        goal, max(1, goal - spare), attempts=attempts, confidence=confidence, late=late, **TIMES
    ),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from(["drop", "carry"]),
)
BUFFERED = st.builds(
    lambda size, concurrency, staleness, attempts: RoundPlan(
        max(1, size),
        attempts=attempts,
        buffered=Buffered(max(1, size), concurrency, staleness, "change" if size else "model"),
        **TIMES,
    ),
    st.integers(0, 3),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 3),
)


def copied(state: TaskState) -> TaskState:
    """Copy a state the way a snapshot does."""
    return decode_state(encode_state(state))


@dataclass(frozen=True)
class Taken:
    """An accepted update as the model knows it; `weight` is what it must weigh when it is combined."""

    held: Assignment
    digest: str
    weight: int
    full: int
    commits: int


class Rounds(RuleBasedStateMachine):
    """Drives one task; `held` are assignments that devices remember, for ever.

    The model is a list of accepted updates that wait, in order, and every receipt that was ever given.
    """

    held: Bundle[Assignment] = Bundle("held")

    @initialize(plan=st.one_of(SYNCHRONOUS, BUFFERED))
    def publish(self, plan: RoundPlan) -> None:
        event = Published("t", replace(SPEC, plan=plan))
        self.now, self.plan = 100.0, plan
        self.folding = Folding(event.spec)
        self.state = TaskState.begin(event, self.now)
        self.stream = [Recorded(self.now, event)]
        self.trail = [copied(self.state)]
        self.receipts: dict[str, tuple[Receipt, int]] = {}
        self.waiting: list[Taken] = []
        self.made = [SPEC.initial]
        self.old: list[Committed | Failed] = []
        self.given: dict[str, Assignment] = {}
        self.fold: Fold | None = None
        self.paused = False
        self.reckoned: str | None = None

    def happens(self, event: Event) -> list[Effect]:
        """Drive the state as a server does: record what changed it, and nothing else."""
        before, changes = copied(self.state), self.state.changes
        effects = self.state.handle(event, self.now)
        if self.state.changes == changes:
            assert self.state == before
        else:
            self.stream.append(Recorded(self.now, event))
            self.trail.append(copied(self.state))
        if isinstance(event, Reported) and isinstance(effects[0], Accept):
            self.take(event, effects[0].receipt)
        for effect in effects:
            self.carry_out(effect)
        return effects

    def take(self, event: Reported, receipt: Receipt) -> None:
        """Keep an update in the model the first time it is accepted."""
        if event.assignment in self.receipts:
            return
        held = self.given[event.device]
        assert held.id == event.assignment, "an update counts that its device no longer works on"
        self.receipts[event.assignment] = (receipt, self.commits)
        ahead = len(self.waiting) - len(self.fold.contributions if self.fold else ())
        makes = self.commits + 1 + (1 + ahead // self.plan.goal if self.fold else 0)
        # two versions may have the same bytes: then it started from the one that its round began with
        assert held.version == self.made[held.round - 1]
        behind = makes - held.round
        weight = event.weight
        if self.plan.buffered:
            assert 0 <= behind <= self.plan.buffered.max_staleness
            weight = max(1, round(weight / math.sqrt(1 + behind)))
        else:
            assert behind <= (1 if self.plan.late == "carry" else 0)
        self.waiting.append(Taken(held, event.digest, weight, event.weight, self.commits))

    @property
    def commits(self) -> int:
        return len(self.made) - 1

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Fold():
                assert self.fold is None
                self.check_fold(effect)
                self.fold = effect
            case Publish(version):
                assert self.reckoned is not None
                assert (version.number, version.digest) == (self.commits + 1, self.reckoned)
                self.made.append(version.digest)
                self.fold = None
            case Abandon() | End():
                self.fold = None
            case Discard(digests):
                first = self.waiting[: len(digests)]
                assert sorted(digests) == sorted(each.digest for each in first)
                del self.waiting[: len(digests)]
            case _:
                pass

    def check_fold(self, fold: Fold) -> None:
        first = self.waiting[: self.plan.goal]
        if not self.plan.buffered:
            first.sort(key=lambda each: each.held.id)
            assert len({each.held.device for each in first}) == len(first)
        assert self.plan.minimum <= len(first)
        assert fold.contributions == tuple(Contribution(each.held.id, each.digest, each.weight) for each in first)
        assert (fold.base.number, fold.round) == (self.commits, self.commits + 1)

    @rule(target=held, device=DEVICES)
    def check_in(self, device: str):
        [effect] = self.happens(CheckedIn(device))
        if not isinstance(effect, Assign):
            return multiple()
        given = effect.assignment
        assert not self.paused
        assert given.id not in self.receipts
        if given != self.given.get(device):
            assert (given.device, given.version) == (device, self.state.latest.digest)
            assert given.deadline > self.now
        self.given[device] = given
        return given

    @rule(held=held, weight=st.integers(1, 9), other=st.booleans(), told=st.booleans())
    def report(self, held: Assignment, weight: int, other: bool, told: bool) -> None:
        sent = self.folding.update(held.id, other=other)
        known, commits = self.receipts.get(held.id, (None, 0))
        awaited = self.state.expects(held.id, held.device, self.now)
        effect = self.happens(Reported(held.id, held.device, sent, 1, weight, {"loss": float(weight)}))[0]
        if known is not None and commits >= self.commits - 1:
            assert isinstance(effect, Accept if known.digest == sent else Refuse)
            assert effect.receipt == known
        elif isinstance(effect, Accept):
            assert effect.receipt == Receipt(held.id, sent, self.now)
            assert awaited
        else:
            assert isinstance(effect, Refuse)
            assert (effect.code, awaited) == ("gone", False)
            if told:
                self.happens(Late(held.id, held.device))
                changes = self.state.changes
                self.happens(Late(held.id, held.device))
                assert self.state.changes == changes

    @rule(held=held)
    def renew(self, held: Assignment) -> None:
        self.happens(Renewed(held.id, held.device))

    @rule(held=consumes(held))
    def release(self, held: Assignment) -> None:
        self.happens(Released(held.id, held.device, "battery"))

    @rule(held=held)
    def reject(self, held: Assignment) -> None:
        self.happens(Rejected(held.id, held.device, "refused_update", "NaN"))

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due, folding = self.state.due(self.now), self.fold is not None
        changes = self.state.changes
        self.happens(Ticked())
        assert not due or self.state.changes > changes
        assert due or self.state.changes == changes or folding  # whose leases move with a clock that was set back
        assert not (due and self.paused)

    @rule(seconds=st.sampled_from([1.0, 7.0, 60.0]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.now = max(1.0, self.now - seconds)

    @precondition(lambda self: self.fold is not None)
    @rule(fails=st.integers(0, 4))
    def finish_fold(self, fails: int) -> None:
        work = self.fold
        done: Committed | Failed = Failed(work.round, work.attempt, "full")
        if fails:
            taken = [(each.digest, each.weight, each.full) for each in self.waiting[: self.plan.goal]]
            folded = self.folding.fold(work)
            mixes = self.plan.buffered is not None and self.plan.buffered.mixing == "model"
            start = self.waiting[0].held.version if mixes else ""
            self.reckoned = self.folding.reckon(self.made[-1], "" if start == self.made[-1] else start, taken)
            done = Committed(work.round, work.attempt, folded.digest, folded.checkpoint)
        self.happens(done)
        assert self.fold is not work
        self.old.append(done)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def an_old_fold_is_told_again(self, data: st.DataObject) -> None:
        """As by a coordinator that was asleep, or whose answer was lost."""
        before = self.story()
        assert self.happens(data.draw(st.sampled_from(self.old))) == []
        assert self.story() == before

    @rule(held=held, device=DEVICES, weight=st.integers(1, 9))
    def another_device_reports(self, held: Assignment, device: str, weight: int) -> None:
        if device == held.device or held.id in {**self.state.former, **self.state.receipts}:
            return
        before, changes = self.story(), self.state.changes
        stolen = Reported(held.id, device, self.folding.update(held.id, other=True), 1, weight)
        [effect] = self.happens(stolen)
        assert isinstance(effect, Refuse)
        assert self.state.changes == changes
        assert self.happens(Late(held.id, device)) == []
        assert self.story() == before

    def story(self) -> object:
        """Return all but times, which move where a clock was set back."""
        state = self.state
        leases = [(lease.assignment, lease.state) for lease in state.leases.values()]
        return state.phase, state.round, state.attempt, state.versions, state.buffer, leases, dict(state.receipts)

    @rule()
    def the_coordinator_dies_and_comes_back(self) -> None:
        cut = len(self.stream) // 2
        self.state = replay(self.stream[cut:], copied(self.trail[cut - 1])) if cut else replay(self.stream)
        for effect in self.state.pending():
            assert effect == self.fold

    @rule()
    def pause_or_resume(self) -> None:
        self.happens(Resumed() if self.paused else Paused())
        self.paused = not self.paused and not self.state.phase.over

    @rule(rounds=st.integers(1, 6))
    def extend(self, rounds: int) -> None:
        finished = self.state.phase is Phase.FINISHED
        self.happens(Extended(rounds))
        assert not self.state.phase.over or rounds <= self.commits or self.state.phase is not Phase.FINISHED
        self.paused = self.paused and not finished

    @rule(seldom=st.integers(0, 30))
    def cancel(self, seldom: int) -> None:
        if seldom == 30:
            self.happens(Cancelled("enough"))

    @invariant()
    def a_task_that_is_over_is_not_paused(self) -> None:
        if self.state.phase.over:
            self.paused = False
        assert (self.state.paused is not None) == self.paused

    @invariant()
    def no_round_takes_more_than_its_goal(self) -> None:
        assert self.state.reports <= self.plan.goal
        if self.state.phase is Phase.COLLECTING:
            assert self.state.reports < self.plan.goal

    @invariant()
    def what_waits_is_what_was_accepted(self) -> None:
        expected = [(each.held.id, each.digest, each.weight) for each in self.waiting]
        assert [(each.assignment, each.digest, each.weight) for each in self.state.buffer] == expected

    @invariant()
    def no_more_work_than_was_asked_for(self) -> None:
        offered = [each for each in self.state.leases.values() if each.state is LeaseState.OFFERED]
        assert self.state.roster.offered == len(offered)
        assert len(offered) <= max(record.places for record in self.state.records)

    @invariant()
    def every_version_has_its_minimum_and_its_parent(self) -> None:
        for before, version in zip(self.state.versions, self.state.versions[1:], strict=False):
            assert self.plan.minimum <= version.reports <= self.plan.goal
            assert (version.number, version.parent) == (before.number + 1, before.digest)

    @invariant()
    def records_tell_what_happened(self) -> None:
        committed = [record for record in self.state.records if record.outcome == "committed"]
        assert [record.reported for record in committed] == [version.reports for version in self.state.versions[1:]]
        for record in self.state.records:
            lost = sum(record.dropped.values()) + sum(record.refused.values())
            assert min(record.selecting, record.collecting, record.committing) >= 0
            if not self.plan.buffered and self.plan.late == "drop":
                assert record.carried == 0
                assert record.reported + lost <= record.selected

    @invariant()
    def a_driver_that_starts_anew_does_what_is_left(self) -> None:
        assert self.state.pending() == ([self.fold] if self.fold else [])

    @invariant()
    def receipts_are_kept_for_two_rounds(self) -> None:
        recent = {each: receipt for each, (receipt, commits) in self.receipts.items() if commits >= self.commits - 1}
        assert {**self.state.former, **self.state.receipts} == recent

    def teardown(self) -> None:
        if not hasattr(self, "stream"):
            return
        for cut, state in enumerate(self.trail, 1):
            assert replay(self.stream[:cut]) == state
            assert replay(self.stream[cut:], copied(state)) == self.state


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=settings.default.max_examples * 3 // 4, stateful_step_count=40)


def test_an_empty_stream_is_corrupt():
    with pytest.raises(CorruptStore, match="empty"):
        replay([])


def test_a_stream_that_does_not_begin_with_published_is_corrupt():
    with pytest.raises(CorruptStore, match="begins with Ticked, not Published"):
        replay([Recorded(1.0, Ticked())])


def test_a_snapshot_needs_no_events():
    state = TaskState.begin(Published("t", SPEC), 1.0)
    assert replay([], state) is state
