"""A researcher's process that is killed: training goes on, and `shoal watch` shows every round afterwards."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from shoal.agent.agent import Agent
from shoal.agent.home import AgentHome
from shoal.researcher.coordinator import Coordinator as Researcher
from shoal.testing.server_process import ServerProcess
from tests.agent.federation import Running, line_data, line_task

pytestmark = pytest.mark.processes

# models this small lose time to a second thread
torch.set_num_threads(1)

ROUNDS = 5

RESEARCHER = """
import os, shoal
from tests.agent.federation import line_task
coordinator = shoal.Coordinator.connect(os.environ["SHOAL_URL"], token=os.environ["SHOAL_TOKEN"])
for version in coordinator.publish(line_task(), rounds={rounds}, goal=2, plan=False).follow():
    print(version.number, flush=True)
"""


def test_training_goes_on_and_watch_picks_it_up(tmp_path: Path):
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path / "home", tmp_path / "server.log"))
        assert server.start() is not None
        environment = {**os.environ, "SHOAL_URL": server.url, "SHOAL_TOKEN": server.admin_token}
        researcher = subprocess.Popen(
            [sys.executable, "-c", RESEARCHER.format(rounds=ROUNDS)], stdout=subprocess.PIPE, env=environment
        )
        stack.callback(researcher.wait)
        stack.callback(researcher.kill)
        agents = [agent(stack, server, tmp_path, name) for name in ("alice", "bob")]
        first = Running(agents[0])
        stack.callback(first.end)
        second = Running(agents[1])
        stack.callback(second.end)
        assert researcher.stdout is not None
        assert researcher.stdout.readline() == b"1\n"
        researcher.send_signal(signal.SIGKILL)
        assert researcher.wait() == -signal.SIGKILL
        researcher.stdout.close()

        watched = subprocess.run(
            [sys.executable, "-m", "shoal", "watch", "line", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        rows = [json.loads(line) for line in watched.stdout.splitlines()]
        assert [row["round"] for row in rows if "round" in row] == list(range(1, ROUNDS + 1))
        with Researcher.connect(server.url, token=server.admin_token) as coordinator:
            assert coordinator.status("line").phase == "finished"


def agent(stack: ExitStack, server: ServerProcess, folder: Path, name: str) -> Agent:
    home = stack.enter_context(AgentHome(folder / name))
    token = server.enrolment_token
    return Agent(server.url, name, home, line_data(name), token=token, code=line_task, say=lambda _: None, wait=0.2)
