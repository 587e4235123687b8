"""Schedules of the learning rate and bounds of norms are those of torch, also for many clients at once."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

import shoal
from shoal import LocalPlan, Task
from shoal.core.errors import TaskError
from shoal.core.rate import Rate, cosine, exponential, stepped, warmup
from shoal.train import graph
from shoal.train.cohort import LoopCohort
from shoal.train.vmapped import VmappedCohort
from tests.simulation.cohorts import furthest, params_of, regression_clients, regression_task

TORCH: dict[str, tuple[Rate, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]]] = {
    "exponential": (exponential(0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    "step": (stepped(3, 0.5), lambda o: lr_scheduler.StepLR(o, 3, 0.5)),
    "cosine": (cosine(8, 0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, 8, 0.1)),
    "warmup": (warmup(4, 0.25), lambda o: lr_scheduler.LinearLR(o, 0.25, 1.0, 4)),
}
RATES = {"per_round": stepped(1, 0.5), "per_step": cosine(4)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TORCH)
def test_rates_are_those_of_torch(kind: str):
    rate, make = TORCH[kind]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    for time in range(8):
        assert rate.at(time) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()


@given(st.integers(1, 20), st.floats(0, 1), st.integers(0, 100))
def test_rates_stay_between_their_floor_and_one(period: int, floor: float, time: int):
    for rate in (cosine(period, floor), warmup(period, floor)):
        assert floor - 1e-12 <= rate.at(time) <= 1 + 1e-12


def test_a_round_has_its_own_learning_rate_by_hand():
    plan = LocalPlan(optimizer=shoal.sgd(0.8), per_round=exponential(0.5))
    assert [plan.at_round(n).optimizer.options["lr"] for n in (1, 2, 4)] == [0.8, 0.4, 0.1]


@pytest.mark.parametrize("wrong", [{"kind": "linear"}, {"gamma": 0.0}, {"period": 0}, {"floor": 2.0}])
def test_schedules_that_make_no_sense_are_refused(wrong: dict[str, object]):
    with pytest.raises(TaskError, match="schedule"):
        Rate(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", ["clip_gradient", "clip_update"])
def test_bounds_that_make_no_sense_are_refused(bound: str):
    with pytest.raises(TaskError, match=f"{bound}=0"):
        LocalPlan(**{bound: 0})  # type: ignore[arg-type]


def difference(task: Task, round: int, finish: graph.Finish | None = None) -> float:
    clients, params = regression_clients(), params_of(task)
    trainers = LoopCohort(task), VmappedCohort(task, finish=finish)
    left, right = (trainer.train_cohort(params, task.plan, clients, {}, round) for trainer in trainers)
    return furthest(left, right)


@pytest.mark.parametrize(
    ("optimizer", "tolerance"),
    [
        (shoal.sgd(0.05), 1e-6),
        (shoal.sgd(0.05, momentum=0.9, dampening=0.2, weight_decay=0.1), 1e-6),
        (shoal.adam(0.01, weight_decay=0.1), 1e-5),
        (shoal.adamw(0.01), 1e-5),
    ],
    ids=str,
)
def test_ragged_clients_with_a_schedule(optimizer: shoal.core.task.OptimizerSpec, tolerance: float):  # type: ignore[name-defined]
    plan = LocalPlan(epochs=2, batch_size=4, optimizer=optimizer, **RATES)
    task = regression_task(plan)
    assert difference(task, 2) < tolerance


def test_a_schedule_changes_the_update():
    plan = LocalPlan(batch_size=4, optimizer=shoal.sgd(0.05), **RATES)
    tasks = regression_task(plan), regression_task(replace(plan, per_round=Rate(), per_step=Rate()))
    deltas = [flat(LoopCohort(task), task, 2) for task in tasks]
    assert np.abs(deltas[0] - deltas[1]).max() > 1e-3


@pytest.mark.slow
def test_a_schedule_in_a_graph_is_traced_once_for_all_rounds():
    task = regression_task(LocalPlan(batch_size=4, optimizer=shoal.sgd(0.05), **RATES))
    clients, params = regression_clients((8, 8, 8)), params_of(task)
    trainer, loop = VmappedCohort(task, finish=graph.scripted), LoopCohort(task)
    for round in (2, 3, 4):
        traced = trainer.train_cohort(params, task.plan, clients, {}, round)
        assert furthest(loop.train_cohort(params, task.plan, clients, {}, round), traced) < 1e-6
    (made,) = trainer._made.values()
    assert len(made.steady._traces) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "bounds", [{"clip_gradient": 0.3}, {"clip_update": 0.01}, {"clip_gradient": 0.3, "proximal": 0.5}]
)
def test_every_clients_own_norm_is_bounded(bounds: dict[str, float]):
    assert difference(regression_task(LocalPlan(2, 4, shoal.sgd(0.1), **bounds)), 1) < 1e-6  # type: ignore[arg-type]


def flat(trainer: LoopCohort, task: Task, round: int) -> np.ndarray:
    updates = trainer.train_cohort(params_of(task), task.plan, regression_clients((8,)), {}, round).updates
    assert updates is not None
    return np.concatenate([array.reshape(-1) for array in updates.delta.values()]).astype(np.float64)


def test_an_update_is_no_longer_than_its_bound_and_keeps_its_direction():
    task = regression_task(LocalPlan(optimizer=shoal.sgd(0.1)))
    bound = replace(task, local=replace(task.local, clip_update=0.05))
    free, short = (flat(LoopCohort(each), each, 1) for each in (task, bound))
    assert np.linalg.norm(free) > 0.05
    assert np.linalg.norm(short) == pytest.approx(0.05, rel=1e-6)
    np.testing.assert_allclose(short / 0.05, free / np.linalg.norm(free), atol=1e-6)
