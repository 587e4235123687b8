"""Averages of models, and data that is dealt out to several owners."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import shoal
from shoal.core.errors import DataError, NotPermitted, TaskError, WrongPlace


def net(seed: int, momentum: float = 0.1) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum), nn.ReLU(), nn.Linear(4, 1))
    model(torch.randn(8, 3))
    return model


def states(models):
    return [copy.deepcopy(model.state_dict()) for model in models]


def equal(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_an_average_is_the_weighted_mean_and_leaves_its_models_alone():
    one, other = net(1), net(2)
    other[1].num_batches_tracked += 6
    before = states([one, other])
    mean = shoal.federated_avg({"bob": one, "alice": other}, weights={"bob": 1, "alice": 3})
    for key, value in mean.state_dict().items():
        left, right = before[0][key], before[1][key]
        if value.is_floating_point():
            assert torch.allclose(value, (left + 3 * right) / 4, rtol=0, atol=1e-6), key
    assert mean[1].num_batches_tracked == 7
    assert equal(before[0], one.state_dict())
    assert equal(before[1], other.state_dict())
    assert not set(map(id, mean.parameters())) & set(map(id, one.parameters()))


def test_without_weights_all_count_alike_and_one_alone_is_itself():
    one, other = net(1), net(2)
    mean = shoal.federated_avg({"bob": one, "alice": other})
    assert torch.allclose(mean[0].weight, (one[0].weight + other[0].weight) / 2)
    assert equal(shoal.federated_avg({"bob": one}).state_dict(), one.state_dict())


def test_the_order_of_owners_does_not_matter():
    models = {name: net(at) for at, name in enumerate("abc")}
    weights = {"a": 0.1, "b": 0.2, "c": 0.7}
    one = shoal.federated_avg(models, weights).state_dict()
    other = shoal.federated_avg(dict(reversed(models.items())), weights).state_dict()
    assert equal(one, other)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Embedding(5, 3)
        self.outer = nn.Linear(3, 5, bias=False)
        self.outer.weight = self.inner.weight
        self.register_buffer("scratch", torch.ones(2), persistent=False)


def test_tied_arrays_stay_tied_and_what_is_no_state_comes_along():
    mean = shoal.federated_avg({"bob": Tied(), "alice": Tied()})
    assert mean.outer.weight is mean.inner.weight
    assert torch.equal(mean.scratch, torch.ones(2))


def test_models_at_workers_are_averaged_and_stay_there():
    workers = {name: shoal.VirtualWorker(name) for name in ("bob", "alice")}
    local = {name: net(seed) for seed, name in enumerate(workers)}
    expected = shoal.federated_avg(local, {"bob": 2, "alice": 1}).state_dict()
    models = {name: shoal.send(copy.deepcopy(local[name]), worker) for name, worker in workers.items()}
    mean = shoal.federated_avg(models, {"bob": 2, "alice": 1})
    assert equal(mean.state_dict(), expected)
    assert models["bob"][0].weight.location is workers["bob"]
    mean(torch.randn(4, 3))  # an ordinary local module
    assert not mean._forward_hooks
    assert not mean._forward_pre_hooks


def test_recurrent_layers_are_averaged_too():
    workers = {name: shoal.VirtualWorker(name) for name in ("bob", "alice")}
    local = {name: nn.LSTM(3, 4, batch_first=True) for name in workers}
    x = torch.randn(2, 5, 3)
    expected = shoal.federated_avg(local)(x)[0]
    models = {name: shoal.send(copy.deepcopy(local[name]), worker) for name, worker in workers.items()}
    assert torch.equal(shoal.federated_avg(models)(x)[0], expected)


def test_an_owner_may_keep_its_model():
    bob = shoal.VirtualWorker("bob", data=[shoal.DataSet("rows", {"data": torch.ones(8, 3)})])
    model = shoal.send(nn.Linear(3, 1), bob)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(bob.open("rows")).sum().backward()
    optimizer.step()
    with pytest.raises(NotPermitted, match="data set 'rows'"):
        shoal.federated_avg({"bob": model, "here": nn.Linear(3, 1)})


@pytest.mark.parametrize(
    ("models", "weights", "wrong"),
    [
        ({}, None, "no models"),
        ({"a": nn.Linear(2, 1)}, {"b": 1}, "weights for"),
        ({"a": nn.Linear(2, 1)}, {"a": 0}, "above 0"),
        ({"a": nn.Linear(2, 1)}, {"a": float("nan")}, "finite"),
        ({"a": nn.Linear(2, 1), "b": nn.Linear(3, 1)}, None, "of shape"),
        ({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1, bias=False)}, None, "missing"),
    ],
)
def test_what_does_not_belong_together_is_refused(models, weights, wrong):
    with pytest.raises(TaskError, match=wrong):
        shoal.federated_avg(models, weights)


# ---- dealt out data


@pytest.fixture
def workers():
    return [shoal.VirtualWorker("bob"), shoal.VirtualWorker("alice")]


def test_a_federated_tensor_is_its_rows(workers):
    rows = torch.arange(15, dtype=torch.float32).reshape(5, 3)
    dealt = shoal.FederatedTensor.deal(rows, workers)
    assert (len(dealt), dealt.shape) == (5, (5, 3))
    assert torch.equal(dealt["bob"].get(), rows[0::2])
    assert torch.equal(dealt.sum(), rows.sum(0))
    assert torch.equal(dealt.mean(), rows.mean(0))
    assert torch.equal(dealt.map(lambda shard: shard * 2).get()["alice"], rows[1::2] * 2)
    assert "tensor" not in repr(dealt)
    with pytest.raises(WrongPlace, match="send it first"):
        shoal.FederatedTensor({"bob": rows})
    with pytest.raises(DataError, match="2 kinds"):
        shoal.FederatedTensor({"bob": dealt["bob"], "alice": dealt["alice"].long()})


def test_a_sum_over_owners_needs_the_leave_of_all():
    bob = shoal.VirtualWorker("bob", data=[shoal.DataSet("rows", {"data": torch.ones(8, 3)})])
    alice = shoal.VirtualWorker("alice")
    with pytest.raises(NotPermitted):
        shoal.FederatedTensor({"bob": bob.open("rows"), "alice": alice.send(torch.ones(2, 3))}).sum()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_loader_gives_each_row_once_and_each_batch_at_one_owner(workers, shuffle, drop_last):
    x = shoal.FederatedTensor.deal(torch.arange(11.0).reshape(11, 1), workers)
    y = x.map(lambda shard: shard * 10)
    generator = torch.Generator().manual_seed(1)
    loader = shoal.FederatedDataLoader(x, y, batch_size=2, shuffle=shuffle, drop_last=drop_last, generator=generator)
    batches = list(loader)
    assert len(batches) == len(loader) == (5 if drop_last else 6)
    assert [batch[0].location.name for batch in batches[:4]] == ["bob", "alice", "bob", "alice"]
    assert all(torch.equal(a.get() * 10, b.get()) for a, b in batches)
    seen = torch.cat([a.get() for a, _ in batches]).flatten()
    assert len(set(seen.tolist())) == len(seen) == (10 if drop_last else 11)
    if shuffle:
        again = torch.cat([a.get() for a, _ in loader]).flatten()
        assert not torch.equal(seen, again)


def test_owners_with_other_rows_are_refused(workers):
    x = shoal.FederatedTensor.deal(torch.ones(6, 1), workers)
    with pytest.raises(DataError, match="the same owners"):
        shoal.FederatedDataLoader(x, shoal.FederatedTensor.deal(torch.ones(8, 1), workers))
    with pytest.raises(DataError, match="batch_size=0"):
        shoal.FederatedDataLoader(x, batch_size=0)


def test_several_workers_train_at_once(workers):
    """Nobody is waited for while there is work to hand out: an owner's batch does not hold up the next one's."""
    x = shoal.FederatedTensor.deal(torch.randn(32, 3), workers)
    models = {worker.name: shoal.send(nn.Linear(3, 1), worker) for worker in workers}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    before = [worker.traffic.waits for worker in workers]
    for (rows,) in shoal.FederatedDataLoader(x, batch_size=4, shuffle=True):
        name = rows.location.name
        optimizers[name].zero_grad()
        functional.mse_loss(models[name](rows), rows[:, :1]).backward()
        optimizers[name].step()
    assert [worker.traffic.waits for worker in workers] == before


EXAMPLE = Path(__file__).parents[2] / "examples" / "boston_remote.py"


@pytest.mark.processes
@pytest.mark.parametrize("where", [[], ["--websocket"]], ids=["in this process", "over a websocket"])
def test_the_tutorial_ends_where_plain_torch_does(where):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--json", "--epochs", "4", *where],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    # what the same federated averaging gives in plain torch, in the same order of rows
    assert [each["mse"] for each in told] == pytest.approx([401.83804, 27.94711, 24.79768, 23.82819], rel=1e-4)
    assert told[-1]["mse"] < 24
    assert told[-1]["bytes"] > 0
