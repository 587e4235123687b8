"""An agent whose home is sealed, typed at a real coordinator: it joins, answers, and comes back with its key only."""

import json
import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from shoal.agent.home import AgentHome
from shoal.agent.sealed import Seal
from shoal.cli.main import app
from shoal.core.errors import WrongKey
from shoal.data import Table, write_csv
from shoal.demo.processes import Child, Children

SECONDS = 60


def measured(me: dict[str, str]) -> float:
    done = CliRunner().invoke(app, ["statistics", "a", "--owners", "1", "--json"], env=me, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)["mean"]


@pytest.mark.slow
@pytest.mark.processes
def test_a_sealed_home_is_that_of_whoever_has_the_key(tmp_path: Path):
    rows = np.arange(60.0).reshape(30, 2)
    write_csv(tmp_path / "rows.csv", Table(("a", "y"), rows))
    key, home = tmp_path / "key", tmp_path / "bob"
    key.write_bytes(secrets.token_bytes(32))
    arguments = ["agent", "--name", "bob", "--home", str(home), "--data", str(tmp_path / "rows.csv"), "--target", "y"]
    arguments += ["--url", "-", "--stop-with-stdin"]

    def agent(children: Children, announced: dict[str, str], times: int) -> Child:
        bob = children.start("bob", [*arguments, "--seal-key", str(key)], tmp_path / f"bob{times}.log")
        bob.send(json.dumps({"url": announced["url"], "token": announced["enrolment_token"]}))
        return bob

    with Children() as coordinator:
        server = ["server", "--home", str(tmp_path / "server"), "--port", "0", "--json", "--stop-with-stdin"]
        announced = json.loads(
            coordinator.start("server", server, tmp_path / "server.log", announces=True).first_line(60)
        )
        me = {"SHOAL_URL": announced["url"], "SHOAL_TOKEN": announced["admin_token"]}
        with Children() as children:
            agent(children, announced, 1)
            assert measured(me) == rows[:, 0].mean()
        with AgentHome(home, Seal(key.read_bytes())) as opened:
            private = opened.known().private_key
        kept = [path for path in home.rglob("*") if path.is_file()]
        assert [path.name for path in kept if private.encode() in path.read_bytes()] == []
        with AgentHome(home) as closed, pytest.raises(WrongKey):
            closed.known()

        other = tmp_path / "other"
        other.write_bytes(secrets.token_bytes(32))
        for wrong in (["--seal-key", str(other)], []):
            command = [sys.executable, "-m", "shoal", *arguments[:-3], "--url", announced["url"], *wrong]
            refused = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert (refused.returncode, "wrong_key" in refused.stderr) == (1, True), refused.stderr

        with Children() as children:
            agent(children, announced, 2)
            assert measured(me) == rows[:, 0].mean()
        devices = CliRunner().invoke(app, ["devices", "--json"], env=me, catch_exceptions=False)
        assert [json.loads(line)["name"] for line in devices.stdout.splitlines()] == ["bob"]
