import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from shoal.algorithms.fedopt import fedadam
from shoal.algorithms.fedprox import fedprox
from shoal.algorithms.local import adam, sgd
from shoal.algorithms.statistics import ColumnStatistics
from shoal.core.errors import (
    BroadcastingLoss,
    CodeMismatch,
    ConfigurationError,
    DataError,
    NotFinite,
    TaskError,
    UnknownSetting,
    UnsupportedArray,
)
from shoal.core.roles import Role
from shoal.core.task import Component, LocalPlan, OptimizerSpec, RoundPlan
from shoal.core.tree import digest
from shoal.demo import regression
from shoal.train.arrays import describe
from shoal.train.golden import synthetic_batch
from shoal.train.task import CompiledTask, Task, check_code, compile_task

X = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((8, 1)).astype(np.float32)


def net(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), activation(), nn.Dropout(0.2), nn.Linear(8, 1))


def task(**changes) -> Task:
    given = {
        "name": "t",
        "model": net(),
        "loss": functional.mse_loss,
        "example": (X, Y),
        "local": LocalPlan(optimizer=sgd(0.1)),
    }
    return Task(**(given | changes))


def compiled(given: Task, goal: int = 2) -> CompiledTask:
    return compile_task(given, rounds=3, plan=RoundPlan(goal=goal), seed=5)


def check(given: Task, with_: CompiledTask) -> None:
    check_code(given, with_.spec, with_.initial, with_.frozen, with_.golden)


def test_a_task_compiles_to_plain_data():
    published = compiled(task(strategy=fedadam(lr=0.3)), goal=5)
    spec = published.spec
    assert spec.initial == digest(published.initial)
    assert spec.golden == digest(published.golden)
    assert spec.frozen == digest(published.frozen)
    assert spec.server.name == "adam"
    assert spec.server.options["lr"] == 0.3
    assert spec.aggregator == Component("mean")
    assert spec.bounds.max_updates == 8
    assert published.initial.keys() == spec.travelling.keys()


@pytest.mark.parametrize(("goal", "updates"), [(1, 1), (2, 2), (3, 4), (5000, 8192)])
def test_bounds_hold_the_goal_and_no_more(goal, updates):
    assert compiled(task(), goal).spec.bounds.max_updates == updates


def test_fedprox_asks_for_its_proximal_term():
    assert compiled(task(strategy=fedprox(mu=0.5))).spec.local.proximal == 0.5


def test_compiling_leaves_model_and_random_numbers_alone():
    model = net()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    compiled(task(model=model))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


class Zoo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.fixed = nn.Parameter(torch.ones(3), requires_grad=False)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(self.first(x))) * self.fixed * self.mask


def test_every_array_gets_its_role_and_tied_ones_are_listed_once():
    assert {name: spec.role for name, spec in describe(Zoo()).items()} == {
        "first.weight": Role.TRAINABLE,
        "fixed": Role.FROZEN,
        "norm.weight": Role.TRAINABLE,
        "norm.bias": Role.TRAINABLE,
        "norm.running_mean": Role.BUFFER,
        "norm.running_var": Role.BUFFER,
        "norm.num_batches_tracked": Role.COUNTER,
        "mask": Role.FROZEN,
    }


def test_roles_are_overridden_by_pattern_and_unknown_ones_refused():
    roles = describe(Zoo(), {"norm.*": "local", "norm.bias": Role.FROZEN})
    assert [roles[f"norm.{name}"].role for name in ("weight", "bias")] == [Role.LOCAL, Role.FROZEN]
    with pytest.raises(TaskError, match=r"did you mean 'norm\.weight'"):
        describe(Zoo(), {"norm.weigth": "local"})
    with pytest.raises(TaskError, match="did you mean 'frozen'"):
        describe(Zoo(), {"mask": "frosen"})
    with pytest.raises(UnsupportedArray, match="'mask'"):
        describe(Zoo(), {"mask": "buffer"})
    with pytest.raises(UnsupportedArray, match=r"nn\.Parameter"):
        describe(Zoo(), {"norm.running_mean": "trainable"})


def test_a_dtype_that_numpy_lacks_is_named():
    with pytest.raises(UnsupportedArray, match=r"'0\.weight' has dtype bfloat16"):
        compiled(task(model=net().to(torch.bfloat16)))


def test_a_broadcasting_loss_is_refused_with_the_way_out():
    with pytest.raises(BroadcastingLoss) as error:
        compiled(task(example=(X, Y[:, 0])))
    assert "(8, 1), the target (8,)" in error.value.problem
    assert "add .squeeze(-1) to the model or give the target shape (8, 1)" in error.value.fix
    flat = nn.Sequential(net(), nn.Flatten(0))
    with pytest.raises(BroadcastingLoss, match=r"add \.unsqueeze\(-1\)"):
        compiled(task(model=flat))
    with pytest.raises(BroadcastingLoss):
        compiled(task(example=(X, np.arange(8))))


def test_class_indices_are_no_broadcast():
    model = nn.Linear(3, 8)
    published = compiled(task(model=model, loss=functional.cross_entropy, example=(X, np.arange(8) % 3)))
    assert set(published.golden["batch/y"]) <= {0, 1, 2}
    check(task(model=model, loss=nn.CrossEntropyLoss(), example=(X, np.arange(8) % 3)), published)


def only_twos(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output / (target == 2)).mean()


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"example": None}, TaskError, "no example"),
        ({"example": (X[:, :2], Y)}, TaskError, "mat1 and mat2"),
        ({"example": (X.astype(np.float64), Y)}, TaskError, "float64"),
        ({"example": {"rows": X}}, TaskError, "takes \\(output, target\\)"),
        ({"example": (X * np.inf, Y)}, NotFinite, "nan"),
        ({"loss": lambda output, target: (output - target) ** 2}, TaskError, "mean"),
        ({"loss": lambda output, target: 1.0}, TaskError, "float"),
        ({"loss": lambda output, target: target.mean()}, TaskError, "depend"),
        ({"model": nn.ReLU()}, TaskError, "no trainable"),
        ({"local": LocalPlan(optimizer=sgd(1e40))}, TaskError, "overflow"),
        ({"example": (X, np.full((8, 1), 2.0, np.float32)), "loss": only_twos}, NotFinite, "random numbers"),
        ({"local": LocalPlan(optimizer=OptimizerSpec("sgdd"))}, ConfigurationError, "did you mean 'sgd'"),
        ({"local": LocalPlan(optimizer=OptimizerSpec("sgd", {"lrr": 1.0}))}, UnknownSetting, "did you mean 'lr'"),
    ],
)
def test_a_task_that_cannot_be_trained_is_refused(changes, kind, says):
    with pytest.raises(kind, match=says):
        compiled(task(**changes))


def both(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return functional.mse_loss(model(batch["left"] + batch["right"]), batch["goal"])


def test_a_loss_of_model_and_batch_takes_any_arrays():
    many = task(loss=both, example={"left": X, "right": torch.from_numpy(X), "goal": Y})
    published = compiled(many)
    assert {name for name in published.golden if name.startswith("batch/")} == {
        "batch/left",
        "batch/right",
        "batch/goal",
    }
    check(many, published)


def test_the_golden_step_passes_the_same_code_and_catches_another_activation():
    published = compiled(task())
    check(task(example=None), published)
    with pytest.raises(CodeMismatch, match="one training step gives another result"):
        check(task(model=net(nn.Tanh)), published)


def test_the_golden_step_starts_from_the_published_arrays_not_the_installed_ones():
    installed = net()
    with torch.no_grad():
        for parameter in installed.parameters():
            parameter.mul_(2.0)
    check(task(model=installed), compiled(task()))


def test_the_golden_step_catches_another_loss_and_dropout():
    published = compiled(task())
    with pytest.raises(CodeMismatch, match="loss"):
        check(task(loss=functional.l1_loss), published)
    other = net()
    other[3] = nn.Dropout(0.5)
    with pytest.raises(CodeMismatch):
        check(task(model=other), published)


def test_the_golden_step_uses_the_published_optimizer():
    published = compiled(task(local=LocalPlan(optimizer=adam(0.01))))
    assert np.abs(published.golden["delta/4.bias"]).max() == pytest.approx(0.01, rel=1e-3)
    check(task(local=LocalPlan(optimizer=sgd(0.5))), published)


def test_other_arrays_are_named():
    published = compiled(task())
    with pytest.raises(CodeMismatch) as error:
        check(task(model=nn.Sequential(nn.Linear(3, 9))), published)
    for sentence in ("'4.weight' is missing", "'0.weight' is trainable float32 (9, 3), the task says"):
        assert sentence in error.value.problem
    with pytest.raises(CodeMismatch, match=r"'0\.bias' is local float32"):
        check(task(roles={"0.bias": "local"}), published)


def test_code_that_fails_on_the_golden_step_is_another_code():
    def odd(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["absent"].mean()

    with pytest.raises(CodeMismatch, match="absent"):
        check(task(loss=odd), compiled(task()))


def test_local_arrays_do_not_travel_and_are_proved_all_the_same():
    personal = task(roles={"4.*": "local"})
    published = compiled(personal)
    assert not {"4.weight", "4.bias"} & published.initial.keys()
    other_head = copy.deepcopy(personal.model)
    nn.init.constant_(other_head[4].weight, 3.0)
    check(replace(personal, model=other_head), published)


def test_the_synthetic_batch_keeps_the_kind_of_numbers_and_no_row():
    example = {
        "normal": X,
        "unit": np.linspace(0, 1, 8, dtype=np.float32),
        "positive": np.arange(1.0, 9.0),
        "label": np.array([0.0, 1.0] * 4, np.float32),
        "token": np.array([[3, 7], [9, 3]]),
        "flag": np.array([True, False]),
    }
    batch = synthetic_batch(example, 1)
    assert {name: (a.dtype, a.shape) for name, a in batch.items()} == {
        n: (a.dtype, a.shape) for n, a in example.items()
    }
    assert batch["normal"].min() < 0
    assert 0 <= batch["unit"].min() < batch["unit"].max() <= 1
    assert batch["positive"].min() >= 0
    assert set(batch["label"]) <= {0.0, 1.0}
    assert set(batch["token"].ravel()) <= {3, 7, 9}
    assert not np.isin(batch["normal"], X).any()
    assert digest(batch) == digest(synthetic_batch(example, 1)) != digest(synthetic_batch(example, 2))


def test_an_owner_proves_the_demo_without_knowing_its_statistics():
    found = ColumnStatistics(
        columns=("a", "b", "c"),
        count=np.full(3, 9.0),
        mean=np.array([1e6, -3.0, 0.4]),
        deviation=np.array([2.0, 0.5, 0.5]),
        minimum=np.zeros(3),
        maximum=np.ones(3),
        binary=np.array([False, False, True]),
    )
    published = compiled(regression.task(3, found))
    assert published.frozen["mean"].tolist() == [1e6, -3.0, 0.0]
    assert published.frozen["deviation"].tolist() == [2.0, 0.5, 1.0]
    assert all(published.spec.arrays[name].role is Role.FROZEN for name in published.frozen)
    check(regression.task(3), published)
    with pytest.raises(CodeMismatch, match="'mean' is frozen"):
        check(regression.task(4), published)
    with pytest.raises(DataError, match="3 columns for 7 features"):
        regression.task(7, found)
