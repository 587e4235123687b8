"""A task's rounds: events in, effects out, compared as lists. Time is a number that each test picks."""

import copy
import pickle
from dataclasses import replace

import pytest

from shoal.core.receipt import Receipt
from shoal.core.seeds import derive
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.core.types import Assignment, Costs, ModelVersion
from shoal.rounds.effects import (
    Abandon,
    Accept,
    Assign,
    Contribution,
    Discard,
    End,
    Extend,
    Fold,
    Open,
    Publish,
    Refuse,
    Wait,
)
from shoal.rounds.events import (
    Cancelled,
    CheckedIn,
    Committed,
    Failed,
    Published,
    Rejected,
    Released,
    Renewed,
    Reported,
    Ticked,
)
from shoal.rounds.state import RETRY_AFTER, LeaseState, Phase, TaskState

PLAN = RoundPlan(goal=2, minimum=1, deadline=100.0, lease=30.0, attempts=2)
SPEC = TaskSpec("boston", {"w": ArraySpec((1,), "float32")}, rounds=2, plan=PLAN, seed=7, initial="v0")


def begun(**plan) -> TaskState:
    return TaskState.begin(Published("t1", replace(SPEC, plan=replace(PLAN, **plan))), 0.0)


def assign(state: TaskState, device: str, now: float) -> Assignment:
    """Check a device in that must get work."""
    [effect] = state.handle(CheckedIn(device), now)
    assert isinstance(effect, Assign)
    return effect.assignment


def report(assignment: Assignment, digest: str = "", **fields) -> Reported:
    fields = {"size": 10, "weight": 1, **fields}
    return Reported(assignment.id, assignment.device, digest or f"update of {assignment.device}", **fields)


def accept(state: TaskState, assignment: Assignment, now: float) -> Receipt:
    """Report an update that must be accepted."""
    effect = state.handle(report(assignment), now)[0]
    assert isinstance(effect, Accept)
    return effect.receipt


def closed(state: TaskState, now: float = 1.0) -> list[Assignment]:
    """Bring a round with goal 2 to its fold."""
    taken = [assign(state, device, now) for device in ("ann", "bob")]
    for each in taken:
        accept(state, each, now)
    assert state.phase is Phase.COMMITTING
    return taken


def unchanged(state: TaskState, event, now: float) -> list:
    """Handle an event that must leave the state as it was."""
    before = copy.deepcopy(state)
    effects = state.handle(event, now)
    assert state == before
    return effects


def refusal(effects: list) -> Refuse:
    [effect] = effects
    assert isinstance(effect, Refuse)
    return effect


def test_a_full_run_from_publish_to_finish():
    state = begun()
    ann, bob = assign(state, "ann", 10.0), assign(state, "bob", 11.0)
    assert ann == Assignment(ann.id, "t1", 1, 1, "ann", "v0", derive(7, 1, "ann"), 110.0)
    assert ann.id != bob.id
    assert state.handle(report(ann, "da", weight=5), 12.0) == [Accept(Receipt(ann.id, "da", 12.0))]

    contributions = sorted([Contribution(ann.id, "da", 5), Contribution(bob.id, "db", 6)], key=lambda c: c.assignment)
    initial = ModelVersion(0, "v0", "", 0.0)
    assert state.handle(report(bob, "db", weight=6), 13.0) == [
        Accept(Receipt(bob.id, "db", 13.0)),
        Fold(1, 1, initial, tuple(contributions)),
    ]

    first = ModelVersion(1, "v1", "v0", 14.0, "c1", 2)
    digests = tuple(each.digest for each in contributions)
    assert state.handle(Committed(1, 1, "v1", "c1"), 14.0) == [Publish(first), Discard(digests), Open(2, 1)]

    carl, ann = assign(state, "carl", 20.0), assign(state, "ann", 21.0)
    assert (carl.round, carl.version, carl.deadline) == (2, "v1", 120.0)
    state.handle(report(carl, "dc"), 22.0)
    fold = state.handle(report(ann, "da2"), 23.0)[1]
    assert fold.base == first
    effects = state.handle(Committed(2, 1, "v2", "c2"), 24.0)
    second = ModelVersion(2, "v2", "v1", 24.0, "c2", 2)
    assert effects[0] == Publish(second)
    assert effects[2:] == [End("finished", "2 rounds are done")]
    assert (state.phase, state.versions) == (Phase.FINISHED, [initial, first, second])


def test_places_are_as_many_as_the_goal():
    state = begun()
    assign(state, "ann", 0.0)
    assign(state, "bob", 0.0)
    assert unchanged(state, CheckedIn("carl"), 1.0) == [Wait("carl", "round 1 has its 2 devices", RETRY_AFTER)]
    assert unchanged(state, CheckedIn("carl"), 98.0) == [Wait("carl", "round 1 has its 2 devices", 2.0)]


def test_a_repeated_check_in_gives_the_same_assignment_and_no_longer_lease():
    state = begun()
    first = assign(state, "ann", 0.0)
    assert unchanged(state, CheckedIn("ann"), 20.0) == [Assign(first, PLAN.lease)]
    state.handle(Ticked(), 30.0)
    assert state.leases["ann"].state is LeaseState.EXPIRED


def test_a_device_counts_once_in_a_round():
    state = begun()
    accept(state, assign(state, "ann", 0.0), 1.0)
    assert unchanged(state, CheckedIn("ann"), 2.0) == [Wait("ann", "already accepted in round 1", RETRY_AFTER)]


def test_the_deadline_counts_from_the_first_device():
    state = begun()
    assert state.next_timer() is None
    assert unchanged(state, Ticked(), 10_000.0) == []
    assert assign(state, "ann", 10_000.0).deadline == 10_100.0
    assert assign(state, "bob", 10_050.0).deadline == 10_100.0


def test_the_next_timer_is_the_first_thing_that_is_due():
    state = begun()
    ann = assign(state, "ann", 0.0)
    assign(state, "bob", 10.0)
    assert state.next_timer() == 30.0
    accept(state, ann, 11.0)
    assert state.next_timer() == 40.0
    state.handle(Ticked(), 40.0)
    assert state.next_timer() == 100.0
    state.handle(Ticked(), 100.0)
    assert state.next_timer() is None


def test_a_tick_with_nothing_due_changes_nothing():
    state = begun()
    assign(state, "ann", 0.0)
    for now in (0.0, 15.0, 29.999):
        assert unchanged(state, Ticked(), now) == []


def test_the_deadline_with_the_minimum_closes_the_round():
    state = begun()
    ann = assign(state, "ann", 0.0)
    assign(state, "bob", 0.0)
    accept(state, ann, 1.0)
    assert unchanged(state, Ticked(), 29.0) == []
    assert state.handle(Ticked(), 100.0) == [
        Fold(1, 1, state.latest, (Contribution(ann.id, "update of ann", 1),)),
    ]
    assert state.phase is Phase.COMMITTING


def test_the_deadline_with_too_few_abandons_until_the_attempts_are_used_up():
    state = begun(minimum=2)
    reason = "round 1 got 1 of at least 2 reports in 100 s"
    first = assign(state, "ann", 0.0)
    accept(state, first, 1.0)
    assert state.handle(Ticked(), 100.0) == [Abandon(1, 1, reason), Discard(("update of ann",)), Open(1, 2)]
    assert (state.latest.digest, state.round, state.attempt, state.leases) == ("v0", 1, 2, {})

    second = assign(state, "ann", 500.0)
    assert second.id != first.id
    assert (second.seed, second.version, second.deadline) == (first.seed, "v0", 600.0)
    accept(state, second, 501.0)
    assert state.handle(Ticked(), 600.0) == [
        Abandon(1, 2, reason),
        Discard(("update of ann",)),
        End("failed", reason),
    ]
    assert (state.phase, state.reason, state.latest.number) == (Phase.FAILED, reason, 0)


def test_attempts_are_counted_anew_in_each_round():
    state = begun()
    assign(state, "ann", 0.0)
    state.handle(Ticked(), 100.0)
    assert state.attempt == 2
    closed(state, 200.0)
    assert state.handle(Committed(1, 2, "v1", ""), 201.0)[-1] == Open(2, 1)


@pytest.mark.parametrize("event", [CheckedIn("ann"), CheckedIn("new")])
def test_at_the_deadline_nobody_is_sent_to_train_for_nothing(event):
    state = begun()
    assign(state, "ann", 0.0)
    assert unchanged(state, event, 100.0) == [Wait(event.device, "round 1 is at its deadline", 0.0)]


def test_at_the_deadline_reports_and_renewals_are_too_late():
    state = begun()
    ann = assign(state, "ann", 0.0)
    state.handle(Renewed(ann.id, "ann"), 90.0)
    assert refusal(unchanged(state, report(ann), 100.0)).code == "gone"
    assert refusal(unchanged(state, Renewed(ann.id, "ann"), 100.0)).code == "gone"
    accept(state, ann, 99.999)


def test_an_expired_lease_frees_its_place():
    state = begun()
    assign(state, "ann", 0.0)
    assign(state, "bob", 5.0)
    assert state.handle(Ticked(), 30.0) == []
    assert [lease.state for lease in state.leases.values()] == [LeaseState.EXPIRED, LeaseState.OFFERED]
    assert assign(state, "carl", 31.0).device == "carl"


def test_an_expired_device_comes_back_to_the_same_assignment():
    state = begun()
    first = assign(state, "ann", 0.0)
    state.handle(Ticked(), 30.0)
    assert assign(state, "ann", 50.0) == first
    assert state.leases["ann"].expires == 80.0
    assert accept(state, first, 60.0).assignment == first.id


def test_an_expired_device_whose_place_was_given_away_waits():
    state = begun(goal=1)
    assign(state, "ann", 0.0)
    state.handle(Ticked(), 30.0)
    assign(state, "bob", 31.0)
    assert unchanged(state, CheckedIn("ann"), 32.0) == [Wait("ann", "round 1 has its 1 devices", RETRY_AFTER)]


def test_a_late_report_counts_while_the_round_is_open_and_the_first_reports_close_it():
    state = begun()
    ann, bob = assign(state, "ann", 0.0), assign(state, "bob", 0.0)
    state.handle(Ticked(), 30.0)
    carl, dora = assign(state, "carl", 31.0), assign(state, "dora", 31.0)
    assert len(state.leases) == 4
    accept(state, ann, 32.0)
    accepted, fold = state.handle(report(dora), 33.0)
    assert accepted == Accept(Receipt(dora.id, "update of dora", 33.0))
    assert {each.assignment for each in fold.contributions} == {ann.id, dora.id}
    for late in (bob, carl):
        assert refusal(unchanged(state, report(late), 34.0)).code == "gone"


def test_a_report_after_its_lease_ran_out_but_before_the_tick_counts():
    state = begun()
    ann = assign(state, "ann", 0.0)
    accept(state, ann, 50.0)
    state.handle(Ticked(), 51.0)
    assert state.leases["ann"].state is LeaseState.ACCEPTED


def test_renewing_extends_the_lease():
    state = begun()
    ann = assign(state, "ann", 0.0)
    assert state.handle(Renewed(ann.id, "ann"), 20.0) == [Extend(ann.id, 50.0)]
    assert unchanged(state, Ticked(), 49.0) == []
    state.handle(Ticked(), 50.0)
    assert refusal(unchanged(state, Renewed(ann.id, "ann"), 51.0)).code == "gone"


def test_a_released_place_is_free_for_others_but_not_for_the_same_device():
    state = begun(goal=1)
    ann = assign(state, "ann", 0.0)
    assert state.handle(Released(ann.id, "ann", "battery"), 1.0) == []
    assert state.leases["ann"].reason == "battery"
    assert unchanged(state, CheckedIn("ann"), 2.0) == [Wait("ann", "already released in round 1", RETRY_AFTER)]
    assert refusal(unchanged(state, Released(ann.id, "ann", "again"), 3.0)).code == "gone"
    assert refusal(unchanged(state, report(ann), 3.0)).code == "gone"
    assign(state, "bob", 4.0)


@pytest.mark.parametrize("expired", [False, True])
def test_a_rejected_device_is_not_asked_again_in_this_attempt(expired):
    state = begun(goal=1)
    ann = assign(state, "ann", 0.0)
    if expired:
        state.handle(Ticked(), 30.0)
    assert state.handle(Rejected(ann.id, "ann", "refused_update", "array 'w' holds NaN"), 31.0) == []
    assert state.leases["ann"].reason == "refused_update: array 'w' holds NaN"
    assert unchanged(state, CheckedIn("ann"), 32.0) == [Wait("ann", "already rejected in round 1", RETRY_AFTER)]
    assert refusal(unchanged(state, report(ann), 33.0)).code == "gone"
    assign(state, "bob", 34.0)
    state.handle(Ticked(), 100.0)
    assert assign(state, "ann", 101.0).attempt == 2


def test_an_accepted_update_cannot_be_rejected_or_released_afterwards():
    state = begun()
    ann = assign(state, "ann", 0.0)
    accept(state, ann, 1.0)
    assert unchanged(state, Rejected(ann.id, "ann", "refused_update", "too late"), 2.0) == []
    assert refusal(unchanged(state, Released(ann.id, "ann", "too late"), 2.0)).code == "gone"


def test_a_repeated_report_gets_the_same_receipt_for_ever():
    state = begun()
    ann, _ = closed(state)
    receipt = Receipt(ann.id, "update of ann", 1.0)
    assert unchanged(state, report(ann), 2.0) == [Accept(receipt)]
    state.handle(Committed(1, 1, "v1", ""), 3.0)
    assert unchanged(state, report(ann), 4.0) == [Accept(receipt)]
    state.handle(Cancelled("enough"), 5.0)
    assert unchanged(state, report(ann), 6.0) == [Accept(receipt)]


def test_another_digest_conflicts_and_comes_with_the_original_receipt():
    state = begun()
    ann = assign(state, "ann", 0.0)
    receipt = accept(state, ann, 1.0)
    refused = refusal(unchanged(state, report(ann, "other"), 2.0))
    assert (refused.code, refused.receipt) == ("conflict", receipt)
    assert "digest update of ann, not other" in refused.problem


def test_a_report_of_a_former_round_or_of_nobody_is_gone():
    state = begun()
    ann = assign(state, "ann", 0.0)
    state.handle(Ticked(), 100.0)
    again = assign(state, "ann", 101.0)
    assert again.id != ann.id
    refused = refusal(unchanged(state, report(ann), 102.0))
    assert (refused.code, refused.assignment, refused.receipt) == ("gone", ann.id, None)
    assert "no place in round 1" in refused.problem
    assert refusal(unchanged(state, Reported("made up", "ann", "d", 1, 1), 103.0)).code == "gone"
    assert refusal(unchanged(state, Reported(again.id, "mallory", "d", 1, 1), 104.0)).code == "gone"


def test_while_a_round_is_combined_devices_wait_and_time_stands_still():
    state = begun()
    closed(state)
    assert unchanged(state, CheckedIn("carl"), 2.0) == [Wait("carl", "round 1 is being combined", 0.0)]
    assert unchanged(state, Ticked(), 10_000.0) == []


def test_pending_is_the_fold_that_a_crash_interrupted():
    state = begun()
    ann = assign(state, "ann", 0.0)
    assert state.pending() == []
    accept(state, ann, 1.0)
    fold = state.handle(report(assign(state, "bob", 1.0)), 2.0)[1]
    assert pickle.loads(pickle.dumps(state)).pending() == [fold]
    state.handle(Committed(1, 1, "v1", ""), 3.0)
    assert state.pending() == []


@pytest.mark.parametrize("event", [Committed(2, 1, "x", ""), Committed(1, 2, "x", ""), Failed(1, 2, "x")])
def test_what_is_said_of_another_attempt_is_ignored(event):
    state = begun()
    closed(state)
    assert unchanged(state, event, 2.0) == []


def test_a_second_commit_changes_nothing():
    state = begun()
    closed(state)
    state.handle(Committed(1, 1, "v1", ""), 2.0)
    assert unchanged(state, Committed(1, 1, "v1", ""), 3.0) == []
    assert len(state.versions) == 2


def test_a_commit_while_collecting_changes_nothing():
    assert unchanged(begun(), Committed(1, 1, "v1", ""), 3.0) == []


def test_a_failed_fold_abandons_the_attempt():
    state = begun()
    closed(state)
    effects = state.handle(Failed(1, 1, "the new version holds NaN"), 2.0)
    assert effects[0] == Abandon(1, 1, "the new version holds NaN")
    assert effects[-1] == Open(1, 2)
    closed(state, 3.0)
    assert state.handle(Failed(1, 2, "NaN again"), 4.0)[-1] == End("failed", "NaN again")
    assert (state.latest.digest, state.phase) == ("v0", Phase.FAILED)


@pytest.mark.parametrize("committing", [False, True])
def test_cancelling_ends_the_task_and_frees_its_bytes(committing):
    state = begun()
    if committing:
        digests = tuple(f"update of {each.device}" for each in sorted(closed(state), key=lambda each: each.id))
    else:
        accept(state, assign(state, "ann", 0.0), 1.0)
        digests = ("update of ann",)
    assert state.handle(Cancelled("enough"), 2.0) == [Discard(digests), End("cancelled", "enough")]
    assert (state.phase, state.reason, state.phase.over) == (Phase.CANCELLED, "enough", True)
    assert state.next_timer() is None
    assert state.pending() == []


def test_a_task_that_is_over_answers_devices_and_ignores_the_rest():
    state = begun()
    ann = assign(state, "ann", 0.0)
    state.handle(Cancelled("enough"), 1.0)
    [wait] = unchanged(state, CheckedIn("ann"), 2.0)
    assert wait == Wait("ann", "task 'boston' is cancelled", RETRY_AFTER)
    for event in (report(ann), Renewed(ann.id, "ann"), Released(ann.id, "ann", "x")):
        assert refusal(unchanged(state, event, 2.0)).code == "gone"
    for event in (Ticked(), Cancelled("again"), Failed(1, 1, "x"), Committed(1, 1, "x", ""), Published("t1", SPEC)):
        assert unchanged(state, event, 10_000.0) == []


def test_a_second_publish_changes_nothing():
    assert unchanged(begun(), Published("t1", replace(SPEC, rounds=9)), 1.0) == []


def version_of(*reports: dict) -> ModelVersion:
    state = begun(goal=len(reports))
    for number, fields in enumerate(reports):
        state.handle(report(assign(state, f"d{number}", 0.0), **fields), 1.0)
    state.handle(Committed(1, 1, "v1", ""), 2.0)
    return state.latest


def test_metrics_are_weighted_means_over_those_who_measured_them():
    version = version_of(
        {"weight": 1, "metrics": {"loss": 4.0, "accuracy": 0.5}},
        {"weight": 3, "metrics": {"loss": 8.0}},
        {"weight": 9, "metrics": {}},
    )
    assert version.metrics == {"accuracy": 0.5, "loss": 7.0}
    assert version.reports == 3


def test_one_devices_bad_metric_does_not_spoil_the_mean_nor_stop_the_task():
    bad = [{"metrics": {"loss": value, "worst": value}} for value in (float("nan"), float("inf"), float("-inf"))]
    assert version_of(*bad, {"metrics": {"loss": 2.0}}).metrics == {"loss": 2.0}
    huge = {"weight": 1 << 36, "metrics": {"loss": 1e308}}
    assert version_of(huge, huge, huge).metrics["loss"] == pytest.approx(1e308)


def test_costs_are_summed():
    version = version_of({"costs": Costs(1.0, 2.0, 3.0, 4, 5)}, {"costs": Costs(0.5, 0.25, 0.0, 10, 20)})
    assert version.costs == Costs(1.5, 2.25, 3.0, 14, 25)


def test_changes_grow_only_with_the_state():
    state = begun()
    seen = [state.changes]
    ann, bob = assign(state, "ann", 0.0), assign(state, "bob", 0.0)
    for event in (Renewed(ann.id, "ann"), report(ann), Released(bob.id, "bob", "battery"), Cancelled("enough")):
        seen.append(state.changes)
        state.handle(event, 1.0)
    seen.append(state.changes)
    assert seen == sorted(set(seen))
