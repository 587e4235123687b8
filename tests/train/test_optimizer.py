import subprocess
import sys

import pytest
import torch
from torch import nn

from shoal.algorithms.local import adam, adamw, sgd
from shoal.core.errors import ConfigurationError, UnknownSetting
from shoal.core.task import OptimizerSpec
from shoal.train.optimizer import Stepper

TORCH = "2.13.0"
"""The torch whose start-up was measured; another may import more."""


def steps(model: nn.Module, step) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    for _ in range(30):
        x, y = torch.randn(8, 5, generator=generator), torch.randn(8, 1, generator=generator)
        nn.functional.mse_loss(model(x), y).backward()
        step()
    return [parameter.detach() for parameter in model.parameters()]


def net() -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5, generator=generator)
    return model


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        (
            sgd(0.05, momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
        ),
        (sgd(0.05, momentum=0.9, nesterov=True), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True)),
        (adam(0.01, beta1=0.8), lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.999))),
        (adamw(0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
        (OptimizerSpec("sgd", {"lr": 0.1}), lambda p: torch.optim.SGD(p, lr=0.1)),
    ],
)
def test_thirty_steps_are_those_of_torch_bit_for_bit(spec, make):
    ours, theirs = net(), net()
    optimizer = make(theirs.parameters())

    def plain() -> None:
        optimizer.step()
        optimizer.zero_grad()

    expected = steps(theirs, plain)
    got = steps(ours, Stepper(spec, ours.parameters()).step)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(got, net().parameters(), strict=True))


def test_unknown_names_options_and_values_are_refused():
    parameters = list(net().parameters())
    with pytest.raises(ConfigurationError, match="did you mean 'adamw'"):
        Stepper(OptimizerSpec("adamww"), parameters)
    with pytest.raises(UnknownSetting, match="did you mean 'momentum'"):
        Stepper(OptimizerSpec("sgd", {"momentun": 0.9}), parameters)
    with pytest.raises(UnknownSetting, match="foreach"):
        Stepper(OptimizerSpec("sgd", {"lr": 0.1, "foreach": True}), parameters)
    with pytest.raises(ConfigurationError, match="Invalid learning rate"):
        Stepper(sgd(-1.0), parameters)


SCRIPT = """
import sys
import numpy as np
from torch import nn
from shoal.algorithms.local import adam, sgd
from shoal.core.task import LocalPlan
from shoal.train.data import client_data
from shoal.train.loop import LoopTrainer
from shoal.train.task import Task
from shoal.train.arrays import read_arrays, describe
from shoal.demo import regression
import torch

task = regression.task(3)
data = client_data("bob", (np.ones((10, 3)), np.arange(10.0)))
for optimizer in (sgd(0.01), adam()):
    params = read_arrays(task.model, describe(task.model))
    [update] = LoopTrainer(task).train(params, LocalPlan(batch_size=4, optimizer=optimizer), [data])
    assert np.abs(update.delta["layers.0.weight"]).max() > 0
assert "torch._dynamo" not in sys.modules, "imported"

# torch is as it was: its own optimizer still works, wrappers and all
parameter = nn.Parameter(torch.ones(1))
own = torch.optim.SGD([parameter], lr=0.5)
parameter.grad = torch.ones(1)
own.step()
assert parameter.item() == 0.5
assert "torch._dynamo" in sys.modules
print(torch.__version__)
"""


@pytest.mark.processes
def test_training_does_not_import_torch_dynamo():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    if not done.stdout.startswith(TORCH):
        pytest.fail(f"measured with torch {TORCH}, this is {done.stdout}: check that start-up is still fast")


@pytest.mark.processes
def test_importing_the_task_module_changes_nothing_in_torch():
    code = (
        "import inspect, sys, torch; import shoal.train.loop; "
        "method = inspect.unwrap(torch.optim.Optimizer.add_param_group); "
        "assert not vars(method) and 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
