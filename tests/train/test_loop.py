import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from shoal.algorithms.fedavg import fedavg
from shoal.algorithms.fedavgm import fedavgm
from shoal.algorithms.fedopt import fedadagrad, fedadam, fedyogi
from shoal.algorithms.fedprox import fedprox
from shoal.algorithms.local import adam, sgd
from shoal.core.errors import NotFinite, TaskError
from shoal.core.seeds import derive, permutation
from shoal.core.task import LocalPlan, RoundPlan, weight_units
from shoal.core.tree import digest
from shoal.core.types import Update
from shoal.testing.in_process import run_in_process
from shoal.train.arrays import describe, read_arrays
from shoal.train.data import ClientData, client_data
from shoal.train.evaluate import evaluate, load_model
from shoal.train.loop import LoopTrainer
from shoal.train.task import Task, compile_task

RNG = np.random.default_rng(0)
X = RNG.standard_normal((20, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 0.0], np.float32))[:, None]
PLAN = LocalPlan(epochs=2, batch_size=6, optimizer=sgd(0.05, momentum=0.9))
BOB = client_data("bob", (X, Y), "a1", seed=9)


def net(*layers: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), *layers, nn.Linear(5, 1))


def task(*layers: nn.Module, **changes) -> Task:
    given = {"name": "t", "model": net(*layers), "loss": functional.mse_loss, "example": (X[:8], Y[:8]), "local": PLAN}
    return Task(**(given | changes))


def params(given: Task) -> dict[str, np.ndarray]:
    return read_arrays(given.model, (n for n, spec in describe(given.model, given.roles).items() if spec.role.travels))


def one(given: Task, client: ClientData = BOB, plan: LocalPlan = PLAN) -> Update:
    [update] = LoopTrainer(given).train(params(given), plan, [client])
    return update


def plain_pytorch(model: nn.Module, plan: LocalPlan, mu: float = 0.0) -> float:
    """The same training, written as anybody would."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    model.train()
    for epoch in range(plan.epochs):
        order = permutation(derive(BOB.seed, epoch), len(X)) if plan.shuffle else np.arange(len(X))
        total = 0.0
        for first in range(0, len(X), plan.batch_size):
            rows = order[first : first + plan.batch_size]
            optimizer.zero_grad()
            loss = functional.mse_loss(model(torch.from_numpy(X[rows])), torch.from_numpy(Y[rows]))
            total += loss.item() * len(rows)
            if mu:
                loss = loss + mu / 2 * sum(((p - s) ** 2).sum() for p, s in zip(model.parameters(), start, strict=True))
            loss.backward()
            optimizer.step()
    return total / len(X)


@pytest.mark.parametrize("shuffle", [True, False])
def test_it_trains_as_plain_pytorch_does_bit_for_bit(shuffle):
    given, plan = task(nn.Tanh()), replace(PLAN, shuffle=shuffle)
    update = one(given, plan=plan)
    model = copy.deepcopy(given.model)
    loss = plain_pytorch(model, plan)
    before, after = params(given), read_arrays(model, update.delta)
    assert all(np.array_equal(update.delta[name], after[name] - before[name]) for name in after)
    assert update.metrics == {"loss": pytest.approx(loss, rel=1e-12)}
    assert (update.assignment, update.weight) == ("a1", weight_units(20))


def test_the_proximal_term_is_the_gradient_of_its_penalty():
    given = task(nn.Tanh())
    update = one(given, plan=replace(PLAN, proximal=0.7))
    model = copy.deepcopy(given.model)
    loss = plain_pytorch(model, PLAN, mu=0.7)
    before, after = params(given), read_arrays(model, update.delta)
    for name in after:
        np.testing.assert_allclose(update.delta[name], after[name] - before[name], atol=1e-6)
    assert update.metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert max(np.abs(update.delta[n] - one(given).delta[n]).max() for n in after) > 1e-3


def test_the_users_model_and_random_numbers_stay_as_they_were():
    given = task(nn.Dropout(0.5), nn.BatchNorm1d(5))
    given.model.eval()
    before, state = copy.deepcopy(given.model.state_dict()), torch.get_rng_state()
    one(given)
    assert all(torch.equal(before[name], tensor) for name, tensor in given.model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not given.model.training


def test_an_update_depends_on_its_seed_alone_and_not_on_who_came_before():
    given = task(nn.Dropout(0.5), nn.BatchNorm1d(5))
    eve = client_data("eve", (X * 3, Y), seed=4)
    trainer = LoopTrainer(given)
    updates = list(trainer.train(params(given), PLAN, [eve, BOB]))
    torch.manual_seed(99)
    assert digest(updates[1].delta) == digest(one(given).delta)
    assert digest(one(given, replace(BOB, seed=10)).delta) != digest(updates[1].delta)


def test_progress_is_told_after_every_batch():
    told = []
    given = task()
    list(LoopTrainer(given, lambda: told.append(1)).train(params(given), PLAN, [BOB]))
    assert len(told) == 2 * 4


def test_a_loss_that_is_not_finite_names_client_epoch_and_step():
    spoilt = X.copy()
    spoilt[13, 0] = np.nan
    with pytest.raises(NotFinite, match="'bob', epoch 0, step 2: the loss is nan"):
        one(task(), client_data("bob", (spoilt, Y)), replace(PLAN, shuffle=False))


def test_data_that_do_not_fit_name_client_epoch_and_step():
    with pytest.raises(TaskError, match="'bob', epoch 0, step 0: mat1 and mat2"):
        one(task(), client_data("bob", (X[:, :3], Y)))
    alone = client_data("bob", (X[:7], Y[:7]))
    with pytest.raises(TaskError, match="'bob', epoch 0, step 1: Expected more than 1 value per channel"):
        one(task(nn.BatchNorm1d(5)), alone)


def test_a_version_that_lacks_an_array_is_refused():
    given = task()
    few = params(given)
    del few["1.bias"]
    with pytest.raises(TaskError, match=r"1\.bias"):
        list(LoopTrainer(given).train(few, PLAN, [BOB]))
    with pytest.raises(TaskError, match=r"1\.bias"):
        load_model(given, few)


def test_arrays_of_another_shape_are_refused_and_not_broadcast():
    given = task()
    wrong = {**params(given), "0.bias": np.zeros(1, np.float32)}
    with pytest.raises(TaskError, match=r"'0\.bias' is float32 \(1,\), the model's is float32 \(5,\)"):
        load_model(given, wrong)
    with pytest.raises(TaskError, match="no arrays"):
        load_model(given, {**params(given), "2.bias": np.zeros(1, np.float32)})


def test_local_arrays_stay_with_their_client():
    given = task(roles={"1.*": "local"})
    trainer = LoopTrainer(given)
    eve = client_data("eve", (X, -Y))
    updates = list(trainer.train(params(given), PLAN, [BOB, eve]))
    assert all(update.delta.keys() == {"0.weight", "0.bias"} for update in updates)
    first = trainer.personal["bob"]["1.weight"]
    assert not np.array_equal(first, trainer.personal["eve"]["1.weight"])
    assert not np.array_equal(first, given.model[1].weight.detach().numpy())
    list(trainer.train(params(given), replace(PLAN, optimizer=sgd(1e-6)), [BOB]))
    np.testing.assert_allclose(trainer.personal["bob"]["1.weight"], first, atol=1e-4)


def test_starting_from_the_personal_model_gives_the_change_from_the_version():
    given = task()
    version = params(given)
    plan = replace(PLAN, start="personal")
    trainer = LoopTrainer(given)
    [first] = trainer.train(version, plan, [BOB])
    assert digest(first.delta) == digest(one(given).delta)  # without a personal model it starts from the version
    personal = trainer.personal["bob"]
    np.testing.assert_array_equal(first.delta["0.weight"], personal["0.weight"] - version["0.weight"])

    other = {name: array + np.float32(0.01) for name, array in version.items()}
    [second] = trainer.train(other, plan, [BOB])
    model = load_model(given, personal)
    plain_pytorch(model, PLAN)
    after = read_arrays(model, version)
    assert digest(second.delta) == digest({name: after[name] - other[name] for name in version})
    assert digest(trainer.personal["bob"]) == digest(after)


def test_the_proximal_term_pulls_a_personal_model_to_the_version():
    given, plan = task(), LocalPlan(1, 20, sgd(0.1), shuffle=False, start="personal")
    version = params(given)
    ends = []
    for mu in (0.0, 0.5):
        trainer = LoopTrainer(given)
        trainer.personal["bob"] = {name: array + np.float32(1) for name, array in version.items()}
        list(trainer.train(version, replace(plan, proximal=mu), [BOB]))
        ends.append(trainer.personal["bob"])
    for name in version:  # one step further by lr * mu * (personal - version)
        np.testing.assert_allclose(ends[0][name] - ends[1][name], np.full_like(version[name], 0.05), atol=1e-5)


def test_frozen_arrays_come_with_the_version_and_do_not_move():
    given = task(roles={"0.*": "frozen"})
    frozen = {name: np.zeros_like(array) for name, array in read_arrays(given.model, ["0.weight", "0.bias"]).items()}
    [update] = LoopTrainer(given).train({**params(given), **frozen}, PLAN, [BOB])
    assert update.delta.keys() == {"1.weight", "1.bias"}
    # nothing gets through a layer of zeros
    assert np.abs(update.delta["1.weight"]).max() == 0
    assert np.abs(one(given).delta["1.weight"]).max() > 0


def test_read_only_arrays_are_taken():
    given = task()
    arrays = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in params(given).items()}
    frozen_x = np.frombuffer(X.tobytes(), X.dtype).reshape(X.shape)
    [update] = LoopTrainer(given).train(arrays, PLAN, [client_data("bob", (frozen_x, Y), seed=9)])
    assert digest(update.delta) == digest(one(given).delta)


def test_adam_starts_afresh_for_every_client():
    given, plan = task(), replace(PLAN, optimizer=adam(0.01))
    trainer = LoopTrainer(given)
    first, second = trainer.train(params(given), plan, [BOB, BOB])
    assert digest(first.delta) == digest(second.delta)


def test_evaluate_weighs_batches_by_their_rows():
    rows = 1024 + 7
    x = RNG.standard_normal((rows, 4)).astype(np.float32)
    y = x[:, :1] * 2
    given = task(
        nn.Dropout(0.5),
        metrics={
            "mae": functional.l1_loss,
            "bias": lambda model, batch: (model(batch["x"]) - batch["y"]).mean(),
        },
    )
    found = evaluate(given, params(given), client_data("test", (x, y)))
    with torch.no_grad():
        output = copy.deepcopy(given.model).eval()(torch.from_numpy(x)).numpy()
    assert found == {
        "loss": pytest.approx(((output - y) ** 2).mean(), rel=1e-5),
        "mae": pytest.approx(np.abs(output - y).mean(), rel=1e-5),
        "bias": pytest.approx((output - y).mean(), rel=1e-4),
    }


@pytest.mark.parametrize(
    "strategy",
    [fedavg(), fedavgm(lr=0.5), fedadagrad(), fedadam(), fedyogi(), fedprox(mu=0.1)],
    ids=lambda strategy: strategy.name,
)
def test_batch_norm_survives_every_server_optimizer(strategy):
    given = task(nn.BatchNorm1d(5), nn.ReLU(), strategy=strategy, local=replace(PLAN, batch_size=5))
    owners = {"bob": client_data("bob", (X, Y)), "eve": client_data("eve", (9 * X[:10], Y[:10]))}
    recorder = Recorder(given)
    versions = run_in_process(compile_task(given, rounds=3, plan=RoundPlan(goal=2)), owners, recorder)
    for number in (1, 2, 3):
        before, after = versions[number - 1][1], versions[number][1]
        bob, eve = recorder.deltas[2 * number - 2 : 2 * number]
        for name in ("1.running_mean", "1.running_var"):
            # weights 20 and 10
            mean = before[name] + (2 * bob[name].astype(np.float64) + eve[name]) / 3
            np.testing.assert_allclose(after[name], mean, rtol=1e-6, atol=1e-7)
        assert after["1.running_var"].min() > 0
        assert after["1.num_batches_tracked"] == number * 2 * 4
        assert digest(before) != digest(after)


class Recorder:
    """A trainer that keeps the deltas it passes on."""

    def __init__(self, given: Task) -> None:
        self.trainer = LoopTrainer(given)
        self.deltas = []

    def train(self, tree, plan, clients):
        for update in self.trainer.train(tree, plan, clients):
            self.deltas.append(update.delta)
            yield update
