"""Random histories: what was recorded, cut anywhere, gives the state that lived through them.

A small model that knows only plain sets stands beside the state machine and says what it may never do.
"""

import pickle
from dataclasses import replace

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
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.core.types import Assignment, Receipt
from shoal.rounds.effects import Abandon, Accept, Assign, Discard, Effect, End, Fold, Open, Publish, Refuse
from shoal.rounds.events import (
    Cancelled,
    CheckedIn,
    Committed,
    Event,
    Failed,
    Published,
    Recorded,
    Rejected,
    Released,
    Renewed,
    Reported,
    Ticked,
)
from shoal.rounds.replay import replay
from shoal.rounds.state import LeaseState, Phase, TaskState

SPEC = TaskSpec("t", {"w": ArraySpec((1,), "float32")}, rounds=3, plan=RoundPlan(goal=1), seed=1, initial="v0")
DEVICES = st.sampled_from(["ann", "bob", "carl", "dora"])
PLANS = st.builds(
    lambda goal, spare, attempts: RoundPlan(goal, max(1, goal - spare), deadline=20.0, lease=6.0, attempts=attempts),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 3),
)


def copied(state: TaskState) -> TaskState:
    """Copy a state the way a snapshot does."""
    copy: TaskState = pickle.loads(pickle.dumps(state))
    return copy


class Rounds(RuleBasedStateMachine):
    """Drives one task; `held` are assignments that devices remember, for ever."""

    held: Bundle[Assignment] = Bundle("held")

    @initialize(plan=PLANS)
    def publish(self, plan: RoundPlan) -> None:
        event = Published("t", replace(SPEC, plan=plan))
        self.now, self.plan = 100.0, plan
        self.state = TaskState.begin(event, self.now)
        self.stream = [Recorded(self.now, event)]
        self.trail = [copied(self.state)]
        self.receipts: dict[str, Receipt] = {}
        self.kept: set[str] = set()
        self.fold: Fold | None = None

    def happens(self, event: Event) -> list[Effect]:
        """Drive the state as a server does: record what changed it, and nothing else."""
        before, changes = copied(self.state), self.state.changes
        effects = self.state.handle(event, self.now)
        if self.state.changes == changes:
            assert self.state == before
        else:
            self.stream.append(Recorded(self.now, event))
            self.trail.append(copied(self.state))
        for effect in effects:
            self.carry_out(effect)
        return effects

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Accept(receipt):
                if receipt.assignment not in self.receipts:
                    self.receipts[receipt.assignment] = receipt
                    self.kept = {*self.kept, receipt.digest}
            case Fold():
                assert self.fold is None
                assert {each.digest for each in effect.contributions} == self.kept
                self.fold = effect
            case Publish() | Abandon() | End():
                self.fold = None
            case Discard():
                assert set(effect.digests) == self.kept
                self.kept = set()
            case Open():
                assert not self.kept
            case _:
                pass

    @rule(target=held, device=DEVICES)
    def check_in(self, device: str):
        [effect] = self.happens(CheckedIn(device))
        if not isinstance(effect, Assign):
            return multiple()
        assert (effect.assignment.device, effect.assignment.version) == (device, self.state.latest.digest)
        assert effect.assignment.deadline > self.now
        return effect.assignment

    @rule(held=held, weight=st.integers(1, 9), other=st.booleans())
    def report(self, held: Assignment, weight: int, other: bool) -> None:
        digest = f"{held.id}{'*' if other else ''}"
        known = self.receipts.get(held.id)
        effect = self.happens(Reported(held.id, held.device, digest, 1, weight, {"loss": float(weight)}))[0]
        if known is not None:
            assert isinstance(effect, Accept if known.digest == digest else Refuse)
            assert effect.receipt == known
        elif isinstance(effect, Accept):
            assert effect.receipt == Receipt(held.id, digest, self.now)
        else:
            assert isinstance(effect, Refuse)
            assert effect.code == "gone"

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
        due = self.state.next_timer()
        changes = self.state.changes
        self.happens(Ticked())
        assert (self.state.changes > changes) == (due is not None and due <= self.now)

    @precondition(lambda self: self.fold is not None)
    @rule(fails=st.integers(0, 4))
    def finish_fold(self, fails: int) -> None:
        round_, attempt = self.fold.round, self.fold.attempt
        done = Failed(round_, attempt, "full") if fails == 0 else Committed(round_, attempt, f"v{round_}", "c")
        self.happens(done)
        assert self.fold is None
        self.happens(done)

    @rule(seldom=st.integers(0, 30))
    def cancel(self, seldom: int) -> None:
        if seldom == 30:
            self.happens(Cancelled("enough"))

    @invariant()
    def no_round_takes_more_than_its_goal(self) -> None:
        accepted = [each for each in self.state.leases.values() if each.state is LeaseState.ACCEPTED]
        assert len(accepted) <= self.plan.goal
        assert (len(accepted) == self.plan.goal) <= (self.state.phase is Phase.COMMITTING)

    @invariant()
    def every_version_has_its_minimum_and_its_parent(self) -> None:
        for before, version in zip(self.state.versions, self.state.versions[1:], strict=False):
            assert self.plan.minimum <= version.reports <= self.plan.goal
            assert (version.number, version.parent) == (before.number + 1, before.digest)

    @invariant()
    def a_driver_that_starts_anew_does_what_is_left(self) -> None:
        assert self.state.pending() == ([self.fold] if self.fold else [])

    @invariant()
    def receipts_are_kept(self) -> None:
        assert self.state.receipts == self.receipts

    def teardown(self) -> None:
        if not hasattr(self, "stream"):
            return
        for cut, state in enumerate(self.trail, 1):
            assert replay(self.stream[:cut]) == state
            assert replay(self.stream[cut:], copied(state)) == self.state


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=80, stateful_step_count=40)


def test_an_empty_stream_is_corrupt():
    with pytest.raises(CorruptStore, match="empty"):
        replay([])


def test_a_stream_that_does_not_begin_with_published_is_corrupt():
    with pytest.raises(CorruptStore, match="begins with Ticked, not Published"):
        replay([Recorded(1.0, Ticked())])


def test_a_snapshot_needs_no_events():
    state = TaskState.begin(Published("t", SPEC), 1.0)
    assert replay([], state) is state
