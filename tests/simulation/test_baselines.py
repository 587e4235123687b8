"""Baselines against plain training."""

from dataclasses import replace

import numpy as np
import pytest

import shoal
from shoal import LocalPlan
from shoal.core.errors import DataError
from shoal.core.seeds import derive
from shoal.simulation.baselines import centralised, fine_tuned, local_only
from shoal.train.data import ClientData
from shoal.train.evaluate import evaluate
from shoal.train.loop import LoopTrainer
from tests.simulation.cohorts import params_of, regression_clients, regression_task

PLAN = LocalPlan(epochs=2, batch_size=4, optimizer=shoal.sgd(0.05))
TASK = regression_task(PLAN)
CLIENTS = regression_clients((8, 5, 12))


def plain(data: ClientData, rounds: int, seed: int) -> dict[str, np.ndarray]:
    params = dict(params_of(TASK))
    for number in range(1, rounds + 1):
        (update,) = LoopTrainer(TASK).train(params, PLAN, [replace(data, seed=derive(seed, number, data.name))])
        params = {name: array + update.delta[name] for name, array in params.items()}
    return params


def test_centralised_training_is_training_on_all_rows():
    pooled = {name: np.concatenate([client.arrays[name] for client in CLIENTS]) for name in ("x", "y")}
    wanted = plain(ClientData("all", pooled), 3, seed=5)
    run = centralised(TASK, CLIENTS, rounds=3, seed=5)
    for name, array in wanted.items():
        np.testing.assert_allclose(run.params[name], array, atol=1e-6)


def test_local_only_training_sees_one_client_each():
    runs = local_only(TASK, CLIENTS, rounds=2, seed=5)
    assert list(runs) == ["c0", "c1", "c2"]
    for client in CLIENTS:
        for name, array in plain(client, 2, seed=5).items():
            np.testing.assert_allclose(runs[client.name].params[name], array, atol=1e-6)


def test_fine_tuning_fits_each_client_better_than_the_common_model():
    common = shoal.simulate(TASK, CLIENTS, rounds=5, trainer="loop").params
    tuned = fine_tuned(TASK, common, CLIENTS)
    for client in CLIENTS:
        assert evaluate(TASK, tuned[client.name], client)["loss"] < evaluate(TASK, common, client)["loss"]


def test_rows_that_do_not_fit_together_are_refused():
    odd = replace(CLIENTS[1], arrays={"x": CLIENTS[1].arrays["x"], "z": CLIENTS[1].arrays["y"]})
    with pytest.raises(DataError, match="clients with the arrays"):
        centralised(TASK, [CLIENTS[0], odd], rounds=1)
