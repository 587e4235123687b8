"""Which version a device serves: told by the coordinator, checked here, and kept on disk with the one before."""

from collections.abc import Callable
from threading import Event, Thread

import httpx
import numpy as np
import pytest
import torch

from shoal.agent.policy import Policy
from shoal.agent.versions import FOLDER
from shoal.agent.work import Result, trained
from shoal.algorithms.statistics import ColumnStatistics
from shoal.core.errors import CorruptStore, SchemaMismatch, ShoalError, Unreachable
from shoal.core.serving import Canary, Serving
from shoal.core.task import weight_units
from shoal.core.types import Assignment, Update
from tests.agent.devices import Offset, offset_task, open_device, user_data
from tests.agent.federation import Federation

pytestmark = pytest.mark.slow


class Away(httpx.BaseTransport):
    def handle_request(self, request):
        raise httpx.ConnectError("nobody is there")


def rounds(federation: Federation, run, device, count: int) -> None:
    for _ in range(count):
        before = run.status().latest.number
        assert device.sync()
        assert next(iter(run.follow(before))).number == before + 1
    device._refresh()


def settled(look: Callable[[], bool], federation: Federation) -> None:
    for _ in range(300):
        federation.coordinator.bell.ring()
        federation.researcher.tasks()  # lets the coordinator's loop turn
        if look():
            return
    raise AssertionError(federation.researcher.tasks())


class Recording(httpx.BaseTransport):
    """Hands requests on, changed by `damage` where an answer is a blob's."""

    def __init__(self, inner: httpx.BaseTransport, damage: Callable[[bytes], bytes] = lambda data: data) -> None:
        self._inner = inner
        self._damage = damage
        self.seen: list[str] = []

    def handle_request(self, request):
        self.seen.append(request.url.path)
        answer = self._inner.handle_request(request)
        if "/v1/blobs/" not in request.url.path:
            return answer
        body = self._damage(answer.read())
        answer.close()
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(body))

    def close(self) -> None:
        self._inner.close()


def test_it_goes_back_to_the_version_before_without_a_download(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=2, goal=1, plan=False)
    x, y = user_data("ann")
    federation.transport = recording = Recording(federation.transport)  # type: ignore[assignment]
    with open_device(federation, "ann") as device:
        device.observe(x, y)
        rounds(federation, run, device, 1)
        first = device.predict(x)
        rounds(federation, run, device, 1)
        assert not np.array_equal(device.predict(x), first)
        federation.researcher.rollback(run.id, reason="worse")
        recording.seen.clear()
        device.sync()
        assert device.status().version == 1
        assert np.array_equal(device.predict(x), first)
        assert not [path for path in recording.seen if "/v1/blobs/" in path]


def test_a_download_that_is_not_what_its_digest_says_is_reported_and_not_served(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=2, goal=1, plan=False)
    federation.transport = recording = Recording(federation.transport)  # type: ignore[assignment]
    with open_device(federation, "ann") as device:
        device.observe(*user_data("ann"))
        rounds(federation, run, device, 1)
        federation.agent("clumsy", labour=lambda _: Clumsy()).turn(Event())
        assert next(iter(run.follow(1))).number == 2
        recording._damage = lambda data: data[:-1] + bytes([data[-1] ^ 1])
        with pytest.raises(CorruptStore):
            device._refresh()
        assert device.status().version == 1
        [refusal] = federation.coordinator.tasks.find(run.id).state.heads.refusals
        assert "SHA-256" in refusal.reason
        recording._damage = lambda data: data
        device.sync()
        assert device.status().version == 2


@pytest.mark.parametrize("key", [None, bytes(32)])
def test_a_damaged_version_gives_way_to_its_predecessor_without_a_network(federation: Federation, key):
    run = federation.researcher.publish(offset_task(), rounds=2, goal=1, plan=False)
    x, y = user_data("ann")
    with open_device(federation, "ann", key=key) as device:
        device.observe(x, y)
        rounds(federation, run, device, 1)
        first = device.predict(x)
        rounds(federation, run, device, 1)
        second, folder = device.predict(x), device._home.path / FOLDER
    federation.transport, inner = Away(), federation.transport  # type: ignore[assignment]
    with open_device(federation, "ann", key=key) as device:
        assert np.array_equal(device.predict(x), second)
        with pytest.raises(Unreachable):
            device.sync()
        assert np.array_equal(device.predict(x), second)
    path = folder / run.version(2).digest
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with open_device(federation, "ann", key=key) as device:
        assert device.status().version == 1
        assert np.array_equal(device.predict(x), first)
    federation.transport = inner
    with open_device(federation, "ann", key=key) as device:
        assert device.status().version == 2


class Root(Offset):
    """y = a x + sqrt(b + 1): no number where b is below -1, which is a number itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.a + torch.sqrt(self.b + 1)


class Clumsy:
    """Reports what is allowed and breaks the model."""

    ready = True
    tasks = ("offset",)

    def load(self) -> None:
        pass

    def work(self, assignment: Assignment) -> Result:
        delta = {"a": np.zeros(3, np.float32), "b": np.full((), -5.0, np.float32)}
        return trained(assignment, Update(assignment.id, delta, weight_units(1), {"loss": 0.0}), 1)


def test_a_version_that_gives_no_number_on_its_own_rows_is_reported_and_not_served(federation: Federation):
    task = offset_task(model=Root())
    run = federation.researcher.publish(task, rounds=3, goal=1, plan=False)
    x, y = user_data("ann")
    with open_device(federation, "ann", task) as device:
        device.observe(x, np.abs(y))
        rounds(federation, run, device, 1)
        good = device.predict(x)
        federation.agent("clumsy", labour=lambda _: Clumsy()).turn(Event())
        assert next(iter(run.follow(1))).number == 2
        device._refresh()
        assert device.status().version == 1
        assert "its loss on this device's held-out rows is nan" in device.status().refused
        assert np.array_equal(device.predict(x), good)
        refused = federation.coordinator.tasks.find(run.id).state.heads.refusals
        assert [(refusal.number, refusal.device) for refusal in refused] == [(2, "ann")]
    with open_device(federation, "ann", task) as device:  # which it remembers
        assert device.status().version == 1
        assert np.array_equal(device.predict(x), good)


def test_devices_try_a_candidate_measure_it_and_all_serve_it(federation: Federation):
    serving = Serving("canary", Canary(1.0, devices=2, minimum_rows=10))
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1, serving=serving, plan=False)
    with open_device(federation, "ann") as ann, open_device(federation, "ben") as ben:
        for device in (ann, ben):
            device.observe(*user_data("ann"))
        assert ann.sync()
        settled(lambda: any("-guard-" in task.id for task in federation.researcher.tasks()), federation)
        for device in (ann, ben):
            device.sync()
            assert device.status().version == 1
        settled(lambda: federation.researcher.heads(run.id).serving == 1, federation)
        logged = [release.kind for release in ben._home.releases()]
        assert logged == ["evaluation"]
    steps = federation.researcher.heads(run.id).steps
    assert [step.what for step in steps] == ["canary", "guard", "measured", "promoted"]
    assert steps[-1].reason.endswith("over 16 rows")


def test_a_device_gives_statistics_of_named_columns_if_its_user_lets_it(federation: Federation):
    policy = Policy(minimum_rows=1, distributions=True)
    columns = {"x": ("age", "height", "weight"), "y": ("price",)}
    data = [user_data(name) for name in ("ann", "ben")]
    found: list[ColumnStatistics] = []
    asking = Thread(target=lambda: found.append(federation.researcher.statistics(["age", "price"], goal=2)))
    with (
        open_device(federation, "ann", policy=policy, columns=columns) as ann,
        open_device(federation, "ben", policy=policy, columns=columns) as ben,
    ):
        for device, rows in zip((ann, ben), data, strict=True):
            device.observe(*rows)
        asking.start()
        settled(lambda: bool(federation.researcher.tasks()), federation)
        for _ in range(100):
            for device in (ann, ben):
                device.sync()
            if not asking.is_alive():
                break
        asking.join(20.0)
    pooled = np.concatenate([np.column_stack([x[:, 0], y]) for x, y in data]).astype(np.float64)
    assert found[0].count.tolist() == [80, 80]
    np.testing.assert_allclose(found[0].mean, pooled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found[0].variance, pooled.var(axis=0, ddof=1), rtol=1e-12)


def test_a_check_that_fails_tells_no_value_of_an_example(federation: Federation):
    task = offset_task(ranges={"x": (-1.0, 1.0)}, example=(-np.ones((4, 3), np.float32), -np.ones(4, np.float32)))
    policy = Policy(minimum_rows=1)
    raised: list[ShoalError] = []

    def ask() -> None:
        try:
            federation.researcher.check(task, goal=1, within=20.0)
        except ShoalError as error:
            raised.append(error)

    asking = Thread(target=ask)
    with open_device(federation, "ann", task, policy=policy) as device:
        device.observe(np.float32([[7.654321, 0.0, 0.0]] * 10), np.zeros(10, np.float32))
        asking.start()
        settled(lambda: bool(federation.researcher.tasks()), federation)
        device.sync()
        asking.join(20.0)
    assert "ann" in str(raised[0])
    assert "7.65" not in str(raised[0])
    assert isinstance(raised[0], SchemaMismatch)
