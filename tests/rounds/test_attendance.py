"""A round at one moment leaves what the single events leave, whatever happened before."""

import copy
import math

from hypothesis import given
from hypothesis import strategies as st

from shoal.core.plan import Buffered, EarlyStop
from shoal.core.schedule import Schedule
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.rounds.attendance import Attendance, attend, attendable, parts
from shoal.rounds.effects import Accept, Assign, Effect, Fold
from shoal.rounds.events import (
    Cancelled,
    CheckedIn,
    Committed,
    Event,
    Extended,
    Paused,
    Published,
    Rejected,
    Released,
    Reported,
    Resumed,
    Rewound,
    Ticked,
)
from shoal.rounds.state import Phase, TaskState
from shoal.store.events import encode_state

NAMES = ["ann", "bob", "carl", "dora"]
PLANS = st.builds(
    lambda goal, confidence, late, attempts: RoundPlan(
        goal, deadline=20.0, lease=6.0, attempts=attempts, confidence=confidence, late=late
    ),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from(["drop", "carry"]),
    st.integers(1, 3),
)
STOPS = st.sampled_from([None, EarlyStop("loss", patience=1)])
LOSSES = st.lists(st.sampled_from([0.5, 2.0, -1e300, math.nan, math.inf]), min_size=3, max_size=3)
WEIGHTS = st.lists(st.integers(1, 1 << 30), min_size=3, max_size=3)


def begun(plan: RoundPlan, stop: EarlyStop | None = None, schedule: Schedule = Schedule()) -> TaskState:  # noqa: B008  (it is frozen)
    arrays = {"w": ArraySpec((1,), "float32")}
    spec = TaskSpec("t", arrays, 4, plan, seed=5, initial="v0", stop=stop, schedule=schedule)
    return TaskState.begin(Published("t-1", spec), 0.0)


def singly(state: TaskState, attendance: Attendance, devices: list[str], now: float) -> list[Effect]:
    """Play a round by single events."""
    for device, assignment in zip(devices, attendance.assignments, strict=True):
        [effect] = state.handle(CheckedIn(device), now)
        assert isinstance(effect, Assign)
        assert effect.assignment.id == assignment
    for index, device in enumerate(devices):
        metrics = {name: values[index] for name, values in attendance.metrics.items()}
        told = (attendance.digests[index], 0, attendance.weights[index], metrics)
        effects = state.handle(Reported(attendance.assignments[index], device, *told), now)
        assert isinstance(effects[0], Accept)
    fold = effects[-1]
    assert isinstance(fold, Fold)
    return state.handle(committed(fold.round, fold.attempt), now)


def committed(number: int, attempt: int) -> Committed:
    return Committed(number, attempt, f"v{number}", f"c{number}")


def history(state: TaskState, draw: st.DataObject) -> float:
    """Play some rounds in which devices fail in all ways, and return when the last of them ended."""
    now = 0.0
    for _ in range(draw.draw(st.integers(0, 3))):
        for device in NAMES:
            state.handle(CheckedIn(device), now)
        for device, does in draw.draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(DOINGS))).items():
            lease = state.leases.get(device)
            for event in doing("" if lease is None else lease.assignment.id, device, does):
                state.handle(event, now + 1.0)
        now += 21.0
        between = draw.draw(st.sampled_from([[], [Paused(), Resumed()], [Rewound(0, "ann")], [Extended(5)]]))
        for event in [Ticked(), committed(state.round, state.attempt), *between]:
            state.handle(event, now)
    return now


DOINGS = ["report", "report", "report", "release", "refuse"]


def doing(part: str, device: str, does: str) -> list[Event]:
    match does:
        case "report":
            return [Reported(part, device, part, 3, 7, {"loss": 1.0})]
        case "release":
            return [Released(part, device, "battery")]
        case _:
            return [Rejected(part, device, "refused_update", "NaN")]


@given(PLANS, STOPS, LOSSES, WEIGHTS, st.permutations(NAMES), st.data())
def test_a_round_at_one_moment_is_that_of_the_single_events(
    plan: RoundPlan,
    stop: EarlyStop | None,
    losses: list[float],
    weights: list[int],
    names: list[str],
    data: st.DataObject,
):
    alone = begun(plan, stop)
    now = history(alone, data)
    devices = names[: plan.goal]
    if not attendable(alone, devices, now):
        return
    together = copy.deepcopy(alone)
    given_parts = parts(together, devices)
    attendance = Attendance(
        [assignment for assignment, _ in given_parts],
        [f"update of {device}" for device in devices],
        weights[: plan.goal],
        {"loss": losses[: plan.goal]},
    )
    before = copy.deepcopy(together)
    effects = attend(together, attendance, committed(together.round, together.attempt), now)
    assert singly(alone, attendance, devices, now) == effects
    assert encode_state(together) == encode_state(alone)
    assert [before.handle(CheckedIn(device), now)[0].assignment.seed for device in devices] == [
        seed for _, seed in given_parts
    ]


def test_many_rounds_at_one_moment_are_those_of_the_single_events():
    alone, together = begun(RoundPlan(3)), begun(RoundPlan(3))
    for number in range(1, 5):
        devices = NAMES[number % 2 :][:3]
        assert attendable(together, devices, float(number))
        assignments = [assignment for assignment, _ in parts(together, devices)]
        attendance = Attendance(assignments, assignments, [3, 1, 2], {"loss": [0.5, 0.25, 1.0 / number]})
        effects = attend(together, attendance, committed(number, 1), float(number))
        assert singly(alone, attendance, devices, float(number)) == effects
        assert together == alone
    assert together.phase is Phase.FINISHED
    assert together.versions[1].metrics == {"loss": (3 * 0.5 + 0.25 + 2 * 1.0) / 6}


def test_a_round_in_which_somebody_waits_or_came_before_cannot_be_played_at_once():
    assert attendable(begun(RoundPlan(2)), ["ann", "bob"], 0.0)
    assert not attendable(begun(RoundPlan(2)), ["ann"], 0.0)
    assert not attendable(begun(RoundPlan(2)), ["ann", "ann"], 0.0)
    assert not attendable(begun(RoundPlan(2), schedule=Schedule(every=60.0)), ["ann", "bob"], 0.0)
    assert not attendable(begun(RoundPlan(1, buffered=Buffered(size=1, concurrency=1))), ["ann"], 0.0)
    for event in (CheckedIn("carl"), Paused(), Cancelled("enough")):
        state = begun(RoundPlan(2))
        state.handle(event, 0.0)
        assert not attendable(state, ["ann", "bob"], 0.0)
