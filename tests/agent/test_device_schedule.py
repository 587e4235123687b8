"""What runs in the background, and that it stops at once."""

import threading
from dataclasses import replace

import pytest

from shoal.agent.conditions import Conditions, Readings
from shoal.core.errors import ConfigurationError
from tests.agent.devices import offset_task, open_device, user_data
from tests.agent.federation import JOIN_SECONDS, Federation


class Switch:
    """A probe whose charger is pulled out by the test; `asked` is set at every reading."""

    def __init__(self, charging: bool) -> None:
        self.charging = charging
        self.asked = threading.Event()

    def __call__(self) -> Readings:
        self.asked.set()
        return Readings(charging=self.charging)


def test_it_takes_part_once_conditions_hold(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    switch = Switch(charging=False)
    with open_device(federation, "ann", probe=switch, probe_seconds=0.01) as device:
        device.observe(*user_data("ann"))
        device.run(Conditions(charging=True))
        with pytest.raises(ConfigurationError, match="runs already"):
            device.run()
        assert switch.asked.wait(JOIN_SECONDS)
        assert federation.reported(run.id) == []
        switch.charging = True
        assert [version.number for version in run.follow()] == [1]
        device.stop()
        assert not device.status().running


@pytest.mark.slow
def test_training_stops_at_once_when_a_condition_ends(federation: Federation):
    switch, batches, reached = Switch(charging=True), [], threading.Event()

    def loss(output, target):
        if output.requires_grad and threading.current_thread().name == "shoal device":
            batches.append(1)
            if len(batches) == 5:
                switch.charging = False
                reached.set()
        return ((output - target) ** 2).mean()

    task = offset_task(loss=loss)
    run = federation.researcher.publish(task, rounds=1, goal=1, plan=False)
    with open_device(federation, "ann", task, probe=switch, probe_seconds=0.0) as device:
        device.observe(*user_data("ann", 400))
        device.run(Conditions(charging=True))
        assert reached.wait(JOIN_SECONDS)
        federation.said.until("stopped: not charging")
        device.stop()
        assert len(batches) == 5  # not one batch more, of the 240 of an assignment
        assert device.status().waiting_for == ("not charging",)
        assert federation.reported(run.id) == []
        assert device.status().pending == 0
        assert federation.researcher.status(run.id).devices == ()  # the place was free at once
        assert federation.researcher.rounds(run.id)[0].dropped == {"released: stopped: not charging": 1}
        switch.charging = True
        device.run(Conditions(charging=True))
        assert [version.number for version in run.follow()] == [1]


def test_what_only_a_person_can_mend_ends_it_and_is_told(federation: Federation):
    federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    with open_device(federation, "ann") as device:
        device.observe(*user_data("ann"))
        identities = federation.coordinator.identities
        identities.devices["ann"] = replace(identities.devices["ann"], revoked=0.0)
        device.run()
        federation.said.until("revoked")
        device._background._thread.join(JOIN_SECONDS)
        status = device.status()
        assert not status.running
        assert "revoked" in status.problem
        assert device.predict(user_data("ann")[0]).shape == (40,)


def test_it_personalises_when_there_is_something_new(federation: Federation):
    federation.researcher.publish(offset_task(), rounds=1, goal=2, plan=False)  # which one device does not end
    with open_device(federation, "ann", probe_seconds=0.01) as device:
        device.observe(*user_data("ann"))
        trained, keep = threading.Semaphore(0), device._personal.keep

        def noticed(personal):
            keep(personal)
            trained.release()

        device._personal.keep = noticed  # type: ignore[method-assign]
        device.run()
        assert trained.acquire(timeout=JOIN_SECONDS)
        device.stop()
        assert device._personal.now.trainings == 1
        device.observe(*user_data("ann"))
        device.run()
        assert trained.acquire(timeout=JOIN_SECONDS)
        device.stop()
        assert device._personal.now.trainings == 2
        assert device.serving == "personal"
