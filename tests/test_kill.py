"""SIGKILL to the coordinator in mid-round, a restart on its home, and the same versions as if nothing had happened."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from shoal.core.task import RoundPlan
from shoal.data import boston_table, deal, split, write_csv
from shoal.data.boston import TARGET
from shoal.demo import regression
from shoal.researcher.coordinator import Coordinator
from shoal.testing.in_process import run_in_process
from shoal.train.data import client_data
from shoal.train.loop import LoopTrainer
from shoal.train.task import compile_task

pytestmark = pytest.mark.processes

ROUNDS = 4


@contextmanager
def child(*arguments: str, token: str = "", pipe: bool = False) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", *arguments],
        stdout=subprocess.PIPE if pipe else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "SHOAL_TOKEN": token},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until_serving(url: str) -> None:
    transport = httpx.HTTPTransport(retries=8)
    with httpx.Client(transport=transport, timeout=20) as client:
        assert client.get(f"{url}/healthz").status_code == 200


def until_reports(url: str, task: str, token: str, reports: int) -> None:
    """Ask for a version that cannot come yet, each time held a little, until the round has its reports."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20) as client:
        for _ in range(300):
            reply = client.get(f"/v1/tasks/{task}/versions?after=0&wait=0.2").json()
            if reply["status"]["reports"] >= reports:
                return
    pytest.fail(f"no {reports} reports came")


def test_the_versions_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    train, _ = split(boston_table())
    rows = dict(zip(("bob", "alice"), deal(train, 2), strict=True))
    for name, table in rows.items():
        write_csv(tmp_path / f"{name}.csv", table)
    plan = RoundPlan(goal=2, minimum=2)
    task = regression.task(lr=1e-8)  # rows are raw here, larger steps diverge
    owners = {name: client_data(name, (t.features(TARGET), t.target(TARGET))) for name, t in rows.items()}
    expected = run_in_process(compile_task(task, rounds=ROUNDS, plan=plan), owners, LoopTrainer(task))

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = ("server", "--home", str(tmp_path / "home"), "--port", str(port), "--json")

    def agent(name: str) -> tuple[str, ...]:
        code = str(Path(regression.__file__))
        data = str(tmp_path / f"{name}.csv")
        home = str(tmp_path / name)
        return (
            "agent",
            "--url",
            url,
            "--name",
            name,
            "--code",
            code,
            "--data",
            data,
            "--target",
            TARGET,
            "--home",
            home,
        )

    with ExitStack() as running:
        server = running.enter_context(child(*serve, pipe=True))
        assert server.stdout is not None
        announced = json.loads(server.stdout.readline())
        until_serving(url)
        coordinator = running.enter_context(Coordinator.connect(url, token=announced["admin_token"]))
        run = coordinator.publish(task, rounds=ROUNDS, goal=2, minimum=2, plan=False)
        running.enter_context(child(*agent("bob"), token=announced["enrolment_token"]))
        until_reports(url, run.id, announced["admin_token"], 1)
        server.send_signal(signal.SIGKILL)
        server.wait()

        again = running.enter_context(child(*serve))
        running.enter_context(child(*agent("alice"), token=announced["enrolment_token"]))
        versions = []
        for version in run.follow():
            versions.append(version)
            if version.number == 2:
                again.send_signal(signal.SIGKILL)
                again.wait()
                again = running.enter_context(child(*serve))

    assert [version.digest for version in versions] == [version.digest for version, _ in expected[1:]]
    assert [version.reports for version in versions] == [2] * ROUNDS
