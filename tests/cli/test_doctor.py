"""`shoal doctor` and `shoal top` against a real coordinator, one that is away, and one that is something else."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from shoal.cli import doctor
from shoal.cli.main import app
from shoal.core.errors import Abandoned
from shoal.researcher.coordinator import Coordinator
from shoal.testing.server_process import ServerProcess
from shoal.wire.messages import Health


def run(*options: object, code: int = 0) -> dict[str, dict[str, str]]:
    done = CliRunner().invoke(app, ["doctor", *map(str, options), "--json"])
    assert done.exit_code == code, done.output
    return {finding["check"]: finding for finding in map(json.loads, done.output.splitlines())}


def test_this_machine_is_looked_at(tmp_path):
    found = run("--home", tmp_path)
    assert found["python"]["state"] == "ok"
    assert found["torch"]["state"] == "ok"
    assert "GB free" in found["home"]["found"]
    table = CliRunner().invoke(app, ["doctor", "--home", str(tmp_path)]).output
    assert "python" in table


def test_a_port_that_is_taken_and_a_home_that_cannot_be_are_said(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        found = run("--home", tmp_path, "--port", listener.getsockname()[1])
    assert found["port"]["state"] == "note"
    assert "--port" in found["port"]["mend"]
    (tmp_path / "file").write_text("no folder")
    assert "--home" in run("--home", tmp_path / "file" / "home", code=1)["home"]["mend"]


def test_a_package_out_of_its_bounds_is_wrong(monkeypatch):
    assert doctor._fits("2.13.0+cpu", "torch<2.14,>=2.13; extra == 'torch'")
    assert not doctor._fits("2.9.1", "torch<2.14,>=2.13; extra == 'torch'")
    assert not doctor._fits("3.0", "torch<2.14,>=2.13; extra == 'torch'")
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.9.1")
    finding = doctor._extra("torch", *doctor.EXTRAS["torch"])
    assert (finding.state, finding.mend.split(",")[0]) == ("wrong", "pip install 'shoal[torch]'")


def test_a_clock_and_a_protocol_that_are_off_are_said():
    assert doctor._clock(Health("ok", "0", 1, 0.0)).state == "note"
    assert doctor._protocol(Health("ok", "0", 99, 0.0)).mend == "install the same version of Shoal on both"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("coordinator")
    with ServerProcess(home / "home", home / "log") as server:
        server.start()
        yield server


@pytest.mark.processes
def test_a_coordinator_is_looked_at(server, tmp_path):
    found = run("--home", tmp_path, "--url", server.url, "--token", server.admin_token)
    assert {check: found[check]["state"] for check in ("coordinator", "protocol", "clock", "token")} == {
        "coordinator": "ok",
        "protocol": "ok",
        "clock": "ok",
        "token": "ok",
    }
    assert "admin" in found["token"]["found"]
    wrong = run("--home", tmp_path, "--url", server.url, "--token", "shoal_admin_wrong", code=1)
    assert "token" in wrong["coordinator"]["found"]
    assert server.admin_token not in json.dumps(found)


@pytest.mark.processes
def test_a_coordinator_that_is_away_is_wrong(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert "no answer" in run("--home", tmp_path, "--url", url, code=1)["coordinator"]["found"]


@pytest.mark.processes
def test_top_tells_of_each_change_and_ends_by_ctrl_c(server):
    command = [sys.executable, "-m", "shoal", "top", "--url", server.url, "--token", server.admin_token, "--json"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        Coordinator.connect(server.url, token=server.admin_token) as coordinator,
        ThreadPoolExecutor() as threads,
    ):
        assert process.stdout is not None
        measuring = threads.submit(coordinator.statistics, ("age",), goal=2)  # it waits for owners, who never come
        first = json.loads(process.stdout.readline())
        assert (first["kind"], first["phase"]) == ("statistics", "collecting")
        with Coordinator.connect(server.url, token=server.admin_token) as other:
            other.pause(first["id"])
            assert json.loads(process.stdout.readline())["phase"] == "paused"
            other.cancel(first["id"])
        assert json.loads(process.stdout.readline())["phase"] == "cancelled"
        with pytest.raises(Abandoned):
            measuring.result(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
