"""Starting from weights that exist."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from shoal.core.errors import DataError, TaskError
from shoal.core.task import RoundPlan
from shoal.train.task import CompiledTask, Task, check_code, compile_task

X = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
Y = np.zeros((8, 1), np.float32)


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def compiled(initial: object = None, seed: int = 0, **changes: object) -> CompiledTask:
    task = Task("t", net(seed), functional.mse_loss, example=(X, Y), initial=initial, **changes)  # type: ignore[arg-type]
    return compile_task(task, rounds=1, plan=RoundPlan(1))


def test_a_state_dict_is_version_0():
    assert compiled(net(7).state_dict()).spec.initial == compiled(seed=7).spec.initial


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_safetensors_file_is_version_0(kind, tmp_path):
    path = tmp_path / "pretrained.safetensors"
    save_file(net(7).state_dict(), path)
    assert compiled(kind(path)).spec.initial == compiled(seed=7).spec.initial


def test_the_task_itself_is_left_alone_and_proves_its_code():
    task = Task("t", net(0), functional.mse_loss, example=(X, Y), initial=net(7).state_dict())
    before = task.model.state_dict()["0.weight"].clone()
    made = compile_task(task, rounds=1, plan=RoundPlan(1))
    assert torch.equal(task.model.state_dict()["0.weight"], before)
    check_code(task, made.spec, made.initial, made.frozen, made.golden)


def test_frozen_weights_may_be_given_or_not():
    weights = net(7).state_dict()
    roles = {"0.*": "frozen"}
    assert compiled(weights, roles=roles).spec.frozen == compiled(seed=7, roles=roles).spec.frozen
    trained = {name: value for name, value in weights.items() if not name.startswith("0.")}
    assert compiled(trained, roles=roles).spec.frozen == compiled(roles=roles).spec.frozen


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"0.weight": None}, "array '0.weight' is missing"),
        ({"head": np.zeros(2, np.float32)}, "the model has no array 'head'"),
        (
            {"0.weight": np.zeros((2, 3), np.float32)},
            r"'0.weight' is float32 \(2, 3\), the model's is float32 \(4, 3\)",
        ),
        ({"0.bias": np.zeros(4)}, r"'0.bias' is float64 \(4,\), the model's is float32 \(4,\)"),
        ({"0.bias": np.full(4, np.nan, np.float32)}, "'0.bias' holds NaN or infinity"),
    ],
)
def test_weights_of_another_model_are_named(change, said):
    weights = {name: value for name, value in {**net(7).state_dict(), **change}.items() if value is not None}
    with pytest.raises(TaskError, match=said):
        compiled(weights)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.safetensors"):
        compiled(tmp_path / "none.safetensors")
    with pytest.raises(TaskError, match="initial weights of type int"):
        compiled(3)
