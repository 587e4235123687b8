"""A Python without torch: an agent and a `shoal.Device` take part in rounds of a real coordinator by the task's plan.

The environment is made by `pip install shoal[onnx]` from the wheel, once for each set of dependencies; the wheel is
built and installed anew when the sources changed.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shoal
from shoal.data import Table, write_csv
from shoal.testing.server_process import ServerProcess
from tests.without_torch import without_torch

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = ("a", "b", "c")
SLOPE = np.float32([1.0, -2.0, 3.0])

DEVICE = """
import importlib.util, json, sys
import numpy as np
import shoal

assert importlib.util.find_spec("torch") is None
assert shoal.__file__.startswith(sys.prefix)
url, home = sys.argv[1:]
rng = np.random.default_rng(1)
x = rng.standard_normal((60, 3)).astype(np.float32)
y = (x @ np.float32([1.0, -2.0, 3.0]) + 4).astype(np.float32)
with shoal.Device.join(url, home=home, plan="slope", token=sys.stdin.readline().strip(), name="ann") as device:
    error = lambda: float(((device.predict(x) - y) ** 2).mean())
    device.observe(x, y)
    before = error()
    done = device.personalise()
    personal, serving = error(), device.serving
    device.run(shoal.Conditions())
    sys.stdin.readline()  # until the test has seen the rounds
    device.stop()
    device.sync()
    status = device.status()
    told = {"before": before, "personal": personal, "kept": done.kept, "serving": serving,
            "version": status.version, "released": status.released, "torch": "torch" in sys.modules}
    device.leave()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """Return the interpreter of an environment with the wheel of these sources and what `shoal[onnx]` asks for."""
    return without_torch()


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(-1)


def rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).standard_normal((40, 3)).astype(np.float32)
    return x, (x @ SLOPE).astype(np.float32)


def environment(token: str = "") -> dict[str, str]:
    """Return the environment of a user: what is imported is what is installed."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**own, "SHOAL_TOKEN": token}


@contextmanager
def agent(python: Path, server: ServerProcess, folder: Path) -> Iterator[None]:
    x, y = rows(2)
    table = Table((*NAMES, "y"), np.column_stack([x, y]).astype(np.float64))
    write_csv(folder / "rows.csv", table)
    options = ["--url", server.url, "--name", "bob", "--plan", "slope", "--home", str(folder / "bob")]
    command = [str(python.with_name("shoal")), "agent", *options, "--data", str(folder / "rows.csv"), "--target", "y"]
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(server.enrolment_token))
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_an_agent_and_a_device_without_torch_make_versions_together(python: Path, tmp_path: Path) -> None:
    told = subprocess.run(
        [str(python), "-c", "import torch"], env=environment(), capture_output=True, text=True, check=False
    )
    assert "No module named 'torch'" in told.stderr
    script = tmp_path / "device.py"
    script.write_text(DEVICE)
    local = shoal.LocalPlan(epochs=3, batch_size=8, optimizer=shoal.adam(lr=1e-2))
    task = shoal.Task("slope", Slope(), nn.functional.mse_loss, local=local, example=rows(0))
    with ServerProcess(tmp_path / "home", tmp_path / "log") as server:
        server.start()
        with shoal.Coordinator.connect(server.url, token=server.admin_token) as coordinator:
            run = coordinator.publish(task, rounds=3, goal=2)
            command = [str(python), str(script), server.url, str(tmp_path / "ann")]
            device = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
            )
            assert device.stdin is not None
            device.stdin.write(f"{server.enrolment_token}\n")
            device.stdin.flush()
            try:
                with agent(python, server, tmp_path):
                    versions = list(run.follow(within=120))
                said, _ = device.communicate("\n", timeout=120)
            finally:
                device.kill()
                device.wait()
            records = coordinator.rounds(run.id)
    assert device.returncode == 0
    assert [version.reports for version in versions] == [2, 2, 2]
    assert versions[-1].metrics["loss"] < versions[0].metrics["loss"]
    assert not any(record.dropped for record in records)
    found = json.loads(said)
    assert found["kept"]
    assert found["personal"] < found["before"]
    assert (found["serving"], found["version"], found["torch"]) == ("personal", 3, False)
    assert found["released"] == 3
