"""`shoal.Device` with a task's plan in place of its code, against a real coordinator in memory."""

from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
from torch import nn

import shoal.plan
from shoal.agent.device import Device
from shoal.agent.policy import Policy
from shoal.agent.standing import DeviceSettings
from shoal.core.errors import (
    ConfigurationError,
    CorruptStore,
    DataError,
    NotExportable,
    NotFound,
    RuntimeMismatch,
    TaskError,
)
from shoal.core.task import LocalPlan
from shoal.plan.run import Plan
from shoal.researcher import coordinator as publishing
from tests.agent.devices import offset_task, open_device, user_data
from tests.agent.federation import URL, Federation

pytestmark = pytest.mark.slow


def by_plan(federation: Federation, name: str, plan: str = "offset", **settings: object) -> Device:
    options = {"policy": Policy(statistics=False, minimum_rows=1), "probe_seconds": 0.0, **settings}
    return Device.join(
        URL,
        home=federation.folder / f"device-{name}",
        plan=plan,
        token=federation.enrolment,
        name=name,
        settings=DeviceSettings(**options),  # type: ignore[arg-type]
        transport=federation.transport,
        say=federation.said,
    )


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", ["global", "personal"])
def test_it_learns_what_a_device_with_code_learns(federation: Federation, start: str):
    local = LocalPlan(epochs=3, batch_size=4, optimizer=shoal.sgd(0.05), start=start, shuffle=False)  # type: ignore[arg-type]
    task = offset_task(own=True, local=local)
    run = federation.researcher.publish(task, rounds=2, goal=2)
    x, y = user_data("ann")
    with open_device(federation, "ben", task) as coded, by_plan(federation, "ann") as planned:
        # the name decides which examples are held out: let both have the same
        for device in (coded, planned):
            device._examples._seed = 5
            device.observe(x, y)
        assert coded.sync()
        assert planned.sync()
        same(coded._personal.now.local, planned._personal.now.local)
        planned.sync()
        coded.sync()
        assert planned.status().version == 1
        done = planned.personalise()
        assert done.kept
        assert done.after is not None
        assert done.before is not None
        assert done.after < done.before
        assert planned.serving == "personal"
        own = planned._personal.now.arrays
        np.testing.assert_allclose(planned.predict(x), x @ own["a"] + own["b"], rtol=1e-4, atol=1e-4)
        assert planned._personal.now.arrays.keys() == {"a", "b"}
    versions = list(run.follow(1))
    assert len(federation.reported(run.id)) >= 2
    assert versions[0].reports == 2
    assert "b" not in run.params(1)


def test_personal_training_is_torchs_step_for_step(federation: Federation):
    task = offset_task(own=True)
    federation.researcher.publish(task, rounds=1, goal=1)
    x, y = user_data("ann")
    with by_plan(federation, "ann") as device:
        device.observe(x, y)
        device.personalise("global")
        planned = device._personal.now.arrays
        name, rows = device.name, device._examples.rows(held=False)
    from shoal.core.seeds import derive
    from shoal.train.data import ClientData
    from shoal.train.loop import LoopTrainer

    trainer = LoopTrainer(task)
    start = {key: np.zeros_like(value) for key, value in planned.items()}
    local = LocalPlan(epochs=3, batch_size=4, optimizer=task.plan.optimizer, start="personal")
    list(trainer.train(start, local, [ClientData(name, rows, seed=derive(0, name, "personalise", 0))]))
    same(planned, trainer.personal[name])


def test_it_works_without_a_coordinator_once_it_has_joined(federation: Federation):
    federation.researcher.publish(offset_task(), rounds=1, goal=1)
    x, y = user_data("ann")
    key = bytes(range(16))
    with by_plan(federation, "ann", key=key) as device:
        device.observe(x, y)
        before = device.predict(x)
    inner, federation.transport = federation.transport, Away()  # type: ignore[assignment]
    with by_plan(federation, "ann", key=key) as device:
        np.testing.assert_array_equal(device.predict(x), before)
        device.personalise()
        assert not np.array_equal(device.predict(x), before)
    federation.transport = inner


def test_what_it_cannot_use_is_refused(federation: Federation):
    with pytest.raises(NotFound):
        by_plan(federation, "ann")
    federation.researcher.publish(offset_task(), rounds=1, goal=1)
    with by_plan(federation, "ben") as device:
        with pytest.raises(DataError, match="of shape"):
            device.observe(np.ones(2, np.float32), np.float32(1))
        with pytest.raises(DataError, match="of dtype"):
            device.observe(np.array(["a"] * 3), np.float32(1))
        with pytest.raises(TaskError, match="a prediction from"):
            device.predict({"z": np.ones(3, np.float32)})
    with pytest.raises(ConfigurationError, match="none or several"):
        Device.join(URL, home=federation.folder / "x", plan="offset", task=offset_task())


def test_a_task_without_a_plan_cannot_be_joined_by_one(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    with pytest.raises(TaskError, match="without a plan"):
        by_plan(federation, "ann")
    [refusal] = federation.researcher.heads(run.id).refusals
    assert refusal.device == "ann"


def test_it_measures_versions_for_others(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1)
    with by_plan(federation, "ann", policy=Policy(statistics=False, minimum_rows=1, own_metrics=True)) as device:
        x, y = user_data("ann")
        device.observe(x, y)
        assert device.sync()
        list(run.follow())
        device.sync()
        held = device._examples.rows(held=True)
        measured = device._learner.measure(device._learner.version, {}, {}, held)
        expected = float(((device.predict(held["x"]) - held["y"]) ** 2).mean())
        assert measured["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def tampered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the plans that are published from now on have a golden step with other numbers."""

    def tamper(part: str) -> None:
        made = publishing._exported

        def changed(task: shoal.Task) -> Plan:
            plan = made(task)
            return Plan(plan.manifest, plan.graphs, {**plan.golden, part: plan.golden[part] + 1})

        monkeypatch.setattr(publishing, "_exported", changed)

    return tamper


@pytest.mark.parametrize("part", ["loss", "change/a", "predict/output", "evaluate/measure/loss"])
def test_a_runtime_that_does_not_pass_the_golden_step_is_reported_and_not_used(
    federation: Federation, tampered: Callable[[str], None], part: str
):
    tampered(part)
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1)
    with pytest.raises(RuntimeMismatch, match="without optimizations"):
        by_plan(federation, "ann")
    [refusal] = federation.researcher.heads(run.id).refusals
    assert refusal.device == "ann"
    assert refusal.reason.startswith("runtime_mismatch: the golden step")
    assert not federation.reported(run.id)


def test_an_agent_that_does_not_pass_the_golden_step_gives_the_round_back(
    federation: Federation, tampered: Callable[[str], None]
):
    tampered("loss")
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1)
    federation.start("bob", _rows("bob"), None, plans=("offset",))
    federation.said.until("refused round 1")
    [record] = federation.researcher.rounds(run.id)
    [reason] = record.dropped
    assert reason.startswith("released: runtime_mismatch: the golden step of task 'offset'")
    assert not federation.reported(run.id)


def test_a_plan_that_is_not_what_its_digest_says_is_refused(federation: Federation):
    run = federation.researcher.publish(offset_task(), rounds=1, goal=1)
    path = f"/v1/blobs/{run.spec.exported}"
    inner, federation.transport = federation.transport, Altered(federation.transport, path)  # type: ignore[assignment]
    with pytest.raises(CorruptStore, match="SHA-256"):
        by_plan(federation, "ann")
    federation.transport = inner
    [refusal] = federation.researcher.heads(run.id).refusals
    assert "SHA-256" in refusal.reason
    with by_plan(federation, "ann") as device:
        assert device.status().version == 0


def test_rows_that_do_not_fill_a_batch_do_not_count(federation: Federation, monkeypatch: pytest.MonkeyPatch):
    """A plan for four rows at once: 32 examples to train on are 8 batches, 33 too, and weigh 32."""
    monkeypatch.setattr(publishing, "_exported", lambda task: shoal.plan.export(task, rows=4))
    federation.researcher.publish(offset_task(), rounds=2, goal=1)
    x, y = user_data("ann", 42)
    with by_plan(federation, "ann", holdout=0.2) as device:
        device.observe(x, y)
        assert device._examples.count(held=False) in (33, 34)
        assert device.status().global_loss is not None
        assert device.sync()
    [report] = federation.reported("offset-1")
    assert report.weight == 32 << 16


class Away(httpx.BaseTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no network")


class Altered(httpx.BaseTransport):
    """Changes one bit of what comes from one path."""

    def __init__(self, inner: httpx.BaseTransport, path: str) -> None:
        self._inner, self._path = inner, path

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        if request.url.path != self._path:
            return answer
        body = answer.read()
        answer.close()
        changed = body[:-1] + bytes([body[-1] ^ 1])
        headers = {k: v for k, v in answer.headers.items() if k != "content-encoding"}
        return httpx.Response(answer.status_code, headers=headers, stream=httpx.ByteStream(changed))


def _rows(name: str):
    from shoal.agent.data import ArrayData

    x, y = user_data(name)
    return ArrayData({"x": x, "y": y})


def test_a_model_with_buffers_and_dropout_is_personalised(federation: Federation, tmp_path: Path):
    import torch

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1), nn.Flatten(0))
    made = offset_task(model=net, roles={}, local=LocalPlan(epochs=20, batch_size=8, optimizer=shoal.adam(1e-2)))
    federation.researcher.publish(made, rounds=1, goal=1)
    x, y = user_data("ann", 80)
    with by_plan(federation, "ann") as device:
        device.observe(x, y)
        done = device.personalise()
        assert done.kept
        assert done.after < done.before / 2
        assert device.sync()


def test_a_task_that_cannot_be_exported_is_not_published_unless_its_code_is_trusted(federation: Federation):
    def loss(output, target):
        return ((output - target) ** 2).mean() if output.sum() > 0 else (output - target).abs().mean()

    task = offset_task(loss=loss)
    with pytest.raises(NotExportable, match=rf"_local_scalar_dense.* at {__file__}:\d+") as raised:
        federation.researcher.publish(task, rounds=1, goal=1)
    assert "plan=False" in raised.value.fix
    assert federation.researcher.tasks() == []
    assert federation.researcher.publish(task, rounds=1, goal=1, plan=False).spec.exported == ""
