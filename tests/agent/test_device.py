"""The whole life of devices against a real coordinator in memory."""

from dataclasses import replace

import httpx
import numpy as np
import pytest

from shoal.agent.device import Device
from shoal.agent.leaving import MARK
from shoal.core.errors import CodeMismatch, Conflict, DataError, NoRows, TaskError, Unauthorised, Unreachable, WrongKey
from shoal.core.task import LocalPlan
from tests.agent.devices import files, offset_task, open_device, user_data
from tests.agent.federation import URL, Faulty, Federation


def error_of(device: Device, name: str) -> float:
    """Mean squared error on examples of the user that the device never saw."""
    x, y = user_data(name, 400)
    return float(((device.predict(x[40:]) - y[40:]) ** 2).mean())


def sync_all(federation: Federation, devices: list[Device], run, rounds: int) -> None:
    for number in range(1, rounds + 1):
        assert [device.sync() for device in devices] == [True] * len(devices)
        assert next(v for v in run.follow() if v.number == number)


@pytest.mark.slow
def test_predictions_get_better_with_use(federation: Federation):
    names, task = ["ann", "ben", "cat"], offset_task(own=True)
    run = federation.researcher.publish(task, rounds=5, goal=3, plan=False)
    devices = [open_device(federation, name, task) for name in names]
    before = error_of(devices[0], "ann")
    for name, device in zip(names, devices, strict=True):
        device.observe(*user_data(name))
    done = devices[0].personalise()
    assert done.kept
    assert done.after < done.before
    personal = error_of(devices[0], "ann")
    assert personal < before
    sync_all(federation, devices, run, 5)
    assert not devices[0].sync()  # the task is over; the last version is taken
    assert devices[0].status().version == 5
    devices[0].personalise("global")
    assert error_of(devices[0], "ann") < personal
    for device in devices:
        device.close()


def test_the_model_with_the_lower_held_out_loss_predicts(federation: Federation):
    with open_device(federation, "ann") as device:
        assert device.serving == "global"
        device.observe(*user_data("ann"))
        assert device.serving == "global"
        device.personalise()
        status = device.status()
        assert status.personal_loss < status.global_loss
        assert status.serving == "personal"
        x, _ = user_data("ann")
        own = device._personal.now.arrays
        np.testing.assert_allclose(device.predict(x), x @ own["a"] + own["b"], rtol=1e-5, atol=1e-5)
        # other examples, on which the global model is the better one
        zeros = np.zeros(800, np.float32)
        device.observe(np.zeros((800, 3), np.float32), zeros)
        assert device.serving == "global"
        assert (device.predict(x) == 0).all()


def test_held_out_examples_are_never_trained_on(federation: Federation):
    seen: list[np.ndarray] = []

    def loss(output, target):
        if output.requires_grad:
            seen.append(target.numpy().copy())
        return ((output - target) ** 2).mean()

    with open_device(federation, "ann", offset_task(loss=loss)) as device:
        federation.researcher.publish(offset_task(loss=loss), rounds=1, goal=1, plan=False)
        x, _ = user_data("ann", 100)
        y = np.arange(100, dtype=np.float32) / 100
        device.observe(x, y)
        seen.clear()
        device.personalise()
        trained = set(np.concatenate(seen).tolist())
        held = set(device._examples.rows(held=True)["y"].tolist())
        assert len(held) == 20
        assert trained == set(y.tolist()) - held
        seen.clear()
        assert device.sync()
        assert not {value for batch in seen[1:] for value in batch.tolist()} & held  # the first is the golden step


def test_a_device_works_without_a_coordinator(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    open_device(federation, "ann").close()
    transport = federation.transport
    federation.transport = _Away()  # type: ignore[assignment]
    with open_device(federation, "ann") as device:
        device.observe(*user_data("ann"))
        assert device.personalise().kept
        assert error_of(device, "ann") < 30
        with pytest.raises(Unreachable):
            device.sync()
    federation.transport = transport
    with open_device(federation, "ann") as device:
        assert device.status().serving == "personal"
        assert device.sync()
    assert [v.number for v in run.follow()] == [1]


def test_a_first_join_needs_the_coordinator(federation: Federation):
    transport = federation.transport
    federation.transport = _Away()  # type: ignore[assignment]
    with pytest.raises(Unreachable):
        open_device(federation, "ann")
    federation.transport = transport
    open_device(federation, "ann").close()


def test_code_that_is_not_the_tasks_is_refused(federation: Federation):
    federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    with pytest.raises(CodeMismatch):
        open_device(federation, "ann", offset_task(own=True))
    open_device(federation, "ann").close()


@pytest.mark.parametrize(
    ("x", "y"), [(np.ones(2), 1.0), (np.ones((2, 3)), [1.0]), (np.ones(3), np.nan), (np.ones(3, complex), 1.0)]
)
def test_examples_that_the_task_cannot_use_are_refused(federation: Federation, x, y):
    with open_device(federation, "ann") as device:
        with pytest.raises(DataError):
            device.observe(x, y)
        assert device.status().examples == 0
        with pytest.raises(NoRows):
            device.personalise()


def test_local_arrays_stay_and_survive(federation: Federation):
    task = offset_task(own=True)
    run = federation.researcher.publish(task, rounds=1, goal=2, plan=False)
    for name in ("ann", "ben"):
        with open_device(federation, name, task) as device:
            device.observe(*user_data(name))
            assert device.sync()
    assert set(run.params(1)) == {"a"}
    with open_device(federation, "ann", task) as ann, open_device(federation, "ben", task) as ben:
        left = [device._personal.now.local["b"] for device in (ann, ben)]
        assert left[0] != left[1]
        x, _ = user_data("ann")
        ann.sync()
        np.testing.assert_allclose(ann.predict(x), x @ run.params(1)["a"] + left[0], rtol=1e-5, atol=1e-5)


def test_an_update_that_holds_a_local_array_is_refused(federation: Federation):
    task = offset_task(own=True)
    run = federation.researcher.publish(task, rounds=1, goal=1, plan=False)
    with open_device(federation, "ann", task) as device:
        device.observe(*user_data("ann"))
        take_part = device._learner.take_part

        def leaking(*given):
            update, kept = take_part(*given)
            return replace(update, delta={**update.delta, **kept}), kept

        device._learner.take_part = leaking  # type: ignore[method-assign]
        assert not device.sync()
        assert "'delta/b'" in federation.said.until("refused")
    assert federation.reported(run.id) == []


def test_an_update_from_the_personal_model_is_its_change_from_the_global_one(federation: Federation):
    task = offset_task("personal")
    run = federation.researcher.publish(task, rounds=1, goal=1, plan=False)
    with open_device(federation, "ann", task) as device:
        device.observe(*user_data("ann"))
        device.personalise()
        personal = device._personal.now
        assert device.sync()
        after = device._personal.now
        assert after.trainings == personal.trainings + 1
        # with one device and the plain mean the new version is where its training ended, up to the sums' precision
        version = next(iter(run.follow()))
        for name, array in run.params(version.number).items():
            np.testing.assert_allclose(array, after.arrays[name], rtol=1e-4, atol=1e-5)
            assert abs(array - personal.arrays[name]).max() < abs(array).max()


def test_personal_training_starts_where_it_says(federation: Federation):
    with pytest.raises(TaskError, match="start='best'"):
        LocalPlan(start="best")  # type: ignore[arg-type]
    with open_device(federation, "ann") as device:
        device.observe(*user_data("ann"))
        first = device.personalise().after
        again = device.personalise("personal").after
        afresh = device.personalise("global")
        assert again < first
        assert not afresh.kept
        assert device.status().personal_loss == again


def test_a_restart_brings_everything_back(federation: Federation):
    federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    x, y = user_data("ann")
    with open_device(federation, "ann") as device:
        device.observe(x, y)
        device.personalise()
        predicted, status = device.predict(x), device.status()
    with open_device(federation, "ann") as device:
        assert (device.predict(x) == predicted).all()
        assert device.status() == status


def test_what_was_learnt_for_a_report_is_kept_with_it(federation: Federation):
    """The answer to a durable report is lost: nothing is trained twice, the local arrays are those of the report."""
    task = offset_task(own=True)
    run = federation.researcher.publish(task, rounds=1, goal=1, plan=False)
    transport = federation.transport
    federation.transport = Faulty(transport, "/report", [httpx.ReadError("gone")], after=True)  # type: ignore[assignment]
    with open_device(federation, "ann", task) as device:
        device.observe(*user_data("ann"))
        with pytest.raises(Unreachable):
            device.sync()
        local = device._personal.now.local["b"]
        assert device.status().pending == 1
    federation.transport = transport
    with open_device(federation, "ann", task) as device:
        assert device.sync()
        assert device._personal.now.local["b"] == local != 0
        assert device.status().pending == 0
    assert len(federation.reported(run.id)) == 1


def test_leaving_wipes_and_revokes(federation: Federation):
    federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    device = open_device(federation, "ann")
    home = device._home.path
    device.observe(*user_data("ann"))
    device.personalise()
    connection = device._part.connection
    device.leave()
    assert not home.exists()
    assert federation.coordinator.identities.devices["ann"].revoked is not None
    with pytest.raises(Unauthorised):
        connection.call("DELETE", "/v1/devices/me", None, dict)
    with pytest.raises(Conflict):
        open_device(federation, "ann")


def test_leaving_gives_a_place_in_a_round_back(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)

    def die():
        raise InterruptedError

    with open_device(federation, "ann") as ann, open_device(federation, "ben") as ben:
        for device in (ann, ben):
            device.observe(*user_data("ann"))
        ann._agent.progress = die  # type: ignore[method-assign]
        with pytest.raises(InterruptedError):
            ann.sync()
        assert not ben.sync()  # the only place is taken
        ann.leave()
        assert ben.sync()
    assert len(federation.reported(run.id)) == 1


@pytest.mark.parametrize("after", [False, True])
def test_leaving_goes_on_after_an_interruption(federation: Federation, after: bool):
    transport = federation.transport
    federation.transport = Faulty(transport, "/devices/me", [httpx.ReadError("gone")], after=after)  # type: ignore[assignment]
    device = open_device(federation, "ann")
    device.observe(*user_data("ann"))
    with pytest.raises(Unreachable):
        device.leave()
    device._home.close()
    home = device._home.path
    assert files(home) == ["device.json", MARK, "lock"]
    federation.transport = transport
    with Device.join(
        URL, home=home, task=offset_task(), token=federation.enrolment, name="anew", transport=transport
    ) as anew:
        assert anew.status().examples == 0
        assert not (home / MARK).exists()
    assert federation.coordinator.identities.devices["ann"].revoked is not None


def test_another_key_is_refused(federation: Federation):
    with open_device(federation, "ann", key=bytes(32)) as device:
        device.observe(*user_data("ann"))
        device.personalise()
    for key in (b"1" * 32, None):
        with pytest.raises(WrongKey):
            open_device(federation, "ann", key=key)
    with open_device(federation, "ann", key=bytes(32)) as device:
        assert device.status().serving == "personal"


class _Away(httpx.BaseTransport):
    def handle_request(self, request):
        raise httpx.ConnectError("nobody is there")
