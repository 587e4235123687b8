"""The demo as a user types it: real processes, real HTTP, real numbers."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from shoal.data import Table, write_csv
from shoal.wire.codec import decode_tree

MODEL_BYTES = 1657 * 4

pytestmark = pytest.mark.processes


@contextlib.contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the demo in a folder that is also where its temporary files go; kill it should it still run."""
    (folder / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", "demo", "--json", *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def finished(folder: Path, *arguments: str) -> tuple[list[dict[str, float]], dict[str, float], str]:
    """Run the demo to its end and return the rounds, the outcome and what was said."""
    with demo(folder, *arguments) as process:
        printed, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    *rounds, outcome = (json.loads(line) for line in printed.splitlines())
    return rounds, outcome, said


def children(parent: int) -> list[int]:
    """Return open handles of all children of a process."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [os.pidfd_open(int(child)) for child in found]


def end_within(seconds: float, handles: list[int]) -> bool:
    """Wait until all these processes have ended."""
    until = time.monotonic() + seconds
    for handle in handles:
        ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
        os.close(handle)
        if not ready:
            return False
    return True


def test_three_rounds_give_the_reference_numbers(tmp_path):
    rounds, outcome, said = finished(tmp_path, "--rounds", "3", "--no-shuffle")
    assert [row["round"] for row in rounds] == [1, 2, 3]
    assert rounds[0]["mse"] == pytest.approx(401.838, abs=0.02)
    assert rounds[1]["mse"] == pytest.approx(27.947, abs=0.02)
    assert len({row["digest"] for row in rounds}) == 3
    for row in rounds:
        assert min(row["train_seconds"], row["network_seconds"], row["cpu_seconds"]) > 0
        assert row["bytes_up"] + row["bytes_down"] > 2 * MODEL_BYTES

    assert outcome["final"] is True
    assert outcome["mse"] == rounds[-1]["mse"]
    assert outcome["mean_mse"] == pytest.approx(83.711, abs=0.01)
    assert outcome["central_mse"] == pytest.approx(22.26, abs=0.3)
    assert outcome["cpu_seconds"] > sum(row["cpu_seconds"] for row in rounds)
    for owner in ("bob", "alice"):
        for number in (1, 2):
            assert f"{owner} releases: boston-statistics-1 pass {number}: " in said

    model = (tmp_path / "boston.safetensors").read_bytes()
    assert sha256(model).hexdigest() == outcome["digest"]
    assert {"mean", "deviation", "layers.0.weight", "layers.6.bias"} <= decode_tree(model).keys()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_table_of_ones_own(tmp_path):
    rng = np.random.Generator(np.random.Philox(1))
    x = rng.normal([1e3, 5.0, 0.0], [100.0, 0.1, 1.0], (240, 3))
    x[:, 2] = x[:, 2] > 0
    y = 1e6 + 500 * (x[:, 0] - 1e3) + 4e4 * x[:, 2]
    table = Table(("area", "rooms", "price", "garden"), np.column_stack([x[:, 0], x[:, 1], y, x[:, 2]]))
    write_csv(tmp_path / "houses.csv", table)
    arguments = ["--data", "houses.csv", "--target", "price", "--owners", "3", "--rounds", "8", "--lr", "0.05"]
    rounds, outcome, _ = finished(tmp_path, *arguments, "--home", "kept")
    assert len(rounds) == 8
    assert outcome["mse"] < outcome["mean_mse"] / 2
    assert outcome["central_mse"] < outcome["mean_mse"] / 2
    assert outcome["model_path"] == "kept/model.safetensors"
    assert (tmp_path / "kept" / "model.safetensors").exists()
    released = (tmp_path / "kept" / "carol" / "releases.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in released]
    assert kinds == ["statistics"] * 2 + ["update"] * 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything(tmp_path, number):
    with demo(tmp_path, "--rounds", "5000") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["round"] == 1
        handles = children(process.pid)
        assert len(handles) == 3
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert "Traceback" not in said
    assert end_within(0.0, handles)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_interrupt_while_all_is_starting(tmp_path):
    with demo(tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("starting a coordinator")
        handles = children(process.pid)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
        assert time.monotonic() - began < 5
    assert (process.returncode, printed, said) == (130, "", "")
    assert end_within(0.0, handles)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_children_end_by_themselves_when_the_demo_is_killed(tmp_path):
    with demo(tmp_path, "--rounds", "5000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        handles = children(process.pid)
        process.kill()
    assert len(handles) == 3
    assert end_within(10.0, handles)


def test_an_owner_that_dies_is_reported_with_the_end_of_its_log(tmp_path):
    with demo(tmp_path, "--rounds", "5000", "--home", "kept") as process:
        assert process.stdout is not None
        process.stdout.readline()
        (alice,) = [
            int(child.name)
            for child in Path("/proc").glob("[0-9]*")
            if b"kept/alice" in _command(child) and b"\0agent\0" in _command(child)
        ]
        os.kill(alice, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: the process 'alice' ended early with exit code -9" in said
    assert "releasing to regression-1 round 1" in said
    assert said.endswith("code: abandoned\n")


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
