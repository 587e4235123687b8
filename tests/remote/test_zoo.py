"""Optimizers, layers and loaders at a worker: bit for bit what they are here."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import shoal
from shoal.core.errors import WrongPlace
from tests.remote.test_training import net, rows, same, train

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name):
    local, (x, y) = net(), rows()
    remote, bob = copy.deepcopy(local), shoal.VirtualWorker("bob")
    before = OPTIMIZERS[name](remote.parameters())
    here = OPTIMIZERS[name](local.parameters())
    train(local, x, y, here)
    train(remote, x, y, before, epochs=1)  # its state is here, and goes with the model
    shoal.send(remote, bob)
    train(remote, bob.send(x), bob.send(y), before, epochs=1)
    assert same(shoal.get(remote), local)
    train(remote, x, y, before, epochs=1)
    train(local, x, y, here, epochs=1)
    assert same(remote, local)


def test_muon():
    weights = [torch.randn(4, 3), torch.randn(3, 4)]
    x, bob = torch.randn(5, 4), shoal.VirtualWorker("bob")
    here = [nn.Parameter(each.clone()) for each in weights]
    there = [nn.Parameter(bob.send(each)) for each in weights]
    for parameters, data in ((here, x), (there, bob.send(x))):
        optimizer = torch.optim.Muon(parameters, lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            (data @ parameters[0] @ parameters[1]).square().mean().backward()
            optimizer.step()
    assert all(torch.equal(one, other.detach().get()) for one, other in zip(here, there, strict=True))


def test_lbfgs():
    local, (x, y) = net(), rows()
    remote, bob = copy.deepcopy(local), shoal.VirtualWorker("bob")
    shoal.send(remote, bob)
    for model, data, target in ((local, x, y), (remote, bob.send(x), bob.send(y))):
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)

        def closure():
            optimizer.zero_grad()  # noqa: B023
            loss = functional.mse_loss(model(data), target)  # noqa: B023
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
    assert same(shoal.get(remote), local)


def test_a_remote_module_can_be_copied_and_not_pickled():
    model, bob = net(), shoal.VirtualWorker("bob")
    shoal.send(model, bob)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model[0].weight.zero_()
    assert type(copied[0].weight) is type(model[0].weight)
    assert not same(shoal.get(model), shoal.get(copied))
    with pytest.raises(WrongPlace, match="cannot be written to a file"):
        pickle.dumps(bob.send(torch.ones(2)))


def test_torch_makes_tensors_there():
    bob = shoal.VirtualWorker("bob")
    with bob.here():
        made = [torch.zeros(3, device="remote"), torch.arange(3, device="remote"), torch.ones(3).to("remote")]
        drawn = torch.randn(1000, device="remote")
    assert [each.tolist() for each in made] == [[0.0] * 3, [0, 1, 2], [1.0] * 3]
    assert abs(drawn.mean().item()) < 0.2
    assert torch.zeros_like(drawn).location is bob


def step(model, loss, x, y, optimizer):
    optimizer.zero_grad()
    functional_loss = loss(model(x), y)
    functional_loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    return functional_loss.detach()


class Recurrent(nn.Module):
    def __init__(self, kind, bidirectional=False):
        super().__init__()
        self.layer = kind(5, 7, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Linear(14 if bidirectional else 7, 3)

    def forward(self, x):
        return self.out(self.layer(x)[0][:, -1])


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.layer(self.words(x)).mean(1))


def images():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


MODELS = {
    "cnn with batch norm": (images, lambda: torch.randn(8, 1, 14, 14)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: torch.randn(8, 6, 5)),
    "rnn": (lambda: Recurrent(nn.RNN), lambda: torch.randn(8, 6, 5)),
    "lstm of doubles": (lambda: Recurrent(nn.LSTM).double(), lambda: torch.randn(8, 6, 5).double()),
    "lstm both ways": (lambda: Recurrent(nn.LSTM, bidirectional=True), lambda: torch.randn(8, 6, 5)),
    "gru both ways": (lambda: Recurrent(nn.GRU, bidirectional=True), lambda: torch.randn(8, 6, 5)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: torch.randn(8, 6, 5)),
    "transformer": (Attentive, lambda: torch.randint(0, 20, (8, 6))),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers(name):
    torch.manual_seed(0)
    make, data = MODELS[name]
    local, x, y = make(), data(), torch.randint(0, 3, (8,))
    remote, bob = copy.deepcopy(local), shoal.VirtualWorker("bob")
    here, there = (torch.optim.SGD(each.parameters(), lr=0.1) for each in (local, remote))
    shoal.send(remote, bob)
    rx, ry = bob.send(x), bob.send(y)
    for _ in range(3):
        one = step(local, functional.cross_entropy, x, y, here)
        other = step(remote, functional.cross_entropy, rx, ry, there)
    assert bob.traffic.waits == 0
    assert torch.equal(one, other.get())
    local.eval(), remote.eval()
    assert torch.equal(local(x), remote(rx).get())
    assert same(shoal.get(remote), local)
    assert torch.equal(local(x), remote(x))


def test_dropout_by_the_workers_generator():
    torch.manual_seed(0)
    local = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    (x, y), bob = rows(), shoal.VirtualWorker("bob")
    remote = copy.deepcopy(local)
    here, there = (torch.optim.SGD(each.parameters(), lr=0.1) for each in (local, remote))
    shoal.send(remote, bob)
    torch.manual_seed(7)
    train(local, x, y, here)
    bob.manual_seed(7)
    torch.manual_seed(1)  # has no effect there
    train(remote, bob.send(x), bob.send(y), there)
    assert same(shoal.get(remote), local)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_loader(shuffle):
    (x, y), bob = rows(), shoal.VirtualWorker("bob")
    remote = shoal.send(TensorDataset(x, y), bob)
    seed = torch.Generator().manual_seed(3)
    here = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=shuffle, generator=seed)
    there = DataLoader(remote, batch_size=5, shuffle=shuffle, generator=torch.Generator().manual_seed(3))
    count = 0
    for (a, b), (ra, rb) in itertools.zip_longest(here, there):
        assert torch.equal(a, ra.get())
        assert torch.equal(b, rb.get())
        count += 1
    assert count == 4


def test_what_needs_no_message():
    bob = shoal.VirtualWorker("bob")
    x = bob.send(torch.randn(4, 3), tags=("#mine", "#data"), description="random").requires_grad_()
    (x * 2).sum().backward()
    assert (x.shape, x.dtype, x.location, x.tags, x.description) == (
        (4, 3),
        torch.float32,
        bob,
        ("#mine", "#data"),
        "random",
    )
    assert x.grad.shape == (4, 3)
    assert bob.traffic.waits == 0
    assert torch.equal(x.grad.get(), torch.full((4, 3), 2.0))
    copied = x.detach().copy()
    copied.zero_()
    assert torch.equal(copied.get(), torch.zeros(4, 3))
    assert not torch.equal(x.get(), copied.get())


def test_search():
    bob, alice = shoal.VirtualWorker("bob"), shoal.VirtualWorker("alice")
    for worker, value in ((bob, 1.0), (alice, 2.0)):
        worker.send(torch.tensor([value]), tags=("#houses", "#data"))
    bob.send(torch.tensor([3.0]), tags=("#houses",))
    assert [each.get().item() for each in bob.search("#houses")] == [1.0, 3.0]
    found = shoal.search([bob, alice], "#houses", "#data")
    assert {name: [each.get().item() for each in there] for name, there in found.items()} == {
        "bob": [1.0],
        "alice": [2.0],
    }
