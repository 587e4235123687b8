"""Forked commands are processes of their own, whose end is told."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from shoal.testing.nursery import Nursery

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as made:
        yield made


def started(nursery: Nursery, out: Path, *arguments: str, **environment: str):
    with out.open("wb") as file:
        return nursery.start(arguments, environment, file.fileno(), file.fileno())


def test_a_command_runs_with_its_output_and_its_exit_code(nursery: Nursery, tmp_path: Path):
    assert started(nursery, tmp_path / "out", "server", "--help").wait(30) == 0
    assert "Run a coordinator" in (tmp_path / "out").read_text()
    assert started(nursery, tmp_path / "out", "server", "--port", "x").wait(30) == 2
    home = tmp_path / "file"
    home.touch()
    assert started(nursery, tmp_path / "out", "server", "--home", str(home)).wait(30) == 1


def test_one_that_is_killed_is_told_apart_and_others_live(nursery: Nursery, tmp_path: Path):
    one = started(nursery, tmp_path / "one", "server", "--home", str(tmp_path / "a"), "--port", "0")
    other = started(nursery, tmp_path / "other", "server", "--home", str(tmp_path / "b"), "--port", "0")
    assert one.pid != other.pid != os.getpid()
    one.send_signal(signal.SIGKILL)
    assert one.wait(30) == -signal.SIGKILL
    assert other.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(0.01)
    other.send_signal(signal.SIGKILL)
    assert other.wait(30) == -signal.SIGKILL


def test_an_armed_one_dies_at_its_place(nursery: Nursery, tmp_path: Path):
    child = started(nursery, tmp_path / "out", "server", "--home", str(tmp_path / "a"), SHOAL_FAILPOINT="mid_commit")
    assert child.wait(30) == 137
