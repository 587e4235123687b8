"""Lines that break, clients that leave, clients that take too much or send nonsense."""

import copy
import gc

import pytest
import torch

import shoal
from shoal.core.errors import (
    BadRequest,
    NotPermitted,
    OverLimit,
    RemoteFailure,
    SessionLost,
    Unauthorised,
    Unreachable,
)
from shoal.remote import frames
from shoal.remote.catalogue import Catalogue, DataSet
from shoal.remote.channel import Broken
from shoal.remote.frames import Batch, Failed, Get, Hello, Put, Welcome
from shoal.remote.host import Host, Tokens
from shoal.remote.limits import Limits
from shoal.remote.policy import Policy
from shoal.remote.reception import Reception
from shoal.remote.rules import Desk
from shoal.remote.session import Patience, Session
from shoal.remote.visit import Visit
from tests.remote.test_training import net, rows, same, train


def said(answers):
    return [frames.reply(each) for each in answers]


class Client:
    """A client by hand: what it sends, what it hears."""

    def __init__(self, host, person="alice", hello=None):
        self.now = 0.0
        self.heard = []
        self.reception = Reception(host, person, self.heard.append, lambda: self.now)
        self.send(hello or Hello(frames.PROTOCOL))

    def send(self, message):
        self.reception.take(frames.encode(message))
        return self.last

    @property
    def last(self):
        return frames.reply(self.heard[-1])


def host(**limits):
    return Host("bob", Tokens({"alice": "a", "carol": "c"}), Catalogue(), Limits(**limits), Desk(Policy()).rules)


def put(ident, value):
    return Batch([], [[frames.PUT, ident, "float32", [1], _bytes(value)]], [])


def _bytes(value):
    return torch.tensor([value]).numpy().tobytes()


# ---- lines that break


def test_a_dead_worker_does_not_hold_up_another():
    alice, bob = shoal.VirtualWorker("alice"), shoal.VirtualWorker("bob")
    x, y = alice.send(torch.ones(2)), bob.send(torch.ones(2))
    alice.session._dial = refused
    alice.session._channel.close()
    doubled = x * 2
    assert (y * 2).get().tolist() == [2.0, 2.0]
    alice.session._dial = alice._dial
    assert doubled.get().tolist() == [2.0, 2.0]


def refused(hear):
    raise Broken


def test_a_line_that_loses_messages_changes_nothing():
    local, x, y = net(), *rows(80)
    bob = shoal.VirtualWorker("bob", loss=0.1, seed=3)
    remote = shoal.send(copy.deepcopy(local), bob)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.01, momentum=0.9) for each in (local, remote)]
    rx, ry = bob.send(x), bob.send(y)
    for _ in range(8):
        train(local, x, y, optimizers[0], epochs=1)
        train(remote, rx, ry, optimizers[1], epochs=1)
        bob.sync()
    assert bob.traffic.reconnections > 0
    assert same(shoal.get(remote), local)


def test_the_time_on_a_line_is_counted():
    bob = shoal.VirtualWorker("bob", latency=0.25, bandwidth=1000.0)
    began = bob.traffic.seconds
    bob.send(torch.ones(250)).get()
    assert 0.5 + 1 + 1 < bob.traffic.seconds - began < 0.5 + 1 + 1 + 0.2  # there and back, 1000 bytes each way


def test_a_client_that_comes_back_goes_on():
    served = host()
    first = Client(served)
    welcome = first.last
    first.send(put(1, 5.0))
    first.reception.lost()
    again = Client(served, hello=Hello(frames.PROTOCOL, welcome.session, welcome.secret))
    assert again.last.done == 1
    assert torch.frombuffer(bytearray(again.send(Get(1, 1, 1)).data), dtype=torch.float32).item() == 5.0
    first.send(put(1, 6.0))  # what the old line still brings
    assert torch.frombuffer(bytearray(again.send(Get(2, 1, 1)).data), dtype=torch.float32).item() == 5.0


def test_an_answer_that_was_not_heard_is_said_again_and_not_made_again():
    served = host()
    first = Client(served)
    welcome = first.last
    first.send(put(1, 5.0))
    unheard = first.send(Get(1, 1, 1))
    first.reception.lost()
    again = Client(served, hello=Hello(frames.PROTOCOL, welcome.session, welcome.secret, (1,)))
    assert isinstance(said(again.heard)[0], Welcome)
    assert said(again.heard)[0].done == 2
    assert again.last == unheard


def test_what_a_gone_client_had_is_freed_after_its_lease():
    served = host(lease=60.0)
    client = Client(served)
    welcome, visit = client.last, client.reception._visit
    client.send(put(1, 5.0))
    client.now = 100.0
    client.reception.lost()
    served.sweep(159.0)
    assert (len(served), len(visit.executor.objects)) == (1, 1)
    served.sweep(160.0)
    assert (len(served), len(visit.executor.objects)) == (0, 0)
    back = Client(served, hello=Hello(frames.PROTOCOL, welcome.session, welcome.secret))
    assert (back.last.code, back.last.request) == (SessionLost.code, 0)


def test_a_client_that_leaves_is_freed_at_once():
    bob = shoal.VirtualWorker("bob")
    served = bob.host
    bob.send(torch.ones(3))
    assert len(served) == 1
    bob.close()
    assert len(served) == 0


# ---- many clients


def test_clients_do_not_see_each_other():
    served = host()
    alice, carol = Client(served), Client(served, "carol")
    alice.send(put(1, 5.0))
    carol.send(put(1, 6.0))
    for client, value in ((alice, 5.0), (carol, 6.0)):
        heard = len(client.heard)
        data = client.send(Get(1, 1, 1)).data
        assert torch.frombuffer(bytearray(data), dtype=torch.float32).item() == value
        assert len(client.heard) == heard + 1
    taken = alice.reception._visit
    stolen = Client(served, "carol", Hello(frames.PROTOCOL, taken.ident, taken.secret))
    assert stolen.last.code == SessionLost.code
    guessed = Client(served, "alice", Hello(frames.PROTOCOL, taken.ident, "wrong"))
    assert guessed.last.code == Unauthorised.code
    assert alice.send(Get(2, 1, 1)).data


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\xff" * 100,
        frames.encode(Batch([], [[0, [1], [2]]], [])),
        frames.encode(Batch([], [[-9]], [])),
        frames.encode(Batch([], [[]], [])),
        frames.encode(Batch([], [[frames.RUN, 7, [[1]], [[2]]]], [])),
        frames.encode(Batch([], [[frames.PUT, 1, "float32", [4], b"123"]], [])),
        frames.encode(Put(1, "float32", [1 << 39, 1 << 39], 1 << 62)),
        frames.encode(Put(1, "object", [1], 8)),
        frames.encode(frames.Part(b"1")),
        frames.encode(frames.Define(1, [], [[0, [1], [2]]], [], [], [])),
        frames.encode(Get(1, 1, 99)),
        frames.encode(Hello(frames.PROTOCOL)),
        b"\x91" * 100_000,
    ],
    ids=lambda nonsense: nonsense[:8].hex() or "nothing",
)
def test_nonsense_ends_its_session_and_no_other(nonsense):
    served = host()
    good, bad = Client(served), Client(served, "carol")
    good.send(put(1, 5.0))
    bad.reception.take(nonsense)
    assert isinstance(bad.last, Failed)
    assert (bad.last.request, bad.last.code) in ((0, BadRequest.code), (0, OverLimit.code))
    assert bad.reception.over
    assert good.send(Get(1, 1, 1)).data


# ---- errors


def test_an_operator_that_fails_raises_what_torch_raises_where_the_result_is_asked_for():
    bob = shoal.VirtualWorker("bob")
    words = bob.send(torch.ones(5, 3))
    wrong = torch.nn.functional.embedding(bob.send(torch.tensor([9])), words)
    after = wrong * 2 + 1
    with pytest.raises(IndexError, match="index out of range") as raised:
        after.get()
    assert isinstance(raised.value, RemoteFailure)
    assert "embedding" in str(raised.value)
    [note] = raised.value.__notes__
    assert note.startswith("At the worker:\n  shoal/remote/")
    assert "IndexError: index out of range" in note
    assert words.sum().item() == 15  # the rest goes on


def test_an_operator_that_fails_on_the_owners_data_says_nothing():
    data = DataSet("patients", {"data": torch.tensor([3, 9])})
    bob = shoal.VirtualWorker("bob", data=[data])
    found = torch.nn.functional.embedding(bob.open("patients"), bob.send(torch.ones(5, 3)))
    with pytest.raises(RemoteFailure) as raised:
        found.get()
    assert "9" not in str(raised.value)
    assert "range" not in str(raised.value)
    assert not getattr(raised.value, "__notes__", [])


# ---- what one client may take


def test_bytes_and_tensors_are_capped():
    bob = shoal.VirtualWorker("bob", limits=Limits(bytes=1000, objects=20))
    with pytest.raises(OverLimit, match="bytes"):
        (bob.send(torch.ones(10)).expand(100, 10) + 1).get()
    kept = [bob.send(torch.ones(1)) for _ in range(30)]
    assert kept[0].item() == 1
    with pytest.raises(OverLimit, match="tensors"):
        kept[-1].item()
    del kept
    bob.sync()
    assert bob.send(torch.ones(1)).item() == 1


def test_sessions_are_capped():
    served = host(clients=2)
    one, _ = Client(served), Client(served)
    assert Client(served).last.code == OverLimit.code
    one.reception.lost()
    late = Client(served)
    late.now = 1000.0
    late.send(Hello(frames.PROTOCOL))
    served.sweep(1000.0)
    assert isinstance(Client(served).last, Welcome)


def test_processor_time_is_capped():
    clock = iter(range(0, 1000, 10))
    visit = Visit("alice", Desk(Policy()).rules("alice"), Limits(seconds=25), Catalogue(), lambda: float(next(clock)))
    heard = []
    for at in range(3):
        visit.take(frames.encode(put(at, 1.0)), 0, heard.append)
    assert visit.over
    assert said(heard)[-1].code == OverLimit.code
    assert len(visit.executor.objects) == 0


def test_a_message_that_is_too_large_is_not_sent():
    bob = shoal.VirtualWorker("bob", limits=Limits(frame=2_000))
    x = bob.send(torch.ones(4))
    with pytest.raises(OverLimit, match="one message of"):
        sum((x + 1 for _ in range(600)), x).get()


class Silent:
    """A worker that greets and then says nothing."""

    def __init__(self, hear):
        self.hear, self.sent = hear, 0
        self.greeted = False

    def send(self, data):
        if not self.greeted:
            self.greeted = True
            self.hear(frames.encode(Welcome("s", "x", "bob", 0, 100, 1 << 20, 1 << 20, 1 << 20)))
        else:
            self.sent += 1

    def close(self):
        pass


def test_a_client_waits_for_credit_and_not_for_ever():
    lines = []
    session = Session(lambda hear: lines.append(Silent(hear)) or lines[-1], patience=Patience(0.01, 0.01))
    with pytest.raises(Unreachable, match="no credit from worker 'bob'"):
        flood(session)
    assert lines[-1].sent == 101  # as many steps as the credit, and the one that goes over it


def flood(session):
    for ident in range(1000):
        session.put(torch.ones(1), ident)
        session.flush()


# ---- no leak


@pytest.mark.slow
def test_ten_thousand_steps_leave_nothing_behind():
    bob = shoal.VirtualWorker("bob")
    weight, x = bob.send(torch.ones(3)).requires_grad_(), bob.send(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1e-6)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            (weight * x).sum().backward()
            optimizer.step()
        gc.collect()
        bob.session.flush()
        return bob.sync(), len(bob.session._unsure) < 600, len(bob.host)

    assert steps(100) == steps(9_900)
    recorded = shoal.record(lambda x: (x * 2).sum())
    counts = []
    for count in (10, 10_000):
        recorded.repeat([(x,)] * count)
        gc.collect()
        bob.session.flush()
        counts.append(bob.sync())
    assert counts[0] == counts[1]


def test_what_was_made_of_the_owners_is_freed_too():
    bob = shoal.VirtualWorker("bob", data=[DataSet("patients", {"data": torch.randn(8, 5)})])
    before = bob.sync()
    theirs = bob.open("patients")
    made = [theirs + at for at in range(10)]
    with pytest.raises(NotPermitted):
        made[0].get()
    del theirs, made
    gc.collect()
    bob.session.flush()
    assert bob.sync() == before
