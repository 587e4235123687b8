"""`shoal simulate`: a file with a task and its clients."""

import json
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
