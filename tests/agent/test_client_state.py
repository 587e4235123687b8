"""What a device keeps of a task from round to round."""

from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.agent.client_state import ClientStates
from shoal.agent.sealed import Seal
from shoal.core.errors import CorruptStore
from tests.agent.conftest import federation as federation
from tests.agent.devices import offset_task, open_device, user_data
from tests.agent.federation import Federation

ONE = {"own_control/w": np.float32([1, 2])}
TWO = {"own_control/w": np.float32([3, 4])}


def kept(states: ClientStates, task: str = "boston-1") -> list[float]:
    return states.of(task)["own_control/w"].tolist()


@pytest.mark.parametrize("key", [None, bytes(16)], ids=["plain", "sealed"])
def test_a_proposal_counts_with_its_receipt(tmp_path: Path, key: bytes | None):
    states = ClientStates(tmp_path, Seal(key))
    assert states.of("boston-1") == {}
    states.propose("boston-1", ONE, "a1")
    assert states.of("boston-1") == {}
    states.settle("a1", counted=True)
    states.propose("boston-1", TWO, "a2")
    assert kept(ClientStates(tmp_path, Seal(key))) == [1, 2]
    states.settle("another", counted=True)
    assert kept(states) == [1, 2]
    ClientStates(tmp_path, Seal(key)).settle("a2", counted=True)
    assert kept(states) == [3, 4]


def test_a_proposal_of_an_update_that_did_not_count_is_forgotten(tmp_path: Path):
    states = ClientStates(tmp_path, Seal())
    states.propose("boston-1", ONE, "a1")
    states.settle("a1", counted=False)
    states.settle("a1", counted=True)
    assert states.of("boston-1") == {}


def test_tasks_have_states_of_their_own_whatever_their_names(tmp_path: Path):
    states = ClientStates(tmp_path, Seal())
    for task, tree in (("../boston-1", ONE), ("boston-1", TWO)):
        states.propose(task, tree, task)
        states.settle(task, counted=True)
    assert (kept(states, "../boston-1"), kept(states)) == ([1, 2], [3, 4])
    assert {path.parent.name for path in tmp_path.rglob("*") if path.is_file()} == {"states"}


def test_a_damaged_state_is_named(tmp_path: Path):
    states = ClientStates(tmp_path, Seal())
    states.propose("boston-1", ONE, "a1")
    states.settle("a1", counted=True)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptStore, match=f"{path.name} is no state of this device"):
        states.of("boston-1")


@pytest.mark.slow
def test_a_device_keeps_its_control_variate_in_its_home(federation: Federation):
    task = offset_task(strategy=shoal.scaffold(participation=1.0))
    run = federation.researcher.publish(task, rounds=2, goal=1, plan=False)
    with open_device(federation, "ann", task) as device:
        device.observe(*user_data("ann"))
        assert device.sync()
        first = dict(device._home.states.of(run.id))
        assert device.sync()
        second = device._home.states.of(run.id)
    assert set(first) == {"own_control/a", "own_control/b"}
    assert np.abs(first["own_control/a"] - second["own_control/a"]).max() > 0
    # with one client the version's control variate is that client's own
    checkpoint = federation.coordinator.storage.tree(run.version(2).checkpoint)
    np.testing.assert_allclose(checkpoint.slice("control/a", 0, 3), second["own_control/a"], rtol=1e-5)


@pytest.mark.slow
def test_dittos_own_model_is_the_devices_personal_model(federation: Federation):
    task = offset_task(strategy=shoal.ditto(lam=0.1))
    run = federation.researcher.publish(task, rounds=2, goal=2, plan=False)
    with open_device(federation, "ann", task) as ann, open_device(federation, "bob", task) as bob:
        for _ in range(2):
            for device in (ann, bob):
                device.observe(*user_data(device.name))
                assert device.sync()
        offsets = [float(device._personal.now.arrays["b"]) for device in (ann, bob)]
        assert ann._personal.now.trainings == 2
    assert abs(offsets[0] - offsets[1]) > 0.5
    assert set(run.params()) == {"a", "b"}
