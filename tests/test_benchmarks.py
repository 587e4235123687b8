"""Benchmarks run, with a small load: every figure is there and is what it says it is."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.browser import built, program

ROOT = Path(__file__).parents[1]
SECONDS = 300


@pytest.mark.slow
@pytest.mark.processes
def test_the_benchmark_of_the_coordinator_gives_every_figure():
    command = [sys.executable, "benchmarks/coordinator.py", "--short", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ran.returncode == 0, ran.stderr
    [line] = ran.stdout.splitlines()
    found = json.loads(line)
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert [key for key in found if f"`{key}`" not in page] == []
    zero = {"virtual_day_hung_rounds"}
    assert all(math.isfinite(value) and (value > 0) == (key not in zero) for key, value in found.items()), found
    assert found["longpolls"] == 20
    assert found["longpolls_rss_mb"] < 400
    assert found["virtual_day_arrival_error"] < 1
    assert found["fold_references"] == 20
    assert found["restart_events"] == 1100


def test_a_part_that_does_not_exist_is_named():
    command = [sys.executable, "benchmarks/coordinator.py", "everything"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ran.returncode == 2
    assert "everything" in ran.stderr


@pytest.mark.slow
@pytest.mark.processes
def test_the_benchmark_of_simulations_gives_every_figure():
    command = [sys.executable, "benchmarks/simulate.py", "--short", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ran.returncode == 0, ran.stderr
    first, million = (json.loads(line) for line in ran.stdout.splitlines())
    page = (ROOT / "docs" / "simulation.md").read_text()
    assert "benchmarks/simulate.py" in page
    for found, name in ((first, "w1"), (million, "million")):
        assert (found["workload"], found["trainer"], found["chosen"]) == (name, "vmapped", "vmapped")
        figures = ("updates_per_cpu_s", "peak_rss_mb", "cold_start_s", "warm_cpu_s", "loss")
        assert all(math.isfinite(found[key]) and found[key] > 0 for key in figures), found
    # what every simulator gives from these weights, cohorts and batches
    assert first["loss"] == pytest.approx(0.7759, abs=5e-5)
    assert million["grown_mb"] < 30


@pytest.mark.slow
@pytest.mark.processes
def test_the_benchmark_of_the_dashboard_falls_not_behind():
    command = [sys.executable, "benchmarks/dashboard.py", "--json", "--events", "400"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["behind"] == 0
    assert 0 < found["frames"] < 400
    assert found["first_paint_bytes"] < 100_000


@pytest.mark.slow
@pytest.mark.processes
def test_the_benchmark_of_devices_gives_every_figure():
    built()
    program("node")
    program("chromium")
    command = [sys.executable, "benchmarks/devices.py", "--short", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ran.returncode == 0, ran.stderr
    [line] = ran.stdout.splitlines()
    found = json.loads(line)
    assert found["left_out"] == []
    assert set(found["export_cpu_s"]) == {"mlp-sgd", "lenet"}
    assert all(0 < seconds < 40 for seconds in found["export_cpu_s"].values())
    assert found["plan_bytes_mlp"] < 10_000
    assert found["sdk_bytes"] < 30_000
    for model in ("mlp", "lenet"):
        assert set(found[f"first_100_steps_cpu_s_{model}"]) == {"eager", "ort", "wasm"}
        assert all(found[f"{way}_vs_eager_{model}"] > 0 for way in ("ort", "wasm"))
    assert set(found["page_load_to_first_step_ms"]) == {"cold", "warm"}
    assert all(0 < took < 120_000 for took in found["page_load_to_first_step_ms"].values())
