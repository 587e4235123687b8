"""A real worker process over a real WebSocket."""

import asyncio
import copy
import stat
import subprocess
import sys

import pytest
import torch

import shoal
from shoal.cli.worker import _tokens
from shoal.core.errors import ConfigurationError, NotPermitted, Unauthorised, WrongCertificate
from tests.certificates import certificate
from tests.remote.conftest import start
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
