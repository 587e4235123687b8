"""The page device.md, followed as a reader would, against a real coordinator."""

import sys
from pathlib import Path

import pytest

from shoal.testing.server_process import ServerProcess
from tests.docs.pages import blocks

TASK = """
import numpy as np
import shoal
from torch import nn

example = np.ones((4, 2), np.float32), np.ones(4, np.float32)
model = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
task = shoal.Task("prices", model, nn.functional.mse_loss, example=example)
"""


@pytest.mark.processes
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "task.py").write_text(TASK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names: dict[str, object] = {}
    try:
        with ServerProcess(tmp_path / "coordinator", tmp_path / "log") as server:
            server.start()
            for number, block in enumerate(blocks("device.md")):
                text = block.text.replace("http://127.0.0.1:8080", server.url)
                text = text.replace("ENROLMENT-TOKEN", server.enrolment_token)
                exec(compile(text, f"device.md, block {number + 1}", "exec"), names)
    finally:
        sys.modules.pop("task", None)
    assert "examples=1" in capsys.readouterr().out
    assert not (tmp_path / ".myapp" / "shoal").exists()
