"""An owner at the command line: requests of a real worker's clients, and its log."""

import json

import pytest
import torch
from typer.testing import CliRunner

import shoal
from shoal.cli.main import app
from shoal.core.errors import NotPermitted
from tests.remote.conftest import start

pytestmark = pytest.mark.processes


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def bob(tmp_path, home):
    file = tmp_path / "houses.csv"
    file.write_text("rooms,age,price\n6,65,24\n6.4,78,21\n7.1,61,34\n6.9,45,33\n")
    started = start("--data", file, "--home", home, "--person", "carol")
    with started.connect("carol") as worker:
        yield worker
    started.end()


def shoal_(*command: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(part) for part in command])
    assert done.exit_code == code, done.output
    return done.output


def test_an_owner_sees_what_is_asked_approves_and_refuses(bob, home):
    means = shoal.record(lambda x: x.mean(0))
    x = bob.open("houses")
    means(x), means(x)
    with pytest.raises(NotPermitted, match="carol-1 waits"):
        means(x).get(reason="to scale my own rows")
    with pytest.raises(NotPermitted, match="carol-2 waits"):
        x[0].get(reason="just one")
    listed = [json.loads(line) for line in shoal_("requests", "list", "--home", home, "--json").splitlines()]
    assert [(each["id"], each["kind"], each["state"]) for each in listed] == [
        ("carol-1", "program", "waiting"),
        ("carol-2", "value", "waiting"),
    ]
    shown = shoal_("requests", "show", "carol-1", "--home", home)
    assert "aten.mean.dim" in shown
    assert "houses.data" in shown
    assert "to scale my own rows" in shown
    assert "carol-1 is approved" in shoal_("requests", "approve", "carol-1", "--home", home, "--times", "2")
    shoal_("requests", "refuse", "carol-2", "--home", home, "--note", "rows stay")
    assert torch.allclose(means(x).get(), torch.tensor([6.6, 62.25, 28.0]))
    with pytest.raises(NotPermitted, match="rows stay"):
        x[0].get(reason="just one")
    assert "--rows" in shoal_("requests", "approve", "carol-1", "--home", home, "--rows", "4", code=2)
    assert "carol-9" in shoal_("requests", "show", "carol-9", "--home", home, code=1)


def test_the_log_holds_and_shows_when_it_does_not(bob, home):
    with pytest.raises(NotPermitted):
        bob.open("houses").get()
    with pytest.raises(NotPermitted):
        bob.mock("houses")
    verified = json.loads(shoal_("audit", "verify", "--home", home, "--json"))
    assert verified["lines"] == 2
    assert "refused" in shoal_("audit", "show", "--home", home)
    lines = (home / "audit.jsonl").read_text().splitlines(keepends=True)
    (home / "audit.jsonl").write_text(lines[0])
    shoal_("audit", "verify", "--home", home)
    assert "cut off" in shoal_("audit", "verify", "--home", home, "--expect", verified["digest"], code=1)
    (home / "audit.jsonl").write_text(lines[0].replace("carol", "dave_"))
    assert "line 1 " in shoal_("audit", "verify", "--home", home, code=1)


def test_a_policy_that_is_wrong_is_refused_at_the_start(tmp_path):
    (tmp_path / "policy.toml").write_text("[[grant]]\nperson='a'\ndata='b'\nmok=true\n")
    told = shoal_("worker", "--policy", tmp_path / "policy.toml", "--home", tmp_path, code=1)
    assert "mok" in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "person.toml"], "dave"),
        (["--policy", "data.toml"], "boston"),
        (["--person", "../carol"], "a person named"),
    ],
)
def test_who_or_what_is_not_there_is_said_at_the_start(tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "houses.csv").write_text("rooms,age\n6,65\n")
    (tmp_path / "person.toml").write_text("[[grant]]\nperson='dave'\ndata='houses'\n")
    (tmp_path / "data.toml").write_text("[[grant]]\nperson='*'\ndata='boston'\n")
    assert said in shoal_("worker", "--data", "houses.csv", "--home", tmp_path, *options, code=1)


def test_a_home_is_of_one_worker(bob, home):
    assert "in use by another worker" in shoal_("worker", "--home", home, "--port", 0, code=1)
