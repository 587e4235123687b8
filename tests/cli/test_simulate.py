"""`shoal simulate`: a file with a task and its clients."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from shoal.cli.main import app

CODE = """
import numpy as np
from torch import nn
from torch.nn.functional import mse_loss
import shoal

def task():
    return shoal.Task("line", nn.Linear(2, 1), mse_loss, local=shoal.LocalPlan(optimizer=shoal.sgd(0.05)))

def clients():
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((12, 2)).astype(np.float32) for _ in range(6)]
    return {f"c{i}": (x, x @ np.array([[1.0], [2.0]], np.float32)) for i, x in enumerate(rows)}
"""

CHOSEN = """
from shoal.simulation.selection import Cyclic, PowerOfChoice

taken = []
few = PowerOfChoice(candidates=1)
devices = shoal.Population()

class Noted(Cyclic):
    def choose(self, *given, **more):
        taken.append(list(super().choose(*given, **more)))
        with open(__file__ + ".taken", "w") as file:
            print(taken, file=file)
        return taken[-1]

chosen = Noted()
"""

runner = CliRunner()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "line.py"
    path.write_text(CODE)
    return path


@pytest.mark.slow
def test_rows_as_json_and_the_model_in_a_file(code: Path, tmp_path: Path):
    saved = tmp_path / "model.safetensors"
    options = ["--rounds", "15", "--cohort", "4", "--trainer", "vmapped", "--save", str(saved), "--json"]
    result = runner.invoke(app, ["simulate", f"{code}:task", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["round"] for row in rows] == list(range(1, 16))
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert np.abs(load_file(saved)["weight"] - [[1.0, 2.0]]).max() < 1


def test_a_checkpoint_is_gone_on_from(code: Path, tmp_path: Path):
    checkpoint = str(tmp_path / "checkpoint")
    options = ["simulate", f"{code}:task", "--rounds", "3", "--trainer", "loop", "--json"]
    first = runner.invoke(app, [*options, "--checkpoint", checkpoint, "--every", "2"], catch_exceptions=False)
    again = runner.invoke(app, [*options, "--resume", checkpoint], catch_exceptions=False)
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert again.stdout == ""  # all its rounds were done


@pytest.mark.slow
def test_a_person_sees_the_last_round_and_why_its_trainer(code: Path):
    result = runner.invoke(app, ["simulate", f"{code}:task", "--rounds", "2"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.startswith("trainer ")
    assert "loss" in result.stdout


def test_a_selection_and_a_population_of_the_file(code: Path):
    code.write_text(CODE + CHOSEN)
    options = ["simulate", f"{code}:task", "--rounds", "3", "--cohort", "4", "--trainer", "loop", "--json"]
    cyclic = runner.invoke(app, [*options, "--selection", "chosen"], catch_exceptions=False)
    assert cyclic.exit_code == 0, cyclic.output
    turns = [["c0", "c1", "c2", "c3"], ["c4", "c5", "c0", "c1"], ["c2", "c3", "c4", "c5"]]
    assert Path(f"{code}.taken").read_text() == f"{turns}\n"
    virtual = runner.invoke(app, [*options, "--population", "devices"], catch_exceptions=False)
    assert [json.loads(line)["reports"] for line in virtual.stdout.splitlines()] == [4, 4, 4]
    few = runner.invoke(app, [*options, "--selection", "few"], catch_exceptions=False)
    assert (few.exit_code, "1 candidates for a cohort of 4" in few.stderr) == (1, True)
    both = runner.invoke(app, [*options, "--selection", "chosen", "--population", "devices"], catch_exceptions=False)
    assert (both.exit_code, "with a population" in both.stderr) == (1, True)


@pytest.mark.parametrize("option", ["--save", "--checkpoint"])
def test_a_file_that_cannot_be_written_is_told_before_the_first_round(code: Path, tmp_path: Path, option: str):
    for wrong in (code / "file", tmp_path):
        told = runner.invoke(app, ["simulate", f"{code}:task", "--rounds", "1", "--json", option, str(wrong)])
        assert (told.exit_code, told.stdout) == (1, "")
        assert f"{wrong} cannot be written" in told.stderr


@pytest.mark.slow
@pytest.mark.processes
def test_ctrl_c_ends_workers_without_a_word(code: Path, tmp_path: Path):
    words = ["simulate", f"{code}:task", "--rounds", "1000000", "--workers", "2", "--chunk", "3", "--trainer", "loop"]
    with (tmp_path / "errors").open("wb") as errors:
        running = subprocess.Popen(
            [sys.executable, "-m", "shoal", *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert running.stdout is not None
    with running.stdout:
        assert json.loads(running.stdout.readline())["round"] == 1
        os.killpg(running.pid, signal.SIGINT)
        running.stdout.read()  # its end comes when the last worker is gone
    assert running.wait(60) == 130
    assert (tmp_path / "errors").read_text() == ""
