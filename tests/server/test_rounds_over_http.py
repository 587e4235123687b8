"""The life of a round as its callers see it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from shoal.algorithms.optimizer import Yogi
from shoal.algorithms.robust import Median
from shoal.algorithms.strategy import advance, trainable
from shoal.core.task import Component, weight_units
from shoal.core.tree import digest
from shoal.core.types import Update
from shoal.wire.codec import decode_tree
from tests.server.conftest import START, Served, delta, report_body, spec


def run_round(served: Served, values: dict[str, float], weight: float = 10.0) -> None:
    for name in values:
        served.check_in(name)
    for name, value in values.items():
        given = served.check_in(name).assignment
        assert given is not None
        answer = served.report(name, given.id, report_body(delta(value), weight))
        assert answer.status_code == 200, answer.text


def test_two_devices_make_a_version(served: Served) -> None:
    task = served.publish(spec())
    assert task.id == "plain-1"
    run_round(served, {"bob": 1.0, "alice": 3.0})
    found = served.versions(task.id, after=0)
    [version] = found.versions
    tree = decode_tree(served.client.get(f"/v1/blobs/{version.digest}", headers=served.device("bob")).content)
    np.testing.assert_array_equal(tree["w"], np.full((2, 3), 3.0, np.float32))
    np.testing.assert_array_equal(tree["b"], np.float32(-1.5))
    np.testing.assert_array_equal(tree["mean"], np.full(3, 1.0, np.float32))
    assert tree["steps"] == 3
    assert digest(tree) == version.digest
    assert (version.number, version.reports, version.parent) == (1, 2, digest(START))
    assert found.status.round == 2


def test_the_task_ends_after_its_rounds(served: Served) -> None:
    task = served.publish(spec(rounds=2))
    for number in (1, 2):
        run_round(served, {"bob": 0.5, "alice": 0.5})
        served.versions(task.id, after=number - 1)
    assert served.versions(task.id, after=2).status.phase == "finished"
    assert served.check_in("bob").assignment is None


def test_a_repeated_check_in_gives_the_same_assignment(served: Served) -> None:
    served.publish(spec())
    assert served.check_in("bob").assignment == served.check_in("bob").assignment


def test_a_repeated_report_gives_the_same_receipt_even_after_the_commit(served: Served) -> None:
    task = served.publish(spec(goal=1))
    given = served.check_in("bob").assignment
    assert given is not None
    body = report_body(delta(1.0))
    first = served.report("bob", given.id, body)
    served.versions(task.id, after=0)
    second = served.report("bob", given.id, body)
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    [version] = served.versions(task.id, after=0).versions
    assert version.reports == 1


def test_another_digest_is_a_conflict_with_the_first_receipt(served: Served) -> None:
    served.publish(spec())
    given = served.check_in("bob").assignment
    assert given is not None
    first = served.report("bob", given.id, report_body(delta(1.0)))
    other = served.report("bob", given.id, report_body(delta(2.0)))
    assert other.status_code == 409
    assert other.json()["receipt"] == first.json()


def test_too_few_reports_abandon_the_round_and_the_model_stays(served: Served) -> None:
    task = served.publish(spec(goal=2, plan=replace(spec().plan, minimum=2)))
    served.check_in("bob")
    for attempt in (1, 2):
        given = served.check_in("bob").assignment
        assert given is not None
        assert given.attempt == attempt
        served.clock.advance(61.0)
        served.coordinator.bell.ring()
        served.versions(task.id, after=0, wait=0.05)
    status = served.versions(task.id, after=0, wait=5.0).status
    assert status.phase == "failed"
    assert "0 of at least 2 reports" in status.reason
    assert status.latest.number == 0


def test_the_deadline_closes_a_round_with_the_minimum(served: Served) -> None:
    task = served.publish(spec(goal=2))
    served.check_in("alice")
    given = served.check_in("bob").assignment
    assert given is not None
    served.report("bob", given.id, report_body(delta(1.0)))
    served.clock.advance(61.0)
    served.coordinator.bell.ring()
    [version] = served.versions(task.id, after=0).versions
    assert version.reports == 1


def test_a_late_report_is_gone_and_its_device_goes_on(served: Served) -> None:
    task = served.publish(spec(goal=2))
    late = served.check_in("alice").assignment
    given = served.check_in("bob").assignment
    assert late is not None
    assert given is not None
    served.report("bob", given.id, report_body(delta(1.0)))
    served.clock.advance(61.0)
    served.coordinator.bell.ring()
    served.versions(task.id, after=0)
    answer = served.report("alice", late.id, report_body(delta(1.0)))
    assert answer.status_code == 410
    assert served.check_in("alice").assignment is not None


def test_updates_are_deleted_once_their_version_is_committed(served: Served) -> None:
    task = served.publish(spec(goal=1))
    given = served.check_in("bob").assignment
    assert given is not None
    receipt = served.report("bob", given.id, report_body(delta(1.0))).json()
    served.versions(task.id, after=0)
    store = served.coordinator.storage.store
    for _ in range(100):
        if store.inline(receipt["digest"]) is None:
            return
        served.versions(task.id, after=1, wait=0.02)
    pytest.fail("the bytes are still there")


def test_an_adaptive_server_keeps_its_state_with_the_version(served: Served) -> None:
    task = served.publish(spec(goal=1, server=Component("adam", {"lr": 0.1})))
    for number in (1, 2):
        run_round(served, {"bob": 1.0})
        [version] = served.versions(task.id, after=number - 1).versions
        state = decode_tree(served.client.get(f"/v1/blobs/{version.checkpoint}", headers=served.people()).content)
        assert sorted(state) == ["m/b", "m/w", "v/b", "v/w"]
    np.testing.assert_allclose(state["m/w"], 0.19, rtol=1e-6)


@pytest.mark.parametrize("large", [False, True])
def test_blocks_give_the_bits_of_the_whole(served: Served, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr("shoal.server.storage.BLOCK", 2)
        monkeypatch.setattr("shoal.server.routes_devices.INLINE_BYTES", 1)
    made = spec(aggregator=Component("median"), server=Component("yogi", {"lr": 0.1}))
    task = served.publish(made)
    run_round(served, {"bob": 1.0, "alice": 2.5})
    [version] = served.versions(task.id, after=0).versions

    state = Median().init(made)
    for name, value in (("a", 1.0), ("b", 2.5)):
        state = Median().add(state, Update(name, delta(value), weight_units(10.0)))
    server = Yogi(lr=0.1)
    combined = Median().finish(state)["delta"]
    whole, kept = advance(made.arrays, START, combined, server, server.init(trainable(made.arrays, START)))
    assert version.digest == digest(whole)
    assert version.checkpoint == digest(kept)


def test_a_device_that_leaves_is_let_go_at_once(served: Served) -> None:
    served.publish(spec(goal=1))
    served.check_in("alice")
    served.device("bob")
    with ThreadPoolExecutor(1) as pool:
        asked = msgspec.json.encode({"training": ["plain"], "wait": 30.0})
        held = pool.submit(served.call, "bob", "POST", "/v1/checkin", asked)
        while not served.coordinator.bell.waiting:
            assert not held.done()
        assert served.call("bob", "DELETE", "/v1/devices/me").status_code == 200
        assert held.result(10).status_code == 401
