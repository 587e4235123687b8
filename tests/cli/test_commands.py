"""The commands of owners and researchers, against a real coordinator and a real agent in processes of their own."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import shoal.demo
from shoal.cli.main import app
from shoal.core.tree import encode
from shoal.data import Table, write_csv
from shoal.demo.processes import Children

CODE = str(Path(shoal.demo.__file__).parent / "regression.py")

runner = CliRunner()


def lines(*arguments: str, **environment: str) -> list[dict[str, object]]:
    """Run a command with --json and return what it printed."""
    result = runner.invoke(app, [*arguments, "--json"], env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def text(*arguments: str, **environment: str) -> str:
    result = runner.invoke(app, list(arguments), env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as running:
        yield running


@pytest.mark.processes
def test_publish_train_watch_and_download(tmp_path, children, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    server_arguments = ["server", "--home", str(tmp_path / "server"), "--port", "0", "--json", "--stop-with-stdin"]
    server = children.start("server", server_arguments, tmp_path / "server.log", announces=True)
    announced = json.loads(server.first_line(60))
    me = {"SHOAL_URL": announced["url"], "SHOAL_TOKEN": announced["admin_token"]}
    assert lines("tasks", **me) == []
    nothing = runner.invoke(app, ["watch"], env=me)
    assert (nothing.exit_code, "publish one" in nothing.stderr) == (1, True)

    early = text("publish", CODE, "--features", "2", "--rounds", "1", "--owners", "1", **me)
    assert early.startswith("no check over all owners")
    (cancelled,) = lines("tasks", "cancel", "regression", "--reason", "only a try", **me)
    assert (cancelled["phase"], cancelled["reason"]) == ("cancelled", "only a try")
    (published,) = lines("publish", CODE, "--features", "2", "--rounds", "2", "--owners", "1", **me)
    assert (published["task"], published["checked"], len(published["plan"])) == ("regression-2", None, 64)

    rng = np.random.Generator(np.random.Philox(1))
    write_csv(tmp_path / "rows.csv", Table(("a", "b", "y"), rng.standard_normal((30, 3))))
    agent_arguments = ["agent", "--url", "-", "--name", "bob", "--home", str(tmp_path / "bob"), "--json"]
    agent_arguments += ["--code", CODE, "--data", str(tmp_path / "rows.csv"), "--target", "y", "--stop-with-stdin"]
    bob = children.start("bob", agent_arguments, tmp_path / "bob.log")
    bob.send(json.dumps({"url": announced["url"], "token": announced["enrolment_token"]}))

    rounds = lines("watch", "regression", **me)
    assert [(row["round"], row["reports"], row["test"]) for row in rounds] == [(1, 1, {}), (2, 1, {})]
    head, *rows = text("watch", "regression", **me).splitlines()
    assert head.split()[:2] == ["round", "loss"]
    assert rows[1].split()[1] == f"{rounds[1]['metrics']['loss']:.5g}"
    said = [json.loads(line)["said"] for line in bob.log.read_text().splitlines()]
    releases = [line.partition(":")[0] for line in said if line.startswith("releasing")]
    assert releases == ["releasing to regression-2 round 1", "releasing to regression-2 round 2"]

    task = lines("tasks", **me)[-1]
    assert (task["id"], task["phase"]) == ("regression-2", "finished")
    (shown,) = lines("tasks", "show", "regression", **me)
    assert shown["status"]["latest"]["digest"] == rounds[1]["digest"]
    assert shown["manifest"]["owners"]["bob"]["trainer"] == "loop"
    described = text("tasks", "show", "regression", **me)
    for part in (shown["manifest_digest"], "owner bob", "torch", '"batch_size":8'):
        assert part in described
    assert "2/2" in text("tasks", **me)
    (device,) = lines("devices", **me)
    assert device["name"] == "bob"
    assert "bob" in text("devices", **me)
    versions = lines("models", "list", "regression", **me)
    assert [version["number"] for version in versions] == [0, 1, 2]
    assert versions[2]["digest"] == rounds[1]["digest"]
    assert versions[2]["digest"][:16] in text("models", "list", "regression", **me)

    (served,) = lines("models", "promote", "regression@1", "--reason", "steadier", **me)
    assert (served["serving"], served["training"], served["held"]) == (1, 2, True)
    (back,) = lines("models", "rollback", "regression", **me)
    assert (back["serving"], [step["what"] for step in back["steps"]]) == (2, ["promoted", "rolled back"])
    lines("models", "note", "regression@1", "too few rows", **me)
    assert "serves version 2, held" in text("models", "heads", "regression", **me)
    assert "too few rows" in text("models", "show", "regression@1", **me)
    assert [row["standing"] for row in lines("models", "list", "regression", **me)] == ["", "rolled back", "served"]

    for wanted in ("regression@1", "regression"):
        (wrote,) = lines("models", "download", wanted, "--to", str(tmp_path / wanted), **me)
        assert sha256((tmp_path / wanted).read_bytes()).hexdigest() == wrote["digest"]
    (first, *_) = compared = lines("models", "compare", "regression@1", "regression", **me)
    assert first["distance"] > 0
    assert compared[-1]["metric"] == "loss"
    assert "relative" in text("models", "compare", "regression@1", "regression", **me)
    assert "metrics: loss" in text("models", "show", "regression@2", **me)
    assert (tmp_path / "regression").read_bytes() != (tmp_path / "regression@1").read_bytes()
    _publish_what_cannot_be_exported(tmp_path / "branching.py", me)


def test_show_lists_the_arrays_of_a_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode({"layer.weight": np.full((2, 3), 2.0, np.float32), "steps": np.array(4)}))
    assert lines("models", "show", str(path)) == [
        {"array": "layer.weight", "shape": [2, 3], "dtype": "float32", "norm": pytest.approx(24**0.5)},
        {"array": "steps", "shape": [], "dtype": "int64", "norm": 4.0},
    ]
    assert "7 numbers in 2 arrays" in text("models", "show", str(path))


def test_two_files_are_compared_array_by_array(tmp_path):
    first, second, other = (
        tmp_path / name for name in ("first.safetensors", "second.safetensors", "other.safetensors")
    )
    first.write_bytes(encode({"a": np.array([3.0, 4.0]), "b": np.zeros(2), "c": np.zeros(1)}))
    second.write_bytes(encode({"a": np.array([3.0, 3.0]), "b": np.zeros(2), "c": np.ones(1)}))
    other.write_bytes(encode({"a": np.zeros(3)}))
    assert lines("models", "compare", str(first), str(second)) == [
        {"array": "a", "distance": 1.0, "relative": 0.2},
        {"array": "b", "distance": 0.0, "relative": 0.0},
        {"array": "c", "distance": 1.0, "relative": 1.0},
    ]
    refused = runner.invoke(app, ["models", "compare", str(first), str(other)])
    assert (refused.exit_code, "['a', 'b', 'c']" in refused.stderr) == (1, True)


def test_a_version_needs_a_coordinator():
    refused = runner.invoke(app, ["models", "show", "regression@1"], env={"SHOAL_URL": None, "SHOAL_TOKEN": None})
    assert refused.exit_code == 2
    assert "SHOAL_URL" in refused.stderr


def test_an_agent_on_a_device_that_torch_lacks_ends_at_once(tmp_path):
    write_csv(tmp_path / "rows.csv", Table(("a", "y"), np.ones((20, 2))))
    arguments = ["agent", "--url", "http://127.0.0.1:9", "--name", "bob", "--code", CODE, "--device", "cuda:99"]
    refused = runner.invoke(app, [*arguments, "--data", str(tmp_path / "rows.csv"), "--target", "y"])
    assert refused.exit_code == 1
    assert "device 'cuda:99' cannot be used" in refused.stderr
    assert "torch" in refused.stderr


def test_an_invitation_must_be_readable(tmp_path, monkeypatch):
    write_csv(tmp_path / "rows.csv", Table(("a", "y"), np.ones((20, 2))))
    monkeypatch.setattr("shoal.cli.agent.first_line", lambda: "hello")
    arguments = ["agent", "--url", "-", "--name", "bob", "--data", str(tmp_path / "rows.csv"), "--target", "y"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "standard input begins with no" in result.stderr


BRANCHING = """
import numpy as np
import shoal
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x):
        y = self.layer(x)
        return y if y.sum() > 0 else -y


rows = np.ones((4, 2), np.float32)
task = shoal.Task("branching", Net(), nn.functional.mse_loss, example=(rows, rows[:, :1]))
"""


def _publish_what_cannot_be_exported(file, me):
    file.write_text(BRANCHING)
    command = ["publish", f"{file}:task", "--rounds", "1", "--owners", "1", "--no-check"]
    refused = runner.invoke(app, command, env=me)
    assert refused.exit_code == 1
    assert f"aten._local_scalar_dense.default in module 'Net' at {file}:14" in refused.stderr
    assert "--no-plan" in refused.stderr
    assert [status["name"] for status in lines("tasks", **me)] == ["regression", "regression"]
    (trusted,) = lines(*command, "--no-plan", **me)
    assert (trusted["name"], trusted["plan"]) == ("branching", "")
    lines("tasks", "cancel", "branching", **me)
