"""Training many clients at once gives what training one after the other gives."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from torch import nn
from torch.nn import functional

import shoal
from shoal import LocalPlan, Role, Task
from shoal.core.errors import DataError, TaskError
from shoal.core.task import OptimizerSpec
from shoal.train.cohort import LoopCohort
from shoal.train.vmapped import VmappedCohort
from tests.simulation.cohorts import (
    Attention,
    Recurrent,
    corrected,
    furthest,
    image_clients,
    params_of,
    regression_clients,
    regression_task,
    token_clients,
    train,
)

SGD = [
    shoal.sgd(0.05),
    shoal.sgd(0.05, momentum=0.9),
    shoal.sgd(0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    shoal.sgd(0.05, momentum=0.5, dampening=0.3),
]
ADAM = [shoal.adam(0.01), shoal.adam(0.01, weight_decay=0.1), shoal.adamw(0.01)]


def difference(task: Task, clients: list[shoal.train.data.ClientData]) -> float:  # type: ignore[name-defined]
    return furthest(train(LoopCohort(task), task, clients), train(VmappedCohort(task), task, clients))


@pytest.mark.parametrize("optimizer", SGD, ids=str)
def test_ragged_clients_with_sgd(optimizer: OptimizerSpec):
    task = regression_task(LocalPlan(epochs=3, batch_size=4, optimizer=optimizer))
    assert difference(task, regression_clients()) < 1e-6


@pytest.mark.parametrize("optimizer", ADAM, ids=str)
def test_ragged_clients_with_adam(optimizer: OptimizerSpec):
    task = regression_task(LocalPlan(epochs=3, batch_size=4, optimizer=optimizer))
    assert difference(task, regression_clients()) < 1e-5


@pytest.mark.parametrize("rows", [(8, 8, 8), (3, 3), (7,), (8, 5, 8)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_even_and_uneven_clients_in_order_and_shuffled(rows: tuple[int, ...], shuffle: bool):
    task = regression_task(LocalPlan(epochs=2, batch_size=4, shuffle=shuffle))
    assert difference(task, regression_clients(rows)) < 1e-6


def test_the_proximal_term():
    task = regression_task(LocalPlan(epochs=2, batch_size=4), strategy=shoal.fedprox(mu=2.0))
    plain = replace(task, strategy=shoal.fedavg())
    clients = regression_clients()
    assert difference(task, clients) < 1e-6
    pulled, free = (train(VmappedCohort(t), t, clients).updates for t in (task, plain))
    assert pulled is not None
    assert free is not None
    assert np.abs(pulled.delta["0.weight"] - free.delta["0.weight"]).max() > 1e-3


def test_running_statistics_are_each_clients_own():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))
    task = regression_task(LocalPlan(epochs=2, batch_size=4), model)
    clients = regression_clients((8, 4, 12))
    assert difference(task, clients) < 1e-5
    counted = train(VmappedCohort(task), task, clients).updates
    assert counted is not None
    assert counted.delta["1.num_batches_tracked"].tolist() == [4, 2, 6]
    assert np.abs(counted.delta["1.running_mean"][0] - counted.delta["1.running_mean"][1]).max() > 1e-3


@pytest.mark.parametrize("make", [lambda: Recurrent(nn.LSTM), lambda: Recurrent(nn.GRU), Attention])
def test_sequences(make: Callable[[], nn.Module]):
    task = Task("tokens", make(), functional.cross_entropy, local=LocalPlan(batch_size=2, optimizer=shoal.sgd(0.1)))
    assert difference(task, token_clients()) < 1e-5


def test_one_step_of_a_convolution():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    task = Task("images", model, functional.cross_entropy, local=LocalPlan(batch_size=8, optimizer=shoal.sgd(0.1)))
    assert difference(task, image_clients()) < 1e-5


def test_dropout_is_drawn_anew_for_every_client_and_repeats_with_the_seeds():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    task = regression_task(LocalPlan(batch_size=4), model)
    same = regression_clients((4,))[0]
    clients = [replace(same, name=name) for name in ("a", "b")]
    first = train(VmappedCohort(task), task, clients).updates
    again = train(VmappedCohort(task), task, clients).updates
    assert first is not None
    assert again is not None
    weights = first.delta["0.weight"]
    assert np.abs(weights[0] - weights[1]).max() > 1e-6
    np.testing.assert_array_equal(weights, again.delta["0.weight"])


def test_a_loss_of_model_and_batch():
    def loss(model: nn.Module, batch: dict[str, object]) -> object:
        return (model(batch["x"]) - batch["y"]).abs().mean()  # type: ignore[operator]

    task = replace(regression_task(LocalPlan(epochs=2, batch_size=4)), loss=loss)
    assert difference(task, regression_clients()) < 1e-6


def test_frozen_and_local_arrays():
    task = regression_task(LocalPlan(epochs=2, batch_size=4), roles={"0.*": Role.FROZEN, "2.bias": Role.LOCAL})
    clients = regression_clients()
    personal = {clients[3].name: {"2.bias": np.array([7.0], np.float32)}}
    loop = train(LoopCohort(task), task, clients, personal=personal)
    at_once = train(VmappedCohort(task), task, clients, personal=personal)
    assert furthest(loop, at_once) < 1e-6
    assert at_once.updates is not None
    assert set(at_once.updates.delta) == {"2.weight"}
    for client in clients:
        np.testing.assert_allclose(at_once.personal[client.name]["2.bias"], loop.personal[client.name]["2.bias"], 1e-5)
    assert at_once.personal["c3"]["2.bias"][0] > 3 > at_once.personal["c0"]["2.bias"][0]


def test_a_client_whose_loss_is_not_finite_is_named_and_kept_out():
    clients = regression_clients((8, 8, 12))
    clients[1].arrays["x"][5] = np.nan
    task = regression_task(LocalPlan(epochs=2, batch_size=4, shuffle=False))
    loop, at_once = train(LoopCohort(task), task, clients), train(VmappedCohort(task), task, clients)
    assert at_once.positions == loop.positions == [0, 2]
    assert at_once.failures == loop.failures
    assert "client 'c1', epoch 0, step 1" in at_once.failures["c1"]
    assert furthest(loop, at_once) < 1e-6


def test_what_vmap_cannot_take_is_an_error_that_says_what_to_do():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 1)

        def forward(self, x: object) -> object:
            y = self.linear(x)
            return y if y.mean() > 0 else -y

    task = regression_task(LocalPlan(batch_size=4), Branching())
    with pytest.raises(TaskError, match='train with trainer="loop"'):
        train(VmappedCohort(task), task, regression_clients())


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_training_from_personal_models(mu: float):
    task = regression_task(LocalPlan(epochs=2, batch_size=4, start="personal", proximal=mu))
    clients = regression_clients()
    before = params_of(task)
    personal = {"c3": {name: array + 1 for name, array in before.items()}, "c5": before}
    loop = train(LoopCohort(task), task, clients, personal=personal)
    at_once = train(VmappedCohort(task), task, clients, personal=personal)
    assert furthest(loop, at_once) < 1e-5
    for client in clients:
        assert set(at_once.personal[client.name]) == set(task.model.state_dict())
        for name, array in loop.personal[client.name].items():
            np.testing.assert_allclose(at_once.personal[client.name][name], array, atol=1e-5)


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_a_correction_is_added_to_every_gradient(mu: float):
    task = regression_task(LocalPlan(epochs=2, batch_size=4, proximal=mu, optimizer=shoal.sgd(0.05, momentum=0.5)))
    clients = corrected(regression_clients(), params_of(task))
    assert difference(task, clients) < 1e-5


def test_corrections_by_hand():
    task = regression_task(LocalPlan(batch_size=4, optimizer=shoal.sgd(0.5)))
    clients = regression_clients((4, 4))
    plain = train(VmappedCohort(task), task, clients).updates
    moved = train(VmappedCohort(task), task, corrected(clients, params_of(task))).updates
    assert plain is not None
    assert moved is not None
    for name, delta in plain.delta.items():
        # one step of plain SGD: client i's correction of (i + 1) / 10 moves weights by half of it
        np.testing.assert_allclose(moved.delta[name][0], delta[0] - 0.05, atol=1e-6)
        np.testing.assert_allclose(moved.delta[name][1], delta[1] - 0.1, atol=1e-6)


def test_clients_with_other_columns_or_rows_are_named():
    task = regression_task(LocalPlan(batch_size=4))
    clients = regression_clients((4, 4))
    odd = replace(clients[1], arrays={"x": clients[1].arrays["x"][:, :3], "y": clients[1].arrays["y"]})
    with pytest.raises(DataError, match=r"client 'c1': a row of 'x' is float32 \(3,\)"):
        train(VmappedCohort(task), task, [clients[0], odd])
    with pytest.raises(DataError, match=r"client 'c1' has the arrays \['x'\]"):
        train(VmappedCohort(task), task, [clients[0], replace(clients[1], arrays={"x": clients[1].arrays["x"]})])


def test_params_are_not_moved():
    task = regression_task(LocalPlan(batch_size=4))
    params = params_of(task)
    copies = {name: array.copy() for name, array in params.items()}
    VmappedCohort(task).train_cohort(params, task.plan, regression_clients(), {}, 1)
    for name, array in params.items():
        np.testing.assert_array_equal(array, copies[name])
