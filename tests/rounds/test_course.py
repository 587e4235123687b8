"""Over-selection, late updates, buffered rounds, early stopping, and what people say to a running task."""

import copy
from dataclasses import replace

import pytest

from shoal.core.errors import TaskError
from shoal.core.plan import Buffered, EarlyStop
from shoal.core.receipt import Receipt
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.core.types import Assignment
from shoal.rounds.effects import Abandon, Accept, Assign, Contribution, Discard, End, Extend, Fold, Open, Refuse, Wait
from shoal.rounds.events import (
    Cancelled,
    CheckedIn,
    Committed,
    Extended,
    Failed,
    Late,
    Paused,
    Published,
    Rejected,
    Released,
    Renewed,
    Reported,
    Resumed,
    Ticked,
)
from shoal.rounds.fairness import Turns
from shoal.rounds.record import DEADLINE, EXPIRED
from shoal.rounds.state import LeaseState, Phase, TaskState

PLAN = RoundPlan(goal=2, minimum=1, deadline=100.0, lease=30.0, attempts=2)
SPEC = TaskSpec("boston", {"w": ArraySpec((1,), "float32")}, rounds=4, plan=PLAN, seed=7, initial="v0")


def begun(stop: EarlyStop | None = None, rounds: int = 4, **plan) -> TaskState:
    return TaskState.begin(Published("t", replace(SPEC, plan=replace(PLAN, **plan), stop=stop, rounds=rounds)), 0.0)


def buffered(size: int = 2, concurrency: int = 3, staleness: int = 2, mixing="change", **plan) -> TaskState:
    return begun(goal=size, buffered=Buffered(size, concurrency, staleness, mixing), **plan)


def assign(state: TaskState, device: str, now: float = 1.0) -> Assignment:
    [effect] = state.handle(CheckedIn(device), now)
    assert isinstance(effect, Assign), effect
    return effect.assignment


def report(state: TaskState, given: Assignment, now: float = 2.0, **fields) -> list:
    fields = {"size": 10, "weight": 100, **fields}
    return state.handle(Reported(given.id, given.device, f"{given.device} from {given.version}", **fields), now)


def take_part(state: TaskState, *devices: str, now: float = 1.0, **fields) -> list:
    """Let devices get work and report; return the effects of the last report."""
    given = [assign(state, device, now) for device in devices]
    return [report(state, each, now, **fields) for each in given][-1]


def commit(state: TaskState, now: float = 3.0) -> list:
    return state.handle(Committed(state.round, state.attempt, f"v{state.round}", ""), now)


def unchanged(state: TaskState, event, now: float) -> list:
    before = copy.deepcopy(state)
    effects = state.handle(event, now)
    assert state == before
    return effects


def is_gone(effects: list) -> bool:
    return isinstance(effects[0], Refuse) and effects[0].code == "gone"


# Over-selection


def test_more_devices_are_asked_when_some_drop_out():
    state = begun(goal=5, confidence=0.95)
    assert state.record.places == 7  # P(Binomial(7, 0.9) >= 5) = 0.974, of 6 it is 0.886
    given = [assign(state, f"d{number}") for number in range(7)]
    assert unchanged(state, CheckedIn("more"), 1.0)[0] == Wait("more", "round 1 has its 7 devices", 5.0)
    *_, effects = [report(state, each) for each in given[:5]]
    assert isinstance(effects[1], Fold)
    commit(state)
    assert state.records[0].dropped == {}
    assert state.record.places == 7  # 14 of 15 parts were reported: P(Binomial(6, 14/15) >= 5) = 0.944


def test_those_who_come_after_the_close_are_gone_and_counted_once():
    state = begun(goal=1, confidence=0.95)
    first, second = assign(state, "ann"), assign(state, "bob")
    report(state, first)
    assert not state.expects(second.id, "bob", 2.0)
    assert is_gone(report(state, second))
    state.handle(Late(second.id, "bob"), 2.0)
    assert state.record.late == 1
    assert unchanged(state, Late(second.id, "bob"), 2.0) == []
    assert unchanged(state, Late("made up", "carl"), 2.0) == []


def test_a_late_device_is_counted_in_its_own_round():
    state = begun(goal=1, confidence=0.95)
    first, second = assign(state, "ann"), assign(state, "bob")
    report(state, first)
    commit(state)
    assert state.leases["bob"].state is LeaseState.LATE
    assert is_gone(report(state, second))
    state.handle(Late(second.id, "bob"), 4.0)
    assert [record.late for record in state.records] == [1, 0]
    assert "bob" not in state.leases


def test_an_update_that_is_awaited_is_not_late():
    state = begun()
    given = assign(state, "ann")
    assert unchanged(state, Late(given.id, "ann"), 2.0) == []


# Carried updates


def carrying(goal: int = 2) -> tuple[TaskState, Assignment, list]:
    """Close round 1 with its goal while dora still works."""
    state = begun(goal=goal, late="carry", confidence=0.95)
    dora = assign(state, "dora")
    return state, dora, take_part(state, *[f"d{number}" for number in range(goal)])


@pytest.mark.parametrize("committing", [True, False])
def test_a_late_update_counts_with_its_weight_in_the_next_round(committing):
    state, dora, _ = carrying()
    if not committing:
        commit(state)
    accepted = report(state, dora, 5.0, weight=77)
    assert accepted == [Accept(Receipt(dora.id, "dora from v0", 5.0))]
    if committing:
        commit(state, 6.0)
    assert (state.round, state.reports, state.opened is not None) == (2, 1, True)
    [_, fold] = take_part(state, "ann", now=7.0)
    assert Contribution(dora.id, "dora from v0", 77) in fold.contributions
    assert (fold.base.digest, fold.share) == ("v1", 1.0)
    assert (state.record.reported, state.record.carried) == (2, 1)
    assert unchanged(state, Reported(dora.id, "dora", "dora from v0", 10, 77), 8.0) == accepted


def test_a_device_whose_late_update_counts_takes_no_other_part_in_the_round():
    state, dora, _ = carrying()
    commit(state)
    report(state, dora)
    assert isinstance(unchanged(state, CheckedIn("dora"), 5.0)[0], Wait)


def test_a_device_that_asks_for_new_work_gives_up_its_late_update():
    state, dora, _ = carrying()
    commit(state)
    again = assign(state, "dora", 4.0)
    assert (again.round, again.version) == (2, "v1")
    assert is_gone(report(state, dora))


def test_an_update_is_carried_for_one_round_only():
    state, dora, _ = carrying()
    commit(state)
    assert state.handle(Renewed(dora.id, "dora"), 4.0) == [Extend(dora.id, 34.0)]
    take_part(state, "ann", "bob", now=4.0)
    commit(state)
    assert is_gone(report(state, dora))
    assert "dora" not in state.leases


def test_carried_updates_alone_close_the_next_round():
    state, dora, _ = carrying(goal=1)
    report(state, dora)
    effects = commit(state, 6.0)
    assert effects[-2] == Open(2, 1)
    assert effects[-1].contributions == (Contribution(dora.id, "dora from v0", 100),)


def test_nothing_is_carried_past_the_last_round():
    state = begun(rounds=1, goal=1, late="carry", confidence=0.95)
    dora = assign(state, "dora")
    take_part(state, "ann")
    assert is_gone(report(state, dora))


# Buffered rounds


def test_every_full_buffer_makes_a_version_and_devices_come_again():
    state = buffered(size=2, concurrency=1)
    first = assign(state, "ann")
    assert isinstance(unchanged(state, CheckedIn("bob"), 1.0)[0], Wait)
    report(state, first)
    second = assign(state, "ann")
    assert second.version == first.version
    assert second.id != first.id
    assert second.seed != first.seed
    [_, fold] = report(state, second)
    assert [each.assignment for each in fold.contributions] == [first.id, second.id]


def test_a_device_has_one_outstanding_update_whatever_happens_meanwhile():
    state = buffered(size=2, concurrency=3)
    given = assign(state, "slow")
    assert unchanged(state, CheckedIn("slow"), 2.0)[0].assignment == given
    take_part(state, "ann", "bob")
    assert unchanged(state, CheckedIn("slow"), 3.0)[0].assignment == given
    commit(state)  # the same work goes on, from the version it began with
    assert unchanged(state, CheckedIn("slow"), 4.0)[0].assignment == given
    assert [lease.assignment.id for lease in state.leases.values() if lease.state is LeaseState.OFFERED] == [given.id]
    accepted = report(state, given, 5.0)
    assert unchanged(state, Reported(given.id, "slow", "slow from v0", 10, 100), 6.0) == accepted
    assert state.reports == 1
    assert assign(state, "slow", 7.0).id != given.id


def test_work_that_ran_out_frees_its_place_and_a_later_one_is_another():
    state = buffered(size=2, concurrency=1)
    first = assign(state, "slow", 0.0)
    assert isinstance(unchanged(state, CheckedIn("ann"), 1.0)[0], Wait)
    state.handle(Ticked(), 31.0)
    again = assign(state, "slow", 32.0)
    assert isinstance(unchanged(state, CheckedIn("ann"), 33.0)[0], Wait)
    assert len([lease for lease in state.leases.values() if lease.state is LeaseState.OFFERED]) == 1
    report(state, again, 34.0)
    assert (state.reports, again.device) == (1, first.device)


def test_a_stale_update_is_damped_by_the_versions_it_is_behind():
    state = buffered(size=2, concurrency=4, staleness=3)
    slow = assign(state, "slow")
    for _ in range(3):
        take_part(state, "ann", "bob")
        commit(state)
    report(state, slow)
    [_, fold] = take_part(state, "ann")
    assert fold.contributions == (
        Contribution(slow.id, "slow from v0", 50),  # 100 / sqrt(1 + 3)
        Contribution(fold.contributions[1].assignment, "ann from v3", 100),
    )
    assert (fold.share, fold.start, fold.base.digest) == (0.75, "", "v3")


def test_while_a_version_is_made_updates_count_for_the_next_one():
    state = buffered(size=2, concurrency=3)
    given = [assign(state, device) for device in ("ann", "bob", "carl")]
    for each in given:
        report(state, each)
    assert (state.phase, state.folding, len(state.buffer)) == (Phase.COMMITTING, 2, 3)
    assert state.buffer[2].weight == 71  # 100 / sqrt(2): it changes version 1, and started from version 0
    commit(state)
    assert (state.reports, state.record.reported, state.record.carried) == (1, 1, 1)


def test_a_slow_fold_does_not_let_the_buffer_grow_for_ever():
    state = buffered(size=1, concurrency=1)
    take_part(state, "ann")
    take_part(state, "bob")
    assert unchanged(state, CheckedIn("carl"), 2.0)[0] == Wait("carl", "round 1 is being combined", 0.0)
    assert [type(effect) for effect in commit(state)][-2:] == [Open, Fold]


def test_an_update_that_is_too_stale_is_refused():
    state = buffered(size=1, concurrency=2, staleness=1)
    slow = assign(state, "slow")
    for _ in range(2):
        take_part(state, "ann")
        commit(state)
    assert is_gone(report(state, slow))
    state.handle(Late(slow.id, "slow"), 4.0)
    assert [record.late for record in state.records] == [1, 0, 0]


def test_at_the_deadline_a_buffer_with_the_minimum_is_combined_and_one_without_is_kept():
    state = buffered(size=3, minimum=2)
    take_part(state, "ann")
    assert state.handle(Ticked(), 101.0) == [
        Abandon(1, 1, "round 1 got 1 of at least 2 reports in 100 s"),
        Open(1, 2),
    ]
    take_part(state, "bob", now=102.0)
    [fold] = state.handle(Ticked(), 201.0)
    assert [each.digest for each in fold.contributions] == ["ann from v0", "bob from v0"]


def test_fedasync_names_the_version_that_its_update_started_from():
    state = buffered(size=1, concurrency=2, mixing="model")
    slow = assign(state, "slow")
    [_, fold] = take_part(state, "ann")
    assert (fold.start, fold.share) == ("", 1.0)
    commit(state)
    [_, fold] = report(state, slow)
    assert (fold.start, fold.base.digest) == ("v0", "v1")
    assert fold.share == pytest.approx(0.71)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Buffered(0, 1),
        lambda: Buffered(2, 0),
        lambda: Buffered(2, 2, -1),
        lambda: Buffered(2, 2, mixing="model"),
        lambda: replace(PLAN, buffered=Buffered(3, 3)),
        lambda: replace(PLAN, buffered=Buffered(2, 3), late="carry"),
        lambda: replace(PLAN, confidence=1.0),
        lambda: EarlyStop("loss", 0),
        lambda: EarlyStop("loss", 1, -0.1),
    ],
)
def test_plans_that_cannot_be_are_refused(wrong):
    with pytest.raises(TaskError):
        wrong()


# Early stopping


def trained(state: TaskState, *losses: float) -> list:
    for loss in losses:
        take_part(state, "ann", "bob", metrics={"loss": loss})
        effects = commit(state)
    return effects


def test_a_task_ends_when_its_metric_no_longer_improves():
    state = begun(EarlyStop("loss", patience=2, min_improvement=0.1), rounds=9)
    assert trained(state, 4.0, 3.0, 2.95)[-1] == Open(4, 1)
    reason = "'loss' has not improved by more than 0.1 in 2 versions: 3 in version 2 was the best"
    assert trained(state, 2.91)[-1] == End("finished", reason)
    assert state.phase is Phase.FINISHED


def test_higher_can_be_better_and_a_metric_nobody_measures_is_named():
    state = begun(EarlyStop("loss", patience=1, better="higher"), rounds=9)
    assert trained(state, 1.0, 2.0)[-1] == Open(3, 1)
    assert trained(state, 2.0)[-1].reason.endswith("2 in version 2 was the best")
    missing = begun(EarlyStop("accuracy", patience=2), rounds=9)
    assert trained(missing, 1.0, 0.5)[-1] == End("finished", "no report of 2 versions measured 'accuracy'")


# Pause, resume, extend


def test_while_a_task_is_paused_no_time_passes_for_its_round():
    state = begun()
    ann = assign(state, "ann", 0.0)
    assert state.handle(Paused(), 10.0) == []
    assert unchanged(state, Paused(), 11.0) == []
    assert unchanged(state, CheckedIn("bob"), 12.0) == [Wait("bob", "task 'boston' is paused", 5.0)]
    assert unchanged(state, Ticked(), 5000.0) == []
    assert state.next_timer() is None
    assert state.handle(Resumed(), 1010.0) == [Open(1, 1)]
    assert unchanged(state, Resumed(), 1010.0) == []
    assert (state.next_timer(), state.deadline) == (1030.0, 1100.0)
    assert isinstance(report(state, ann, 1020.0)[0], Accept)


def test_work_under_way_is_taken_while_a_task_is_paused():
    state = begun()
    given = [assign(state, device, 0.0) for device in ("ann", "bob")]
    state.handle(Paused(), 10.0)
    *_, effects = [report(state, each, 5000.0) for each in given]
    assert isinstance(effects[1], Fold)
    assert commit(state, 5001.0)[-1] == Open(2, 1)
    assert isinstance(unchanged(state, CheckedIn("ann"), 5002.0)[0], Wait)
    state.handle(Resumed(), 6000.0)
    assert assign(state, "ann", 6001.0).deadline == 6101.0


def test_a_finished_task_goes_on_when_it_is_extended():
    state = begun(EarlyStop("loss", patience=1), rounds=9)
    trained(state, 1.0, 2.0)
    assert state.phase is Phase.FINISHED
    assert unchanged(state, Extended(2), 9.0) == []
    assert state.handle(Extended(4), 9.0) == [Open(3, 1)]
    assert trained(state, 3.0)[-1] == Open(4, 1)  # patience counts anew: the first value is the best so far
    assert trained(state, 2.0)[-1] == End("finished", "4 rounds are done")


def test_a_running_task_gets_more_rounds_and_a_cancelled_one_none():
    state = begun(rounds=1)
    assert state.handle(Extended(2), 1.0) == []
    assert unchanged(state, Extended(2), 1.0) == []
    take_part(state, "ann", "bob")
    assert commit(state)[-1] == Open(2, 1)
    state.handle(Cancelled("enough"), 5.0)
    assert unchanged(state, Extended(9), 6.0) == []


# What is kept and told


def test_receipts_are_kept_for_two_rounds():
    state = begun(rounds=50, goal=1)
    given = []
    for number in range(10):
        given.append(assign(state, f"d{number}"))
        report(state, given[-1])
        commit(state)
    assert len(state.receipts) + len(state.former) == 1
    assert isinstance(report(state, given[9])[0], Accept)
    assert is_gone(report(state, given[8]))


def test_a_record_says_who_was_selected_dropped_late_or_refused_and_how_long_it_took():
    state = begun(goal=3, minimum=1)
    ann, bob, carl = (assign(state, device, now) for device, now in (("ann", 5.0), ("bob", 6.0), ("carl", 7.0)))
    state.handle(Released(ann.id, "ann", "battery"), 8.0)
    dora = assign(state, "dora", 9.0)
    state.handle(Rejected(bob.id, "bob", "refused_update", "NaN"), 10.0)
    state.handle(Ticked(), 37.0)
    assert state.record.dropped == {"released: battery": 1, EXPIRED: 1}
    report(state, carl, 38.0, size=64)
    state.handle(Renewed(dora.id, "dora"), 38.0)
    state.handle(Renewed(dora.id, "dora"), 38.0)
    assert state.record.dropped == {"released: battery": 1}
    state.handle(Renewed(dora.id, "dora"), 90.0)
    [_] = state.handle(Ticked(), 105.0)
    state.handle(Committed(1, 1, "v1", ""), 107.5)
    record = state.records[0]
    assert (record.outcome, record.selected, record.reported, record.places) == ("committed", 4, 1, 3)
    assert record.dropped == {"released: battery": 1, DEADLINE: 1}
    assert record.refused == {"refused_update: NaN": 1}
    assert (record.selecting, record.collecting, record.committing) == (7.0, 98.0, 2.5)
    assert record.update_bytes == 64


def test_an_abandoned_round_says_why():
    state = begun(minimum=2)
    take_part(state, "ann")
    state.handle(Ticked(), 101.0)
    assert (state.records[0].outcome, state.records[0].reason) == (
        "abandoned",
        "round 1 got 1 of at least 2 reports in 100 s",
    )
    take_part(state, "ann", "bob", now=102.0)
    effects = state.handle(Failed(1, 2, "NaN"), 103.0)
    assert [type(effect) for effect in effects] == [Abandon, Discard, End]
    assert state.record.reason == "NaN"


# Fair shares


def test_tasks_take_turns_with_a_device_and_among_devices():
    turns = Turns()
    served = []
    for _ in range(3):
        first = turns.order("ann", ["a", "b", "c"])[0]
        turns.served("ann", first)
        served.append(first)
    assert served == ["a", "b", "c"]
    assert turns.order("bob", ["a", "b", "c"]) == ["a", "b", "c"]
    turns.served("carl", "a")
    assert turns.order("bob", ["a", "b", "c"]) == ["b", "c", "a"]
    turns.forget(["b"])
    assert turns.order("ann", ["a", "b", "c"]) == ["b", "a", "c"]
