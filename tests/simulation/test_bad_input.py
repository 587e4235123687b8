"""What is wrong with clients, model or settings is told with its name, before the first round where it can be seen."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import shoal
from shoal import LocalPlan, Task
from shoal.core.errors import ConfigurationError, DataError, NoRows, TaskError
from tests.simulation.cohorts import regression_clients, regression_task

PLAN = LocalPlan(batch_size=4, optimizer=shoal.sgd(0.05))
RNG = np.random.default_rng(0)


def numbers(rows: int = 8, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.standard_normal((rows, columns)).astype(np.float32)
    return x, x.sum(1, keepdims=True)


def labels(rows: int = 8, label: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    y = RNG.integers(0, 3, rows)
    if label is not None:
        y[rows - 2] = label
    return numbers(rows)[0], y


def never(_: object) -> None:
    raise AssertionError("a round was played")


def classifier() -> Task:
    return Task("labels", nn.Linear(4, 3), functional.cross_entropy, local=PLAN)


class Lazy:
    """Ten clients that are loaded when they take part, number 7 from another function."""

    def __init__(self, usual: Callable[[], Any], odd: Callable[[], Any]) -> None:
        self.names = [f"c{i}" for i in range(10)]
        self._usual, self._odd = usual, odd

    def many(self, names: Sequence[str]) -> list[Any]:
        return [self._odd() if name == "c7" else self._usual() for name in names]


@pytest.mark.parametrize("trainer", ["auto", "loop", "vmapped"])
@pytest.mark.parametrize("label", [7, -1])
def test_a_label_out_of_range_is_named_before_the_first_round(trainer: str, label: int):
    clients = [*(labels() for _ in range(5)), labels(label=label)]
    with pytest.raises(DataError, match=rf"client '5': row 6 of 'y' holds {label}, which the model does not take"):
        shoal.simulate(classifier(), clients, rounds=1, trainer=trainer, callbacks=[never])


@pytest.mark.parametrize("trainer", ["loop", "vmapped"])
def test_a_label_out_of_range_in_a_lazy_source_names_its_client(trainer: str):
    with pytest.raises(TaskError, match="client 'c7', epoch 0, step 1: Target 9 is out of bounds"):
        shoal.simulate(
            Task("labels", nn.Linear(4, 3), functional.cross_entropy, local=LocalPlan(batch_size=4, shuffle=False)),
            Lazy(labels, lambda: labels(label=9)),
            rounds=1,
            trainer=trainer,
        )


def test_an_index_beyond_an_embedding_is_named():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 1))
    tokens = [(RNG.integers(0, 5, (8, 2)), np.zeros((8, 1), np.float32)) for _ in range(3)]
    tokens[1][0][2, 1] = 5
    with pytest.raises(DataError, match=r"client '1': row 2 of 'x' holds 5, .*index out of range"):
        shoal.simulate(Task("tokens", model, functional.mse_loss, local=PLAN), tokens, rounds=1, callbacks=[never])


@pytest.mark.parametrize("trainer", ["auto", "loop", "vmapped"])
def test_clients_of_one_row_train(trainer: str):
    run = shoal.simulate(regression_task(PLAN), [numbers(1) for _ in range(6)], rounds=2, trainer=trainer)
    assert [(row.reports, row.failed) for row in run.history] == [(6, 0), (6, 0)]


@pytest.mark.parametrize("rows", [1, 9])
def test_a_row_alone_in_its_batch_that_the_model_cannot_train_on_is_named(rows: int):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    task = Task("normed", model, functional.mse_loss, local=PLAN)
    with pytest.raises(DataError, match=rf"client '2' has {rows} rows; in batches of 4 one is alone"):
        shoal.simulate(task, [numbers(), numbers(), numbers(rows)], rounds=1, callbacks=[never])


@pytest.mark.parametrize("trainer", ["loop", "vmapped"])
def test_a_client_whose_rows_are_no_numbers_is_kept_out_even_when_it_is_the_first(trainer: str):
    clients = [numbers() for _ in range(4)]
    clients[0][0][1, 2] = np.nan
    run = shoal.simulate(regression_task(PLAN), clients, rounds=2, trainer=trainer)
    assert [(row.reports, row.failed) for row in run.history] == [(3, 1), (3, 1)]
    assert [failure.reason for failure in run.failures] == [
        "client '0': row 1 of 'x' holds NaN or infinity: mend it or leave it out"
    ] * 2


def test_one_client_with_numbers_is_enough_to_try_a_task_on():
    clients = [numbers() for _ in range(10)]
    for x, _ in clients[:9]:
        x[0, 0] = np.nan
    run = shoal.simulate(regression_task(PLAN), clients, rounds=1, trainer="loop")
    assert [(row.reports, row.failed) for row in run.history] == [(1, 9)]
    clients[9][0][3, 1] = np.inf
    with pytest.raises(DataError, match="client '0' and 9 others hold NaN or infinity among their first 4 rows"):
        shoal.simulate(regression_task(PLAN), clients, rounds=1, callbacks=[never])


@pytest.mark.parametrize("trainer", ["loop", "vmapped"])
def test_an_empty_client_of_a_lazy_source_is_named(trainer: str):
    with pytest.raises(NoRows, match="client 'c7' has no examples"):
        shoal.simulate(regression_task(PLAN), Lazy(numbers, lambda: numbers(0)), rounds=1, trainer=trainer)


@pytest.mark.parametrize(
    ("odd", "match"),
    [
        ({"x": numbers()[0]}, r"client '8' has the arrays \['x'\], others \['x', 'y'\]"),
        ((numbers(0)), "client '8' has no examples"),
        ((numbers()[0], numbers(7)[1]), "client '8': array 'x' has 8 rows, 'y' has 7"),
        ((np.array([["a"] * 4] * 8), numbers()[1]), "client '8': data of dtype <U1"),
        (5, "client '8': a batch of type int"),
    ],
)
def test_a_client_that_is_unlike_the_others_is_named(odd: Any, match: str):
    clients = [(client.arrays["x"], client.arrays["y"]) for client in regression_clients()]
    with pytest.raises(DataError, match=match):
        shoal.simulate(regression_task(PLAN), [*clients, odd], rounds=1, callbacks=[never])


def test_settings_of_another_kind_are_refused_by_name():
    with pytest.raises(ConfigurationError, match=r"a cohort of 2\.5 of 8 clients"):
        shoal.simulate(regression_task(PLAN), regression_clients(), rounds=1, cohort=2.5)  # type: ignore[arg-type]
    assert len(shoal.simulate(regression_task(PLAN), regression_clients(), rounds=1, cohort=np.int64(2)).history) == 1  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"the optimizer 'sgd': give shoal\.sgd"):
        LocalPlan(optimizer="sgd")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"the optimizer <class 'torch\.optim"):
        LocalPlan(optimizer=torch.optim.SGD)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"task 'regression' with the strategy 'fedavg'"):
        regression_task(PLAN, strategy="fedavg")


@pytest.mark.parametrize("workers", [2, "ray"])
def test_an_accelerator_with_workers_is_refused_wherever_there_is_one(workers: Any):
    with pytest.raises(ConfigurationError, match=rf"workers={workers!r} on the device 'cuda'.*takes one process"):
        shoal.simulate(regression_task(PLAN), regression_clients(), rounds=1, device="cuda", workers=workers)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"workers": "many"}, {"workers": 2, "ray_address": "auto"}])
def test_workers_that_cannot_be_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError, match="workers="):
        shoal.simulate(regression_task(PLAN), regression_clients(), rounds=1, callbacks=[never], **wrong)
