"""An agent as a process over real sockets, ended by a signal while the coordinator holds its check-in."""

import base64
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.memory import MemoryBlobs, MemoryStore

AGENT = """
import signal, sys, threading
from shoal.agent.agent import Agent
from shoal.agent.data import ArrayData
from shoal.agent.home import AgentHome
import numpy as np

def end(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, end)
url, token, home = sys.argv[1:]
try:
    with AgentHome(home) as folder:
        data = ArrayData({"x": np.ones((20, 2))})
        Agent(url, "bob", folder, data, token=token, say=lambda line: print(line, flush=True)).run(threading.Event())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def served() -> Iterator[tuple[str, Coordinator, threading.Event]]:
    coordinator = Coordinator(MemoryStore(), MemoryBlobs())
    polling = threading.Event()
    inner = build_app(coordinator)

    async def app(scope, receive, send) -> None:
        if scope.get("path") == "/v1/checkin":
            polling.set()
        await inner(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    yield f"http://127.0.0.1:{socket.getsockname()[1]}", coordinator, polling
    server.should_exit = True
    thread.join(10.0)
    socket.close()


@pytest.mark.processes
def test_a_signal_ends_a_held_check_in_at_once(served, tmp_path: Path):
    url, coordinator, polling = served
    token = coordinator.identities.issue("enrolment", coordinator.clock())
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, url, token, str(tmp_path / "bob")], stdout=subprocess.PIPE, text=True
    ) as agent:
        assert polling.wait(20.0)
        began = time.monotonic()
        agent.send_signal(signal.SIGTERM)
        output, _ = agent.communicate(timeout=10.0)
    assert agent.returncode == 130
    assert time.monotonic() - began < 1.0
    assert output == f"enrolled as 'bob' at {url}\n"
    assert len(base64.b64decode(coordinator.identities.devices["bob"].public_key)) == 32
