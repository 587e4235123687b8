"""A real worker process over a real WebSocket."""

import asyncio
import copy
import json
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

import shoal
from shoal.cli.worker import _tokens
from shoal.core.errors import (
    ConfigurationError,
    NotPermitted,
    SessionLost,
    Unauthorised,
    Unreachable,
    WrongCertificate,
)
from shoal.remote.channel import Broken
from tests.certificates import certificate
from tests.remote.conftest import start
from tests.remote.test_recording import training
from tests.remote.test_training import net, rows, same, train

pytestmark = pytest.mark.processes


@pytest.fixture
def bob(worker_process):
    with worker_process.connect() as worker:
        yield worker


def test_training_over_a_socket_is_training_here(bob):
    local, x, y = net(), *rows()
    remote = copy.deepcopy(local)
    optimizer = torch.optim.SGD(remote.parameters(), lr=0.01, momentum=0.9)
    shoal.send(remote, bob)
    train(local, x, y, torch.optim.SGD(local.parameters(), lr=0.01, momentum=0.9))
    train(remote, bob.send(x), bob.send(y), optimizer)
    assert bob.traffic.waits == 0
    assert same(shoal.get(remote), local)


def test_the_catalogue_says_what_the_owner_wrote(bob):
    [entry] = bob.catalogue()
    assert (entry.name, entry.description, entry.rows, entry.tags) == ("houses", "Houses", 4, ("#boston",))
    assert entry.arrays["data"].columns == ("rooms", "age")
    assert (entry.arrays["data"].ranges["age"].low, entry.arrays["data"].ranges["age"].high) == (0, 100)
    [found] = bob.search("#boston", "#data")
    assert found.shape == (4, 2)
    with pytest.raises(NotPermitted):
        found.get()
    mock = bob.mock("houses")
    assert mock.shape == (4, 2)
    assert ((mock[:, 1] >= 0) & (mock[:, 1] <= 100)).all()


def test_a_wrong_token_is_refused(worker_process):
    with pytest.raises(Unauthorised, match="no such token"):
        shoal.connect(worker_process.url, token="shoal_worker_wrong", line_timeout=1)


def test_a_large_tensor_goes_and_comes_in_pieces(bob):
    x = torch.arange(3_000_000, dtype=torch.float32)
    assert torch.equal(bob.send(x).get(), x)
    assert bob.traffic.messages_received > 12


def test_tls_is_checked_or_pinned_before_the_token_goes(tmp_path):
    cert, key = certificate(tmp_path)
    served = start("--cert", cert, "--key", key)
    try:
        assert served.url.startswith("wss://")
        with pytest.raises(WrongCertificate, match="not trusted"):
            served.connect()
        with pytest.raises(WrongCertificate, match="not 00"):
            served.connect(fingerprint="00" * 32)
        with served.connect(ca=cert) as bob:
            assert bob.send(torch.ones(2)).sum().item() == 2
        with asyncio.run(shoal.connect_async(served.url, token=served.token, fingerprint=served.fingerprint)) as bob:
            assert asyncio.run(shoal.get_async(bob.send(torch.ones(2)))).tolist() == [1, 1]
    finally:
        served.end()
    assert served.process.returncode == 0


def test_a_plain_line_beyond_this_machine_is_refused():
    command = [sys.executable, "-m", "shoal", "worker", "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "--insecure-ws" in done.stderr) == (1, True)


def test_tokens_are_kept_for_the_owner_alone(tmp_path):
    file = tmp_path / "tokens.json"
    tokens, fresh = _tokens(["alice"], file)
    assert fresh
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert _tokens(["alice"], file) == (tokens, False)
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        _tokens(["alice"], file)


def test_a_cut_line_is_taken_up_again(bob):
    local, x, y = net(), *rows()
    remote = copy.deepcopy(local)
    here, there = (torch.optim.SGD(each.parameters(), lr=0.01, momentum=0.9) for each in (local, remote))
    shoal.send(remote, bob)
    rx, ry = bob.send(x), bob.send(y)
    for _ in range(3):
        train(local, x, y, here, epochs=1)
        train(remote, rx, ry, there, epochs=1)
        bob.session._channel._connection.socket.shutdown(socket.SHUT_RDWR)
        bob.sync()
    assert bob.traffic.reconnections == 3
    assert same(shoal.get(remote), local)


def test_clients_at_once_do_not_see_each_other(worker_process):
    with worker_process.connect() as one, worker_process.connect("alice") as other:
        first, second = one.send(torch.ones(3)), other.send(torch.zeros(3))
        losses = [(first + at).sum() for at in range(50)], [(second + at).sum() for at in range(50)]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda each: [loss.item() for loss in each], losses))
    assert found == [[3.0 + 3 * at for at in range(50)], [3.0 * at for at in range(50)]]


def test_a_session_whose_lease_is_over_says_so(worker_process):
    with worker_process.connect() as bob:
        x = bob.send(torch.ones(3))
        bob.sync()
        session = bob.session
        session._dial = unreachable_for(session._dial, 2 * 0.2)
        session._channel._connection.socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(SessionLost, match="its tensors were freed"):
            x.get()


def test_a_worker_that_was_started_anew_says_that_it_has_nothing(tmp_path):
    options = ("--token-file", tmp_path / "tokens", "--home", tmp_path / "home")
    first = start(*options)
    token = json.loads((tmp_path / "tokens").read_text())["researcher"]
    bob = shoal.connect(first.url, token=token)
    x = bob.send(torch.ones(3))
    bob.sync()
    first.end()
    second = start(*options, "--port", first.url.rpartition(":")[2])
    try:
        with pytest.raises(SessionLost, match="connect again and send them anew"):
            x.get()
        with shoal.connect(second.url, token=token) as again:
            assert again.send(torch.ones(3)).sum().item() == 3
    finally:
        second.end()


def unreachable_for(dial, seconds):
    began = time.monotonic()

    def later(hear):
        if time.monotonic() - began < seconds:
            raise Broken
        return dial(hear)

    return later


def test_a_killed_worker_is_a_clear_error_in_bounded_time():
    served = start()
    bob = served.connect(line_timeout=1.0)
    x = bob.send(torch.ones(3))
    bob.sync()
    served.process.kill()
    with pytest.raises(Unreachable, match="worker 'bob' did not come back in 1 seconds"):
        (x + 1).get()
    bob.close()
    served.end()


def test_ctrl_c_ends_a_worker_with_clients():
    served = start()
    with served.connect(line_timeout=0.5) as bob:
        x = bob.send(torch.ones(3))
        bob.sync()
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 0
        with pytest.raises(Unreachable):
            x.get()
    served.end()


def test_nobody_else_gets_a_word(worker_process):
    with pytest.raises(InvalidStatus) as refused:
        websockets.sync.client.connect(worker_process.url).__enter__()
    assert refused.value.response.status_code == 401
    headers = {"Authorization": f"Bearer {worker_process.token}"}
    for nonsense in ("text", b"\xff\xff", b"0" * (5 << 20)):
        line = websockets.sync.client.connect(worker_process.url, additional_headers=headers)
        with line as opened, pytest.raises(ConnectionClosed):
            until_closed(opened, nonsense)
    with worker_process.connect() as bob:
        assert bob.send(torch.ones(2)).sum().item() == 2


def until_closed(line, message):
    line.send(message)
    while True:
        line.recv(timeout=20)


def test_an_event_loop_goes_on_while_a_value_is_awaited(worker_process):
    async def main():
        bob = await shoal.connect_async(worker_process.url, token=worker_process.token)
        ticking = asyncio.create_task(asyncio.sleep(0))
        found = await shoal.get_async(bob.send(torch.ones(2)))
        bob.close()
        return found.tolist(), ticking.done()

    assert asyncio.run(main()) == ([1.0, 1.0], True)


def test_recording_over_a_socket(bob):
    local, x, y = net(), *rows(8)
    remote = copy.deepcopy(local)
    here, there = (torch.optim.SGD(each.parameters(), lr=0.01) for each in (local, remote))
    shoal.send(remote, bob)
    one, recorded = training(local, here), shoal.record(training(remote, there))
    rx, ry = bob.send(x), bob.send(y)
    for _ in range(3):
        recorded(rx, ry)
    losses = recorded.repeat([(rx, ry)] * 100)
    for _ in range(103):
        last = one(x, y)
    assert torch.equal(losses[-1].get(), last.detach())
    assert same(shoal.get(remote), local)
