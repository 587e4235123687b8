import subprocess
import sys

import pytest

from shoal.agent.costs import Meter
from shoal.core.types import Costs
from shoal.testing.clock import ManualClock
from shoal.wire.http import Traffic


def test_every_byte_and_second_is_counted_once():
    traffic, cpu = Traffic(bytes_up=500, seconds=9.0), ManualClock(3.0)
    meter = Meter(traffic, cpu)
    traffic.bytes_up, traffic.bytes_down, traffic.seconds = 600, 40, 9.5
    cpu.advance(2.0)
    assert meter.read(1.5) == Costs(1.5, 0.5, 2.0, 100, 40)
    traffic.bytes_up += 7
    assert meter.read(0.25) == Costs(0.25, 0.0, 0.0, 7, 0)


@pytest.mark.processes
def test_an_agent_starts_without_what_only_others_need():
    heavy = {"torch", "sqlalchemy", "fastapi", "uvicorn", "typer"}
    program = f"import sys, shoal.agent.agent, shoal.data; print(sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
