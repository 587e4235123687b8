"""A traced step does what the step does, and says so when it cannot."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import shoal
from shoal import LocalPlan, Task
from shoal.core.errors import TaskError
from shoal.core.task import OptimizerSpec
from shoal.train import graph
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


def traced(task: Task) -> VmappedCohort:
    return VmappedCohort(task, name="graph", finish=graph.scripted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [shoal.sgd(0.05), shoal.sgd(0.05, momentum=0.9, dampening=0.2, weight_decay=0.01), shoal.adamw(0.01)],
    ids=str,
)
def test_ragged_clients(optimizer: OptimizerSpec):
    task = regression_task(LocalPlan(epochs=2, batch_size=4, optimizer=optimizer))
    clients = regression_clients((20, 4, 4, 9, 1, 12, 4, 4, 17, 8, 8))
    assert furthest(train(LoopCohort(task), task, clients), train(traced(task), task, clients)) < 1e-5


@pytest.mark.slow
def test_corrections_and_the_proximal_term():
    task = regression_task(LocalPlan(epochs=2, batch_size=4, proximal=0.3))
    clients = corrected(regression_clients((20, 4, 9, 1, 12)), params_of(task))
    assert furthest(train(LoopCohort(task), task, clients), train(traced(task), task, clients)) < 1e-5


def test_the_first_round_runs_untraced_and_gives_the_bits_of_vmapped():
    task = regression_task(LocalPlan(epochs=2, batch_size=4))
    clients = regression_clients()
    first, plain = train(traced(task), task, clients, round=1), train(VmappedCohort(task), task, clients)
    assert first.updates is not None
    assert plain.updates is not None
    for name, array in plain.updates.delta.items():
        np.testing.assert_array_equal(first.updates.delta[name], array)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: Recurrent(nn.LSTM), lambda: Recurrent(nn.GRU), Attention])
def test_sequences(make: Callable[[], nn.Module]):
    task = Task("tokens", make(), functional.cross_entropy, local=LocalPlan(batch_size=2))
    assert furthest(train(LoopCohort(task), task, token_clients()), train(traced(task), task, token_clients())) < 1e-5


@pytest.mark.slow
def test_shapes_that_will_not_come_again_are_not_traced():
    task = regression_task(LocalPlan(batch_size=4))
    shapes: list[torch.Size] = []

    def finish(module: graph.GraphModule, flat: list[torch.Tensor]) -> graph.Step:
        shapes.append(flat[4].shape)
        return graph.scripted(module, flat)

    trainer = VmappedCohort(task, finish=finish)
    train(trainer, task, regression_clients((8, 8, 8, 8, 7, 6, 6, 5)))
    train(trainer, task, regression_clients((3, 3)))
    train(trainer, task, regression_clients((3, 3)), round=3)
    assert shapes == [(8, 4, 4), (4, 4, 4), (2, 3, 4)]


def test_convolution_and_running_statistics():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    task = Task("images", model, functional.cross_entropy, local=LocalPlan(batch_size=8, optimizer=shoal.sgd(0.01)))
    assert furthest(train(LoopCohort(task), task, image_clients()), train(traced(task), task, image_clients())) < 1e-5


def test_dropout_draws_new_numbers_at_every_replay():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    task = regression_task(LocalPlan(batch_size=4), model)
    client = regression_clients((4,))[0]
    trainer = traced(task)
    deltas = []
    for seed in (1, 2, 1):
        updates = train(trainer, task, [replace(client, seed=seed)]).updates
        assert updates is not None
        deltas.append(updates.delta["0.weight"])
    assert np.abs(deltas[0] - deltas[1]).max() > 1e-6
    np.testing.assert_array_equal(deltas[0], deltas[2])


def test_the_passes_leave_few_operations_and_fold_the_steps_into_products():
    task = regression_task(LocalPlan(batch_size=4))
    seen: list[graph.GraphModule] = []

    def finish(module: graph.GraphModule, flat: list[torch.Tensor]) -> graph.Step:
        seen.append(module)
        return graph.scripted(module, flat)

    train(VmappedCohort(task, finish=finish), task, regression_clients((8, 8)))
    (module,) = seen
    targets = [node.target for node in module.graph.nodes if node.op == "call_function"]
    assert targets.count(graph.aten.baddbmm_.default) == 2
    assert not {graph.aten.expand.default, graph.aten.detach.default, graph.aten.ones_like.default} & set(targets)


def test_a_replay_that_differs_is_refused():
    task = regression_task(LocalPlan(batch_size=4))

    def wrong(module: graph.GraphModule, flat: list[torch.Tensor]) -> graph.Step:
        right = graph.scripted(module, flat)
        return lambda *given: right(*given) + 1e-3

    with pytest.raises(TaskError, match="the traced step differs"):
        train(VmappedCohort(task, finish=wrong), task, regression_clients((8, 8)))


@pytest.mark.parametrize(("live", "wide"), [(1, 13), (13, 13), (14, 26), (99, 100), (100, 100)])
def test_live_clients_come_in_eighths_of_a_chunk(live: int, wide: int):
    assert graph.bucket(live, 100) == wide


@pytest.mark.processes
@pytest.mark.slow
def test_a_compiled_step_does_what_the_step_does():
    if shutil.which("g++") is None:
        assert os.environ.get("CI") != "true", "install a C++ compiler"
        pytest.skip("no C++ compiler")
    task = regression_task(LocalPlan(batch_size=4, optimizer=shoal.sgd(0.05)))
    compiled = VmappedCohort(task, name="compiled", finish=graph.compiled)
    clients = regression_clients((8, 8, 8))
    assert furthest(train(LoopCohort(task), task, clients), train(compiled, task, clients)) < 1e-6


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("finish", [None, graph.scripted])
def test_on_a_gpu(finish: graph.Finish | None):
    task = regression_task(LocalPlan(epochs=2, batch_size=4, optimizer=shoal.adamw(0.01)))
    clients = regression_clients((8, 5, 8, 1))
    gpu = VmappedCohort(task, "cuda", finish=finish)
    assert furthest(train(LoopCohort(task), task, clients), train(gpu, task, clients)) < 1e-4
