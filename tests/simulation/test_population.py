"""A population in virtual time against the real state machine."""

from dataclasses import replace

import numpy as np
import pytest

import shoal
from shoal import LocalPlan, Population, RoundPlan
from shoal.core.errors import Abandoned, ConfigurationError
from shoal.core.schedule import DAY
from shoal.core.seeds import derive
from shoal.core.task import ArraySpec, TaskSpec
from shoal.rounds.events import Committed, Published, Reported
from shoal.rounds.record import DEADLINE, EXPIRED
from shoal.rounds.state import TaskState
from shoal.simulation.crowd import Crowd, Work, spread_over_a_day
from shoal.simulation.population import Daily, Spread
from shoal.simulation.run import SimulatedRun
from shoal.train.loop import LoopTrainer
from tests.simulation.cohorts import params_of, regression_clients, regression_task

PLAN = LocalPlan(epochs=2, batch_size=4, optimizer=shoal.sgd(0.05))
CLIENTS = {client.name: client for client in regression_clients()}
ROUGH = Population(speed=Spread(10.0, 1.0), availability=0.7, dropout=0.2, latency=Spread(2.0, 0.5), try_again=60.0)


def digests(run: SimulatedRun) -> list[str]:
    return [version.digest for version in run.versions]


def simulate(population: Population | None, **options: object) -> SimulatedRun:
    strategy = options.pop("strategy", shoal.fedavg())
    test = {name: np.concatenate([client.arrays[name] for client in CLIENTS.values()]) for name in "xy"}
    task = regression_task(PLAN, strategy=strategy, test=test)
    settings: dict[str, object] = {"rounds": 3, "seed": 7, "trainer": "loop", **options}
    return shoal.simulate(task, CLIENTS, population=population, **settings)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("population", [Population(), ROUGH])
def test_when_all_are_waited_for_the_versions_are_those_of_plain_rounds(population: Population):
    plan = RoundPlan(len(CLIENTS), deadline=DAY, attempts=100)
    assert digests(simulate(population, plan=plan)) == digests(simulate(None))


@pytest.mark.slow
def test_devices_that_vanish_are_replaced_and_a_repeat_gives_the_same_bits():
    plan = RoundPlan(4, lease=60.0, deadline=3000.0)
    run = simulate(ROUGH, rounds=6, plan=plan)
    assert sum(record.dropped.get(EXPIRED, 0) for record in run.rounds) > 0
    assert all(row.reports == 4 for row in run.history)
    assert digests(simulate(ROUGH, rounds=6, plan=plan)) == digests(run)
    assert digests(simulate(ROUGH, rounds=6, plan=plan, seed=8)) != digests(run)
    times = run.history.column("virtual_seconds")
    assert times == sorted(times)
    assert times[0] > 0


def test_a_deadline_closes_a_round_without_the_stragglers():
    # 20 rows by 2 epochs at one row a second: only the small clients are done within ten seconds
    slow = Population(speed=1.0, latency=0.5)
    run = simulate(slow, rounds=2, plan=RoundPlan(8, minimum=2, deadline=12.0))
    in_time = sum(2 * client.rows + 1 < 12 for client in CLIENTS.values())
    assert [row.reports for row in run.history] == [in_time, in_time]
    assert run.rounds[0].dropped[DEADLINE] == 8 - in_time
    assert run.rounds[0].late > 0


@pytest.mark.slow
def test_late_updates_are_carried_into_the_next_round():
    slow = Population(speed=1.0, latency=0.5)
    run = simulate(slow, rounds=3, plan=RoundPlan(8, minimum=2, deadline=12.0, late="carry"))
    assert sum(record.carried for record in run.rounds) > 0


@pytest.mark.slow
def test_more_devices_are_asked_when_some_drop_out():
    crowd = Population(dropout=0.3, latency=0.5)
    plan = RoundPlan(4, lease=60.0, deadline=3000.0)
    asked = [
        np.mean([record.selected for record in simulate(crowd, rounds=12, plan=replace(plan, confidence=c)).rounds[4:]])
        for c in (0.0, 0.9)
    ]
    assert asked[1] > asked[0]


def test_a_round_that_nobody_finishes_is_abandoned():
    with pytest.raises(Abandoned, match="round 1 could not be completed"):
        simulate(Population(speed=0.01), rounds=1, plan=RoundPlan(4, deadline=5.0, attempts=2))


@pytest.mark.slow
def test_buffered_rounds_without_staleness_give_the_mean():
    run = simulate(Population(), rounds=1, strategy=shoal.fedbuff(size=8, concurrency=8))
    assert digests(run) == digests(simulate(None, rounds=1))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [shoal.fedbuff(size=3, concurrency=6), shoal.fedasync(concurrency=6)], ids=str)
def test_buffered_rounds_learn_and_repeat(strategy: shoal.Strategy):
    run = simulate(ROUGH, rounds=20, strategy=strategy)
    losses = run.history.column("test_loss")
    assert losses[-1] < losses[0]
    assert digests(simulate(ROUGH, rounds=20, strategy=strategy)) == digests(run)


@pytest.mark.slow
def test_a_stale_update_is_damped_by_hand():
    # an exchange takes half a second, a row one: the quick one reports at 3 and 6, the slow one at 8, two versions late
    two = {"quick": regression_clients((2,))[0], "slow": regression_clients((7,))[0]}
    task = regression_task(replace(PLAN, epochs=1), strategy=shoal.fedbuff(size=1, concurrency=2))
    crowd = Population(speed=1.0, latency=0.5)
    second, third = (
        shoal.simulate(task, two, rounds=rounds, population=crowd, trainer="loop", seed=7) for rounds in (2, 3)
    )
    assert third.history.column("virtual_seconds") == pytest.approx([3.001, 6.001, 8.001])
    assert second.versions[2].digest == third.versions[2].digest
    slow = two["slow"].assigned("slow", "", derive(7, 1, "slow"))
    (update,) = LoopTrainer(task).train(params_of(task), task.plan, [slow])
    for name, array in second.params.items():
        np.testing.assert_allclose(third.params[name], array + update.delta[name] / np.sqrt(3), atol=1e-6)


@pytest.mark.slow
def test_a_client_whose_numbers_are_no_numbers_is_named_and_kept_out():
    x = CLIENTS["c3"].arrays["x"].copy()
    x[2, 0] = np.nan
    clients = {**CLIENTS, "c3": (x, CLIENTS["c3"].arrays["y"])}
    task = regression_task(PLAN)
    run = shoal.simulate(task, clients, rounds=2, population=Population(), plan=RoundPlan(7), trainer="loop", seed=1)
    assert {failure.client for failure in run.failures} <= {"c3"}
    everybody = RoundPlan(8, minimum=7, deadline=60.0)
    run = shoal.simulate(task, clients, rounds=2, population=Population(), plan=everybody, trainer="loop")
    assert [(f.round, f.client) for f in run.failures] == [(1, "c3"), (2, "c3")]
    assert "row 2 of 'x' holds NaN" in run.failures[0].reason
    assert [row.reports for row in run.history] == [7, 7]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"workers": 2}, "workers=2 with a population"),
        ({"selection": shoal.simulation.selection.Uniform()}, "selection="),  # type: ignore[attr-defined]
        ({"checkpoint": "run"}, "checkpoint='run'"),
        ({"cohort": 3, "plan": RoundPlan(4)}, "cohort=3 and a plan with the goal 4"),
        ({"plan": RoundPlan(9)}, "a cohort of 9 of 8 clients"),
    ],
)
def test_what_a_population_cannot_have_is_refused(options: dict[str, object], match: str):
    with pytest.raises(ConfigurationError, match=match):
        simulate(Population(), **options)


def test_a_round_plan_needs_a_population():
    with pytest.raises(ConfigurationError, match="a round plan without a population"):
        simulate(None, plan=RoundPlan(4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dropout": 1.0},
        {"speed": 0.0},
        {"latency": -1.0},
        {"availability": 0.0},
        {"availability": 1.5},
        {"try_again": 0.0},
    ],
)
def test_populations_that_make_no_sense_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigurationError):
        Population(**wrong)  # type: ignore[arg-type]


def test_availability_over_the_day_by_hand():
    daily = Daily(0.2, 0.8, peak=14.0)
    assert daily.at(14 * 3600) == pytest.approx(0.8)
    assert daily.at(2 * 3600) == pytest.approx(0.2)
    assert daily.at(20 * 3600) == pytest.approx(0.5)


@pytest.mark.slow
def test_a_day_of_many_devices():
    devices = 5000
    plan = RoundPlan(5, 1, 600.0, 300.0, 1000, confidence=0.95)
    spec = TaskSpec("day", {"w": ArraySpec((1,), "float32")}, 10_000, plan, seed=1, initial="v0")

    def day(seed: int) -> Crowd:
        work = Work(
            rows=lambda device: 60.0,
            finished=lambda part: Reported(part.id, part.device, "u", 1, 1),
            combined=lambda fold: Committed(fold.round, fold.attempt, f"v{fold.round}", ""),
        )
        rough = Population(speed=Spread(1.0, 0.5), availability=Daily(0.25), dropout=0.1)
        crowd = Crowd(TaskState.begin(Published("day-1", spec), 0.0), rough, list(map(str, range(devices))), seed, work)
        crowd.until(DAY)
        return crowd

    crowd = day(1)
    assert not crowd.hung
    assert crowd.versions > 200
    assert spread_over_a_day(crowd.arrivals, devices) < 0.3
    assert day(1).arrivals == crowd.arrivals != day(2).arrivals
