"""A canary typed at the command line: a coordinator and two owners in processes of their own decide on a version."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from shoal.data import Table, write_csv
from shoal.demo.processes import Children
from tests.cli.test_commands import CODE, lines, text

SECONDS = 60.0


def rows(path: Path, seed: int) -> str:
    x = np.random.default_rng(seed).standard_normal((60, 2))
    write_csv(path, Table(("a", "b", "y"), np.column_stack([x, x @ [1.0, 2.0] + 1.0])))
    return str(path)


def decided(me: dict[str, str]) -> dict[str, object]:
    """Return where the heads stand once the first version was promoted or rolled back."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        (heads,) = lines("models", "heads", "regression", **me)
        if heads["steps"] and heads["steps"][-1]["what"] in ("promoted", "rolled back"):
            return heads
    raise AssertionError(heads)


@pytest.mark.processes
def test_owners_try_a_version_and_a_person_takes_it_back(tmp_path: Path):
    with Children() as children:
        server = children.start(
            "server",
            ["server", "--home", str(tmp_path / "server"), "--port", "0", "--json", "--stop-with-stdin"],
            tmp_path / "server.log",
            announces=True,
        )
        announced = json.loads(server.first_line(60))
        me = {"SHOAL_URL": announced["url"], "SHOAL_TOKEN": announced["admin_token"]}
        trial = ["--serve", "canary", "--canary", "1", "--guard", "loss", "--tolerance", "0.01", "--guard-rows", "30"]
        lines("publish", CODE, "--features", "2", "--rounds", "1", "--owners", "2", "--no-check", *trial, **me)
        for number, name in enumerate(("bob", "alice")):
            arguments = ["agent", "--url", "-", "--name", name, "--home", str(tmp_path / name), "--json"]
            arguments += ["--code", CODE, "--data", rows(tmp_path / f"{name}.csv", number), "--target", "y"]
            arguments += ["--holdout", "0.25", "--stop-with-stdin"]
            owner = children.start(name, arguments, tmp_path / f"{name}.log")
            owner.send(json.dumps({"url": announced["url"], "token": announced["enrolment_token"]}))
        heads = decided(me)
        assert [step["what"] for step in heads["steps"]] == ["canary", "guard", "measured", "promoted"]
        assert heads["steps"][2]["reason"].endswith("over 30 rows")
        assert (heads["serving"], heads["training"]) == (1, 1)
        (guard,) = lines("tasks", "show", "regression-1-guard-1", **me)
        assert guard["status"]["kind"] == "evaluation"
        assert "serves version 0, held" in text("models", "rollback", "regression", "--reason", "only a try", **me)
        (again,) = lines("models", "promote", "regression@1", **me)
        assert (again["serving"], again["held"]) == (1, False)
