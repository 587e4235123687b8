"""Rounds on a real Ray, started on this machine."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import shoal
from shoal.core.errors import ConfigurationError
from tests.simulation.cohorts import regression_clients, regression_task

SCRIPT = Path(__file__).with_name("ray_script.py")


@pytest.mark.processes
def test_on_ray_the_digests_are_those_of_one_process_and_errors_arrive():
    if os.environ.get("CI") != "true":
        pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as home:
        environment = {**os.environ, "HOME": home, "RAY_USAGE_STATS_ENABLED": "0"}
        command = [sys.executable, str(SCRIPT), home]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ray"] == found["alone"]
    assert len(set(found["ray"])) == 4
    assert "client '7'" in found["told"]


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": "rey"}, {"workers": 2, "ray_address": "ray://x"}])
def test_workers_that_are_none_are_refused(options: dict[str, object]):
    with pytest.raises(ConfigurationError, match='give at least 1, or "ray"'):
        shoal.simulate(regression_task(shoal.LocalPlan()), regression_clients(), rounds=1, **options)  # type: ignore[arg-type]
