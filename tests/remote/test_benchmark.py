"""The counts of benchmarks/remote.py, which do not depend on the machine, keep to what they should be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.slow]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "remote.py"


def test_a_step_takes_few_messages_and_bytes():
    command = [sys.executable, str(BENCHMARK), "--json", "--only", "sgd", "--steps", "50", "--turns", "1"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=250).stdout)
    assert found["eager_round_trips_per_step"] == 0
    assert found["eager_bytes_per_step"] <= 2048
    assert found["recorded_messages_per_step"] <= 1
    assert found["recorded_bytes_per_step"] <= 100
    assert found["repeat_messages_per_step"] <= 0.1
    assert found["recorded_cpu_ratio"] > 0
