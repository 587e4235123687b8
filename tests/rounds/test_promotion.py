"""Which version is served: lists of events in, where the heads stand out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.cohort import Cohort
from shoal.core.errors import TaskError
from shoal.core.serving import Canary, Serving
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.rounds.events import (
    CanaryBegan,
    CheckedIn,
    Committed,
    Extended,
    Guarded,
    GuardPublished,
    Noted,
    Promoted,
    Published,
    Reported,
    Rewound,
    RolledBack,
    Unfit,
)
from shoal.rounds.heads import GUARD
from shoal.rounds.promotion import before, head, next_step, served_by
from shoal.rounds.state import TaskState
from shoal.store.events import decode_state, encode_state

SPEC = TaskSpec("t", {"w": ArraySpec((1,), "float32")}, rounds=99, plan=RoundPlan(1), initial="v0")
CANARY = Canary(0.5, tolerance=0.1, minimum_rows=10, deadline=100.0)


def begun(promote: str = "always", versions: int = 0) -> TaskState:
    state = TaskState.begin(Published("t-1", replace(SPEC, serving=Serving(promote, CANARY))), 0.0)
    for _ in range(versions):
        one_round(state)
    return state


def one_round(state: TaskState) -> None:
    [given] = state.handle(CheckedIn("ann"), 0.0)
    state.handle(Reported(given.assignment.id, "ann", "u", 1, 1), 0.0)
    state.handle(Committed(state.round, state.attempt, f"v{state.round}", ""), 0.0)


def by_itself(state: TaskState, now: float = 0.0) -> None:
    while (step := next_step(state, now)) is not None:
        assert state.handle(step, now)


def roll_back(state: TaskState) -> None:
    candidate = state.heads.candidate
    number = head(state) if candidate is None else candidate.number
    to = before(state) if candidate is None else head(state)
    assert to is not None
    assert state.handle(RolledBack(number, to, "ann"), 1.0)


def tried(versions: int = 1) -> TaskState:
    state = begun("canary", versions)
    by_itself(state)
    assert state.heads.candidate is not None
    return state


def test_the_newest_is_served_at_once_without_an_event():
    state = begun(versions=3)
    by_itself(state)
    assert (head(state), state.heads.steps) == (3, [])


def test_nothing_is_served_until_somebody_promotes_it():
    state = begun("person", 3)
    by_itself(state)
    assert head(state) == 0
    state.handle(Promoted(2, "ann", "it is good"), 5.0)
    assert (head(state), state.latest.number) == (2, 3)
    assert [(s.at, s.what, s.number, s.by, s.reason) for s in state.heads.steps] == [
        (5.0, "promoted", 2, "ann", "it is good")
    ]


def test_a_roll_back_moves_one_head_and_holds_it():
    state = begun(versions=3)
    roll_back(state)
    one_round(state)
    by_itself(state)
    assert (head(state), state.latest.number, state.heads.held, state.heads.barred) == (2, 4, True, [3])
    roll_back(state)
    assert head(state) == 1
    state.handle(Promoted(4, "ann"), 2.0)
    one_round(state)
    assert (head(state), state.heads.held) == (5, False)


def test_what_was_chosen_before_comes_back_and_never_what_was_not_served():
    state = begun(versions=5)
    for number in (2, 5):
        state.handle(Promoted(number, "ann"), 1.0)
    assert before(state) == 2
    roll_back(state)
    assert (head(state), before(state)) == (2, None)  # an older one is named, with `to`


def test_a_candidate_is_served_by_its_cohort_only():
    state = tried()
    devices = [f"device-{number}" for number in range(200)]
    trying = [name for name in devices if served_by(state, name).number == 1]
    assert 70 < len(trying) < 130
    assert trying == [name for name in devices if Cohort("t-1/1", 0.5).holds(name)]
    assert {served_by(state, name).number for name in devices if name not in trying} == {0}


@pytest.mark.parametrize(
    ("found", "head_after", "why"),
    [
        (Guarded(1, 1.05, 1.0, 20), 1, "loss 1.05, served 1, over 20 rows"),
        (Guarded(1, 1.2, 1.0, 20), 0, "loss 1.2, served 1, over 20 rows"),
        (Guarded(1, float("nan"), 1.0, 20), 0, "loss nan, served 1, over 20 rows"),
        (Guarded(1, 0.1, 1.0, 9), 0, "measured on 9 rows of 10"),
        (Guarded(1, 0.0, 0.0, 0, "nobody came"), 0, "nobody came"),
    ],
)
def test_the_guard_decides_by_metric_tolerance_and_rows(found: Guarded, head_after: int, why: str):
    state = tried()
    state.handle(GuardPublished(1, "guard-1"), 1.0)
    assert next_step(state, 1.0) is None
    state.handle(found, 2.0)
    by_itself(state, 2.0)
    assert (head(state), state.heads.candidate, state.heads.steps[-1].reason) == (head_after, None, why)
    assert [step.what for step in state.heads.steps][:3] == ["canary", "guard", "measured"]
    assert state.heads.barred == ([] if head_after else [1])
    assert all(step.by == GUARD for step in state.heads.steps)


def test_higher_may_be_better():
    assert replace(CANARY, better="higher").worse(0.8, 1.0)
    assert not replace(CANARY, better="higher").worse(0.95, 1.0)


def test_a_canary_that_is_not_measured_in_time_is_rolled_back_and_the_newest_is_next():
    state = tried()
    for _ in range(2):
        one_round(state)
    assert next_step(state, 99.0) is None
    [first, second] = [state.handle(next_step(state, 100.0), 100.0) for _ in range(2)]
    assert first
    assert second
    assert (state.heads.barred, state.heads.candidate.number) == ([1], 3)


def test_devices_that_cannot_use_a_candidate_end_its_canary():
    state = tried()
    names = [name for name in (f"d{number}" for number in range(20)) if served_by(state, name).number == 1]
    other = next(name for name in (f"d{number}" for number in range(20)) if name not in names)
    before_it = state.changes
    state.handle(Unfit(1, other, "not served here"), 1.0)
    assert state.changes == before_it
    state.handle(Unfit(1, names[0], "it predicts NaN"), 1.0)
    state.handle(Unfit(1, names[0], "it predicts NaN"), 1.0)
    assert len(state.heads.refusals) == 1
    by_itself(state, 1.0)
    assert state.heads.steps[-1].reason == "1 devices cannot use it: it predicts NaN"


def test_a_person_may_end_a_canary_begin_one_and_overrule_the_guard():
    state = tried()
    roll_back(state)
    assert (head(state), state.heads.barred, state.heads.held) == (0, [1], True)
    one_round(state)
    assert next_step(state, 1.0) is None
    state.handle(CanaryBegan(1, CANARY, "ann"), 2.0)
    assert (state.heads.candidate.number, state.heads.barred) == (1, [])
    state.handle(Promoted(2, "ann"), 3.0)
    assert (head(state), state.heads.candidate) == (2, None)
    assert state.handle(Promoted(1, GUARD), 4.0) == []


def test_notes_stay_and_unknown_versions_change_nothing():
    state = begun(versions=1)
    state.handle(Noted(1, "new sensors", "ann"), 7.0)
    before_it = state.changes
    for event in (Noted(2, "x", "ann"), Promoted(2, "ann"), Promoted(-1, "ann"), RolledBack(1, 5, "ann")):
        assert state.handle(event, 8.0) == []
    assert (state.changes, [note.text for note in state.heads.notes]) == (before_it, ["new sensors"])


STEPS = st.lists(
    st.one_of(
        st.just("round"),
        st.just("itself"),
        st.just("back"),
        st.tuples(st.just("promote"), st.integers(0, 4)),
        st.tuples(st.just("measured"), st.floats(0, 2)),
    ),
    max_size=25,
)


@pytest.mark.slow
@given(st.sampled_from(["always", "canary", "person"]), STEPS)
def test_what_was_rolled_back_is_served_again_by_a_person_only(promote: str, steps: list):
    state, barred = begun(promote), set()
    for step in steps:
        match step:
            case "round":
                one_round(state)
            case "itself":
                by_itself(state, 1.0)
            case "back":
                if state.heads.candidate is not None or before(state) is not None:
                    roll_back(state)
                    barred.add(state.heads.steps[-1].number)
            case ("promote", number):
                if number <= state.latest.number:
                    state.handle(Promoted(number, "ann"), 1.0)
                    barred.discard(number)
            case ("measured", value):
                if state.heads.candidate is not None:
                    state.handle(Guarded(state.heads.candidate.number, value, 1.0, 50), 1.0)
        barred |= {s.number for s in state.heads.steps[-2:] if s.what == "rolled back"} & set(state.heads.barred)
        assert head(state) not in barred
        assert state.heads.candidate is None or state.heads.candidate.number not in barred
        assert decode_state(encode_state(state)) == state


@pytest.mark.parametrize(
    "wrong",
    [
        {"fraction": 0.0},
        {"metric": ""},
        {"tolerance": -1.0},
        {"devices": 1},
        {"minimum_rows": 0},
        {"deadline": 0.0},
    ],
)
def test_a_canary_without_sense_is_refused(wrong: dict):
    with pytest.raises(TaskError, match="canary"):
        Canary(**wrong)
    with pytest.raises(TaskError, match="promote='never'"):
        Serving("never")


def test_rounds_go_on_from_an_older_version_and_serving_stays():
    state = begun(versions=3)
    [given] = state.handle(CheckedIn("ann"), 1.0)
    effects = state.handle(Rewound(1, "ann", "the loss went up"), 2.0)
    assert [type(effect).__name__ for effect in effects] == ["Abandon", "Open"]
    assert (state.base.number, head(state), state.attempt, state.heads.steps[-1].what) == (1, 3, 2, "rewound")
    [refused] = state.handle(Reported(given.assignment.id, "ann", "u", 1, 1), 3.0)
    assert (refused.code, state.latest.number) == ("gone", 3)
    [again] = state.handle(CheckedIn("ann"), 4.0)
    assert (again.assignment.version, again.assignment.id != given.assignment.id) == ("v1", True)
    [_, fold] = state.handle(Reported(again.assignment.id, "ann", "u", 1, 1), 5.0)
    assert fold.base.number == 1
    assert state.handle(Rewound(2, "ann"), 5.0) == []  # while a version is made
    state.handle(Committed(4, 2, "v4", ""), 6.0)
    assert (state.latest.parent, state.base.number, state.heads.training) == ("v1", 4, None)


def test_a_finished_task_goes_on_from_an_older_version():
    state = TaskState.begin(Published("t-1", replace(SPEC, rounds=2)), 0.0)
    for _ in range(2):
        one_round(state)
    state.handle(Rewound(1, "ann"), 1.0)
    state.handle(Extended(3), 2.0)
    one_round(state)
    assert [version.parent for version in state.versions] == ["", "v0", "v1", "v1"]
