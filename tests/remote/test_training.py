"""A model trained at a worker is the model trained here, bit by bit."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

import shoal
from shoal.core.errors import NotPermitted
from shoal.remote.catalogue import DataSet
from shoal.remote.labels import OWN


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))


def rows(count=16) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 5), torch.randn(count, 1)


def train(model, x, y, optimizer, epochs=2):
    for _ in range(epochs):
        for rows, target in zip(x.split(8), y.split(8), strict=True):
            optimizer.zero_grad()
            functional.mse_loss(model(rows), target).backward()
            optimizer.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("before", [True, False], ids=["optimizer before send", "optimizer after send"])
def test_training_at_a_worker_is_training_here(before):
    local, x, y = net(), *rows()
    remote, bob = copy.deepcopy(local), shoal.VirtualWorker("bob")
    optimizer = torch.optim.SGD(remote.parameters(), lr=0.01, momentum=0.9) if before else None
    shoal.send(remote, bob)
    optimizer = optimizer or torch.optim.SGD(remote.parameters(), lr=0.01, momentum=0.9)
    train(local, x, y, torch.optim.SGD(local.parameters(), lr=0.01, momentum=0.9))
    train(remote, bob.send(x), bob.send(y), optimizer)
    assert bob.traffic.waits == 0
    assert same(shoal.get(remote), local)
    train(local, x, y, torch.optim.SGD(local.parameters(), lr=0.01))
    train(remote, x, y, torch.optim.SGD(remote.parameters(), lr=0.01))  # it stays an ordinary module
    assert same(remote, local)


def test_a_client_gets_its_own_and_handles_of_the_rest():
    real = torch.randn(10, 3)
    bob = shoal.VirtualWorker("bob", data=[DataSet("patients", {"data": real})])
    mine, theirs = bob.send(torch.ones(10, 3)), bob.open("patients")
    assert torch.equal(mine.get(), torch.ones(10, 3))
    assert theirs.shape == (10, 3)
    for made in (theirs, theirs * 1, theirs[0, 0], mine + theirs, theirs.sum()):
        with pytest.raises(NotPermitted):
            made.get()


def test_what_is_written_into_a_view_is_in_its_base():
    bob = shoal.VirtualWorker("bob", data=[DataSet("patients", {"data": torch.randn(4, 3)})])
    mine = bob.send(torch.zeros(4, 3))
    mine[1].copy_(bob.open("patients")[0])
    with pytest.raises(NotPermitted):
        mine.get()


def test_shapes_that_tell_values_are_refused_on_the_owners_data():
    bob = shoal.VirtualWorker("bob", data=[DataSet("patients", {"data": torch.randn(4, 3)})])
    mine, theirs = bob.send(torch.tensor([0.0, 1.0, 2.0])), bob.open("patients")
    assert mine[mine > 0].get().tolist() == [1.0, 2.0]
    with pytest.raises(NotPermitted):
        theirs[theirs > 0]


def test_the_owners_rows_do_not_change():
    real = torch.ones(4, 3)
    bob = shoal.VirtualWorker("bob", data=[DataSet("patients", {"data": real})])
    bob.open("patients").zero_()
    assert bob.sync()["objects"] >= 0
    assert torch.equal(real, torch.ones(4, 3))
    assert not OWN.private


LATE = """
import torch
from torch import nn
model, x = nn.Linear(3, 1), torch.ones(4, 3)
model(x).sum().backward()
expected = model.weight.grad.clone()
import shoal
bob = shoal.VirtualWorker("bob")
model.zero_grad()
shoal.send(model, bob)
model(bob.send(x)).sum().backward()
assert torch.equal(model.weight.grad.get(), expected)
with torch.autograd.set_multithreading_enabled(False):
    [again, _] = torch.autograd.grad(model(bob.send(x)).sum(), list(model.parameters()))
assert torch.equal(again.get(), expected)
"""


@pytest.mark.processes
def test_a_process_that_computed_gradients_before_goes_on_at_a_worker():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
