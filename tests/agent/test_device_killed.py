"""SIGKILL to a device at every step of its life, and what its next start finds."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.agent.device import Device
from shoal.agent.leaving import MARK
from shoal.researcher.coordinator import Coordinator
from shoal.testing.server_process import ServerProcess
from tests.agent.devices import files, offset_task, user_data

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("coordinator")
    with ServerProcess(folder / "home", folder / "log") as server:
        server.start()
        yield server


def killed(server: ServerProcess, home: Path, place: str) -> None:
    """Run a device until it kills itself; its name is the place."""
    command = [sys.executable, "-m", "tests.agent.mortal_device", server.url, str(home), place, place]
    done = subprocess.run(
        command,
        env={**os.environ, "SHOAL_TOKEN": server.enrolment_token},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def opened(server: ServerProcess, home: Path, token: str | None = None, name: str | None = None) -> Device:
    return Device.join(server.url, home=home, task=offset_task(own=True), token=token, name=name)


@pytest.mark.parametrize(
    ("place", "personal", "pending", "accepted"),
    [
        ("joined", False, 0, 0),
        ("observed", False, 0, 0),
        ("personalising", False, 0, 0),
        ("training", True, 0, 0),
        ("durable", True, 1, 0),
        ("reported", True, 1, 1),
    ],
)
def test_a_device_goes_on_where_it_was(
    server: ServerProcess, tmp_path: Path, place: str, personal: bool, pending: int, accepted: int
):
    with Coordinator.connect(server.url, token=server.admin_token) as coordinator:
        run = coordinator.publish(offset_task(own=True), rounds=1, goal=1, plan=False)
        killed(server, tmp_path / "home", place)
        with opened(server, tmp_path / "home") as device:
            if place == "joined":
                device.observe(*user_data(place))
            status = device.status()
            assert (status.name, status.examples, status.held_out) == (place, 40, 8)
            assert (status.personal_loss is not None) == personal
            assert (status.pending, status.version) == (pending, accepted)
            local = dict(device._personal.now.local)
            assert bool(local) == bool(pending)  # what an assignment left goes with its report
            assert device.sync()
            assert device._personal.now.local.keys() == {"b"}
            assert not local or local["b"] == device._personal.now.local["b"]
            assert [(version.number, version.reports) for version in run.follow()] == [(1, 1)]
            assert device.status().released == 1
            assert device.predict(user_data(place)[0]).shape == (40,)


def test_a_device_that_dies_after_its_receipt_sends_nothing_twice(server: ServerProcess, tmp_path: Path):
    with Coordinator.connect(server.url, token=server.admin_token) as coordinator:
        run = coordinator.publish(offset_task(own=True), rounds=1, goal=1, plan=False)
        killed(server, tmp_path / "home", "acknowledged")
        assert [(version.number, version.reports) for version in run.follow()] == [(1, 1)]
        with opened(server, tmp_path / "home") as device:
            status = device.status()
            assert (status.pending, status.released, status.personal_loss is not None) == (0, 1, True)
            assert device._personal.now.local.keys() == {"b"}
            assert not device.sync()
            assert device.status().version == 1


@pytest.mark.parametrize("place", ["leaving", "left"])
def test_a_device_that_dies_while_it_leaves_leaves(server: ServerProcess, tmp_path: Path, place: str):
    home = tmp_path / "home"
    killed(server, home, place)
    assert files(home) == ["device.json", MARK, "lock"]
    with opened(server, home, server.enrolment_token, f"{place}-anew") as device:
        assert device.status().examples == 0
    with Coordinator.connect(server.url, token=server.admin_token) as coordinator:
        revoked = {device.name: device.revoked is not None for device in coordinator.devices()}
    assert revoked[place]
    assert not revoked[f"{place}-anew"]
