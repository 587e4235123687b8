"""The same seed gives the same bits, and the numbers that plain PyTorch gives."""

import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from shoal.algorithms.statistics import ColumnStatistics, arrays, result
from shoal.core.task import Component, RoundPlan, TaskSpec
from shoal.data import boston_housing, boston_table
from shoal.demo import regression
from shoal.testing.in_process import Versions, run_in_process, run_statistics
from shoal.train.data import ClientData, client_data
from shoal.train.evaluate import evaluate
from shoal.train.loop import LoopTrainer
from shoal.train.task import Task, compile_task

# models this small lose time to a second thread
torch.set_num_threads(1)

X_TRAIN, Y_TRAIN, X_TEST, Y_TEST = boston_housing()
NAMES = ("bob", "alice")
OWNERS = {name: client_data(name, (X_TRAIN[i::2], Y_TRAIN[i::2])) for i, name in enumerate(NAMES)}
TEST = client_data("test", (X_TEST, Y_TEST))


def federated_statistics() -> ColumnStatistics:
    columns = boston_table().columns[:13]
    spec = TaskSpec(
        "columns",
        arrays(13),
        rounds=2,
        plan=RoundPlan(goal=2),
        kind="statistics",
        aggregator=Component("moments"),
        columns=columns,
    )
    tables = {name: data.arrays["x"] for name, data in OWNERS.items()}
    return result(columns, run_statistics(spec, tables)[-1][1])


def train(
    rounds: int, *, shuffle: bool, seed: int = 0, owners: dict[str, ClientData] = OWNERS
) -> tuple[Task, Versions]:
    task = regression.task(13, federated_statistics(), shuffle=shuffle)
    compiled = compile_task(task, rounds=rounds, plan=RoundPlan(goal=2), seed=seed)
    return task, run_in_process(compiled, owners, LoopTrainer(task))


def test_federated_standardisation_equals_the_pooled_one():
    found = federated_statistics()
    np.testing.assert_allclose(found.mean, X_TRAIN.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.deviation, X_TRAIN.std(0, ddof=1), rtol=1e-6)
    assert [name for name, binary in zip(found.columns, found.binary, strict=True) if binary] == ["CHAS"]


@pytest.mark.slow
def test_ten_rounds_give_the_numbers_of_plain_pytorch():
    task, versions = train(10, shuffle=False)
    errors = [evaluate(task, tree, TEST)["mse"] for _, tree in versions]
    assert [errors[1], errors[2], errors[10]] == pytest.approx([401.838, 27.947, 22.946], abs=0.02)


@pytest.mark.slow
def test_a_repeat_gives_the_same_digests_and_another_seed_other_ones():
    def digests(seed: int) -> list[str]:
        return [version.digest for version, _ in train(2, shuffle=True, seed=seed)[1]]

    first = digests(1)
    assert digests(1) == first
    assert digests(2)[1:] != first[1:]


def test_the_order_in_which_owners_come_does_not_change_a_bit():
    forwards = train(2, shuffle=True)[1]
    backwards = train(2, shuffle=True, owners=dict(reversed(OWNERS.items())))[1]
    assert [version.digest for version, _ in forwards] == [version.digest for version, _ in backwards]


def test_a_round_with_too_few_owners_closes_at_its_deadline():
    task = regression.task(13, federated_statistics())
    compiled = compile_task(task, rounds=1, plan=RoundPlan(goal=3, minimum=2, deadline=60.0))
    versions = run_in_process(compiled, OWNERS, LoopTrainer(task))
    assert (versions[-1][0].created, versions[-1][0].reports) == (60.0, 2)


@pytest.mark.processes
def test_a_hundred_rounds_give_the_numbers_of_plain_pytorch():
    task, versions = train(100, shuffle=False)
    assert evaluate(task, versions[-1][1], TEST)["mse"] == pytest.approx(20.81, abs=0.3)


@pytest.mark.processes
def test_shuffled_training_predicts_better_than_in_order():
    def final(seed: int) -> float:
        task, versions = train(100, shuffle=True, seed=seed)
        return evaluate(task, versions[-1][1], TEST)["mse"]

    assert statistics.median(final(seed) for seed in range(1, 6)) < 22


def test_the_published_model_predicts_on_raw_rows_after_the_target_was_standardised_too():
    table = np.column_stack([X_TRAIN, Y_TRAIN])
    found = federated_statistics()
    with_target = replace(
        found,
        columns=(*found.columns, "MEDV"),
        mean=table.mean(0),
        deviation=table.std(0, ddof=1),
        binary=np.append(found.binary, False),
    )
    task = regression.task(13, with_target, lr=0.05)
    compiled = compile_task(task, rounds=4, plan=RoundPlan(goal=2))
    versions = run_in_process(compiled, OWNERS, LoopTrainer(task))
    assert evaluate(task, versions[0][1], TEST)["mse"] > 70
    assert evaluate(task, versions[-1][1], TEST)["mse"] < 40
