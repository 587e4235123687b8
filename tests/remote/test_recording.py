"""A recorded function does what it did; what cannot be recorded is refused, with its line."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import shoal
from shoal.core.errors import NotRecordable
from shoal.remote.catalogue import DataSet
from tests.remote.test_training import net, rows, same
from tests.remote.test_zoo import MODELS, OPTIMIZERS, step


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def training(model, optimizer, loss=functional.mse_loss):
    def train_step(x, y):
        optimizer.zero_grad()
        found = loss(model(x), y)
        found.backward()
        optimizer.step()
        return found

    return train_step


def pair(make=OPTIMIZERS["sgd"], **recorded_as):
    """A model and its step here, and the same at a worker, recorded."""
    local, bob = net(), shoal.VirtualWorker("bob")
    remote = copy.deepcopy(local)
    here, there = make(local.parameters()), make(remote.parameters())
    for group in here.param_groups:
        group.update({name: value for name, value in recorded_as.items() if name in group})
    shoal.send(remote, bob)
    return bob, local, remote, training(local, here), shoal.record(training(remote, there))


def called(recorded, *given):
    for _ in range(4):
        recorded(*given)


IN_ONE_KERNEL = ("adam", "amsgrad", "adam fused", "adamw", "adagrad")


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adafactor"])
def test_an_optimizer_records_rightly(name):
    bob, local, remote, here, there = pair(OPTIMIZERS[name], fused=True if name in IN_ONE_KERNEL else None)
    x, y = rows(40)
    batches = list(zip(x.split(8), y.split(8), strict=True)) * 3
    sent = [(bob.send(a), bob.send(b)) for a, b in batches]
    expected = [here(*each) for each in batches]
    found = [there(*each) for each in sent]
    exact = name in IN_ONE_KERNEL or name.startswith("sgd")
    close = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other.get(), one.detach(), **close)
    shoal.get(remote)
    for one, other in zip(local.parameters(), remote.parameters(), strict=True):
        torch.testing.assert_close(other.detach(), one.detach(), **close)


@pytest.mark.parametrize("name", MODELS)
def test_layers_record_rightly(name):
    torch.manual_seed(0)
    make, data = MODELS[name]
    local, x, y, bob = make(), data(), torch.randint(0, 3, (8,)), shoal.VirtualWorker("bob")
    remote = copy.deepcopy(local)
    here, there = (torch.optim.SGD(each.parameters(), lr=0.1) for each in (local, remote))
    shoal.send(remote, bob)
    recorded = shoal.record(lambda x, y: step(remote, functional.cross_entropy, x, y, there))
    rx, ry = bob.send(x), bob.send(y)
    for _ in range(4):
        one, other = step(local, functional.cross_entropy, x, y, here), recorded(rx, ry)
        assert torch.equal(other.get(), one)
    assert same(shoal.get(remote), local)


def test_a_call_is_one_small_message_and_many_batches_are_one_too():
    bob, local, remote, here, there = pair()
    x, y = rows(40)
    batches = list(zip(x.split(8), y.split(8), strict=True))
    sent = [(bob.send(a), bob.send(b)) for a, b in batches]
    for each, other in zip(batches, sent, strict=True):
        here(*each), there(*other)
    bob.session.flush()
    before = (bob.traffic.messages_sent, bob.traffic.bytes_sent)
    there(*sent[0])
    bob.session.flush()
    assert bob.traffic.messages_sent == before[0] + 1
    assert bob.traffic.bytes_sent - before[1] < 100
    losses = there.repeat(sent * 100)
    bob.session.flush()
    assert bob.traffic.messages_sent == before[0] + 2
    for each in [batches[0], *batches * 100]:
        last = here(*each)
    assert torch.equal(losses[-1].get(), last.detach())
    assert same(shoal.get(remote), local)


def test_a_changed_learning_rate_is_recorded_anew():
    local, bob, (x, y) = net(), shoal.VirtualWorker("bob"), rows(8)
    remote = copy.deepcopy(local)
    here, there = (torch.optim.SGD(each.parameters(), lr=0.1) for each in (local, remote))
    shoal.send(remote, bob)
    one, other = training(local, here), shoal.record(training(remote, there))
    rx, ry = bob.send(x), bob.send(y)
    for rate in (0.1, 0.01, 0.001):
        for optimizer in (here, there):
            optimizer.param_groups[0]["lr"] = rate
        for _ in range(4):
            one(x, y), other(rx, ry)
    assert same(shoal.get(remote), local)


def test_dropout_draws_anew_in_each_call():
    torch.manual_seed(0)
    bob, x = shoal.VirtualWorker("bob"), torch.ones(100)
    recorded = shoal.record(lambda x: functional.dropout(x))
    bob.manual_seed(7)
    found = [recorded(rx).get() for rx in [bob.send(x)] * 5]
    torch.manual_seed(7)
    assert all(torch.equal(each, functional.dropout(x)) for each in found)


def test_gradients_and_buffers_are_those_of_the_last_call():
    bob, local, remote, here, there = pair()
    x, y = rows(8)
    rx, ry = bob.send(x), bob.send(y)
    for _ in range(5):
        here(x, y), there(rx, ry)
    for one, other in zip(local.parameters(), remote.parameters(), strict=True):
        assert torch.equal(other.grad.get(), one.grad)


# ---- what is refused

COUNT = {"calls": 0}


def asks_for_a_value(x):
    return x * x.sum().item()


def branches(x):
    if x.sum() > 0:
        return x * 2
    return x


def counts_in_a_tensor(x):
    COUNT["calls"] += 1
    return x * torch.tensor(float(COUNT["calls"]))


def counts_in_a_number(x):
    COUNT["calls"] += 1
    return x * float(COUNT["calls"])


def sends(x):
    return x + x.location.send(torch.ones(2))


def has_a_shape_of_values(x):
    return x[x > 0]


def uses_bob_and_alice(x):
    return x * 2 + (ALICE[0] * 2).get().sum().item()


def sends_to_alice(x):
    ALICE[0].location.send(torch.ones(2))
    return x * 2


ALICE = []

REFUSED = {
    asks_for_a_value: "x.sum().item()",
    branches: "if x.sum() > 0",
    counts_in_a_tensor: 'torch.tensor(float(COUNT["calls"]))',
    counts_in_a_number: 'x * float(COUNT["calls"])',
    sends: "send(torch.ones(2))",
    has_a_shape_of_values: "x[x > 0]",
    uses_bob_and_alice: "ALICE[0] * 2",
    sends_to_alice: "ALICE[0].location.send",
}


@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_what_cannot_be_recorded_is_refused_with_its_line(function):
    bob, alice = shoal.VirtualWorker("bob"), shoal.VirtualWorker("alice")
    ALICE[:] = [alice.send(torch.ones(2))]
    x, recorded = bob.send(torch.tensor([1.0, 2.0])), shoal.record(function)
    with pytest.raises(NotRecordable) as refused:
        called(recorded, x)
    assert REFUSED[function] in str(refused.value)
    assert "test_recording.py line" in str(refused.value)
    assert (x * 3).get().tolist() == [3.0, 6.0]  # the session goes on


def test_a_step_count_that_stays_here_is_refused():
    bob, *_, recorded = pair(OPTIMIZERS["adafactor"])
    with pytest.raises(NotRecordable, match=r"optimizer.step\(\)"):
        called(recorded, *(bob.send(each) for each in rows(8)))


def test_arguments_must_be_remote_and_results_too():
    bob = shoal.VirtualWorker("bob")
    with pytest.raises(NotRecordable, match="an argument of type float"):
        shoal.record(lambda x: x)(1.0)
    with pytest.raises(NotRecordable, match="a result of type float"):
        shoal.record(lambda x: 1.0)(bob.send(torch.ones(2)))


def test_a_recorded_program_keeps_the_owners_label():
    real = torch.randn(8, 5)
    bob = shoal.VirtualWorker("bob", data=[DataSet("patients", {"data": real})])
    theirs, model = bob.open("patients"), net()
    shoal.send(model, bob)
    recorded = shoal.record(lambda x: model(x).sum())
    for _ in range(4):
        found = recorded(theirs)
    with pytest.raises(shoal.ShoalError, match="patients"):
        found.get()


def test_views_that_begin_elsewhere_are_one_recording():
    bob, x = shoal.VirtualWorker("bob"), torch.arange(12.0)
    here, there = x.split(3), bob.send(x).split(3)
    doubled = shoal.record(lambda x: (x * 2).sum())
    assert [doubled(each).item() for each in there] == [2 * each.sum().item() for each in here]
    assert len(doubled._attempts) == 1
    strided = shoal.record(lambda x: x.as_strided((2,), (1,), x.storage_offset() + 1).sum())
    for at in (1, 1, 1, 2, 3):  # the offset is in the recording
        assert strided(there[at]).item() == here[at][1:].sum().item()


def test_other_shapes_are_recorded_beside():
    bob = shoal.VirtualWorker("bob")
    recorded = shoal.record(lambda x: (x * 2).sum())
    for count in (3, 4, 3, 4, 3, 4, 3):
        assert recorded(bob.send(torch.ones(count))).item() == 2 * count


def test_a_module_that_is_gone_is_not_used_again():
    bob, x = shoal.VirtualWorker("bob"), torch.ones(3, 5)
    holder = [nn.Linear(5, 1)]
    shoal.send(holder[0], bob)
    recorded, rx = shoal.record(lambda x: holder[0](x)), bob.send(x)
    for _ in range(3):
        recorded(rx)
    holder[0] = nn.Linear(5, 1)
    expected = holder[0](x)
    shoal.send(holder[0], bob)
    assert torch.equal(recorded(rx).get(), expected)


def views_and_writes(x):
    turned = x.t()
    again = turned.t()  # looks as x does
    again.mul_(2)
    return x, again, turned, turned.t().detach() + 1


def lays_out_anew(x):
    turned = x.detach()
    turned.t_()
    return x + 0, turned


@pytest.mark.parametrize("function", [views_and_writes, lays_out_anew])
def test_views_of_one_memory_stay_apart(function):
    bob, x = shoal.VirtualWorker("bob"), torch.arange(6.0).reshape(2, 3)
    recorded, rx = shoal.record(function), bob.send(x)
    for _ in range(4):
        expected, found = function(x), recorded(rx)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(other.get(), one)
    found[0].t_()  # the layout of one result is not that of another
    assert found[1].get().shape == expected[1].shape
    assert torch.equal(rx.get(), x)
