"""One real way to meet each error: what docs/errors.md shows is what these raise."""

import base64
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from unittest.mock import patch

import httpx
import msgspec
import numpy as np
import torch
from torch import nn

import shoal
from shoal.agent.policy import Policy
from shoal.agent.sealed import Seal
from shoal.algorithms import registry
from shoal.algorithms.optimizer import Adam
from shoal.algorithms.scaffold import scaffold
from shoal.core.errors import ShoalError, from_code
from shoal.core.receipt import Receipt
from shoal.core.schema import RowSchema, check_rows
from shoal.core.task import ArraySpec, Component, RoundPlan
from shoal.core.tree import encode
from shoal.data import read_csv
from shoal.plan.graph import Operation, Program, Value
from shoal.plan.onnx import onnx_model
from shoal.plan.run import Plan, from_bytes, load
from shoal.plan.selftest import proved
from shoal.remote.connect import connect
from shoal.remote.limits import Limits
from shoal.remote.recording import record
from shoal.remote.virtual import VirtualWorker
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.server.key import ReceiptKey
from shoal.server.newcomers import Newcomers
from shoal.store.durable import storage_full
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.store.sql import SqlStore
from shoal.store.store import DeviceRecord, Entry
from shoal.testing.clock import ManualClock
from shoal.testing.in_process import run_rounds
from shoal.testing.transport import InMemoryTransport
from shoal.train.task import check_code, compile_task
from shoal.wire import receipts
from shoal.wire.digests import CONTENT_DIGEST, digest_field
from shoal.wire.http import Connection
from shoal.wire.lock import Lock
from shoal.wire.messages import ErrorMessage, TaskStatus
from shoal.wire.models import check_digest, read_tree
from shoal.wire.signing import EMPTY_DIGEST, key_id
from tests.agent.federation import line_task
from tests.certificates import certificate
from tests.server.conftest import Served, Signing, delta, device_key, report_body, spec

Example: TypeAlias = Callable[[Path], object]

EXAMPLES: dict[str, Example] = {}
"""By code: each raises its error; the folder is empty."""

DATABASES = {"newer_database", "older_database"}
"""Those that open a real database."""

PLANS = Path(__file__).parent / "plan" / "plans"
FIRST = Path(__file__).parent / "store" / "schemas"


def example(code: str) -> Callable[[Example], Example]:
    def keep(make: Example) -> Example:
        assert code not in EXAMPLES
        EXAMPLES[code] = make
        return make

    return keep


def over_http(code: str) -> Callable[[Callable[[Served], httpx.Response]], None]:
    """Keep an example that asks a coordinator, and raise what it answers."""

    def keep(ask: Callable[[Served], httpx.Response]) -> None:
        def make(_: Path) -> None:
            coordinator = Coordinator(MemoryStore(), MemoryBlobs(), ManualClock())
            tokens = [coordinator.identities.issue(role, 0.0) for role in ("admin", "enrolment")]
            with (
                InMemoryTransport(build_app(coordinator)) as transport,
                httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client,
            ):
                answer = ask(Served(client, coordinator, ManualClock(), *tokens))
            message = msgspec.json.decode(answer.content, type=ErrorMessage)
            assert answer.status_code == from_code(message.code, "", "").status
            raise from_code(message.code, message.problem, message.fix)

        EXAMPLES[code] = make

    return keep


def raised(code: str, folder: Path) -> ShoalError:
    """Return the error that an example raises."""
    try:
        EXAMPLES[code](folder)
    except ShoalError as error:
        return error
    raise AssertionError(f"the example of {code!r} raised nothing")


def table(folder: Path, text: str) -> None:
    file = folder / "rows.csv"
    file.write_text(text)
    read_csv(file)


EXAMPLES["configuration"] = lambda _: Connection("127.0.0.1:8080")
EXAMPLES["unknown_setting"] = lambda _: registry.server_optimizer(Component("adam", {"lrr": 0.1}))
EXAMPLES["data"] = lambda folder: table(folder, "rooms;price\n6,5;24,0\n")
EXAMPLES["not_numeric"] = lambda folder: table(folder, "rooms,price\n6.5,24.0\n6.4,unknown\n")
EXAMPLES["no_rows"] = lambda folder: table(folder, "rooms,price\n")
EXAMPLES["unsupported_array"] = lambda _: ArraySpec((2,), "complex64")
EXAMPLES["not_permitted"] = lambda _: Policy(minimum_rows=10).check(spec(), 1, rows=9)
EXAMPLES["unreachable"] = lambda _: Connection("http://127.0.0.1:9").call("GET", "/v1/tasks", None, list[TaskStatus])
EXAMPLES["abandoned"] = lambda _: run_rounds(spec(), {}, [], lambda assignment, params: unused())
EXAMPLES["wrong_key"] = lambda _: Seal(b"2" * 32).open(Seal(b"1" * 32).seal(b"rows", "the examples"), "the examples")
EXAMPLES["corrupt_store"] = lambda _: check_digest("0" * 64, b"not those bytes")


def unused() -> None:
    raise AssertionError("nobody was to work")


@example("schema_mismatch")
def _(_: Path) -> None:
    rows = np.array([[6.5, 1.0], [6.4, -2.0]], np.float32)
    schema = {"x": RowSchema("float32", (2,), low=0.0, high=10.0)}
    check_rows(schema, {"x": rows}, {"x": ("rooms", "distance")})


@example("task")
def _(_: Path) -> None:
    read_tree(encode({"w": np.zeros(3, np.float32)}), {"w": ArraySpec((2,), "float32")})


def compiled(**changes: object) -> object:
    torch.set_num_threads(1)
    return compile_task(line_task(**changes), rounds=1, plan=RoundPlan(1, 1))  # type: ignore[arg-type]


@example("broadcasting_loss")
def _(_: Path) -> None:
    compiled(example=(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)))


@example("not_finite")
def _(_: Path) -> None:
    compiled(loss=lambda output, target: nn.functional.mse_loss(output, target) / 0)


@example("simulation_only")
def _(_: Path) -> None:
    stateful = replace(scaffold(participation=1.0), server=Adam())
    made = compile_task(replace(line_task(), strategy=stateful), rounds=1, plan=RoundPlan(1, 1))
    registry.check_servable(made.spec)


class Counting(nn.Module):
    """Multiplies by the number of its calls, which a recorded step would not count."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(4, 1)
        nn.init.ones_(self.layers.weight)
        nn.init.zeros_(self.layers.bias)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layers(x) * self.calls


@example("not_traceable")
def _(_: Path) -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).mean()

    clients = [(np.ones((2, 4), np.float32), np.zeros((2, 1), np.float32))] * 2
    shoal.simulate(shoal.Task("t", Counting(), loss), clients, rounds=2, trainer="graph", show=False)


@example("code_mismatch")
def _(_: Path) -> None:
    made = compile_task(line_task(), rounds=1, plan=RoundPlan(1, 1))
    arrays = {**made.spec.arrays, "layers.0.weight": ArraySpec((8, 3), "float32")}
    check_code(line_task(), replace(made.spec, arrays=arrays), made.initial, made.frozen, made.golden)


@example("not_exportable")
def _(_: Path) -> None:
    place, found = "in module 'head' at boston.py:12", Value((3,), "int64")
    operation = Operation("aten.nonzero.default", (), {}, (found,), place)
    onnx_model("train", Program({}, {"loss": found}, (operation,)))


@example("plan")
def _(_: Path) -> None:
    from_bytes(encode({}))


@example("runtime_mismatch")
def _(_: Path) -> None:
    plan = load(PLANS / "mlp-sgd.plan")
    proved(Plan(plan.manifest, plan.graphs, {**plan.golden, "loss": plan.golden["loss"] + 1}))


@example("storage_full")
def _(folder: Path) -> None:
    try:
        with open("/dev/full", "wb", buffering=0) as full:  # a disk that is always full, by the kernel
            full.write(b"x")
    except OSError as error:
        raise storage_full(folder / "shoal.db", error) from error


@example("store")
def _(_: Path) -> None:
    store = MemoryStore()
    epoch = store.lead("plain-1")
    store.close()
    store.submit(Entry("plain-1", [], 0, epoch)).result()


@example("stream_conflict")
def _(_: Path) -> None:
    store = MemoryStore()
    store.submit(Entry("plain-1", [], 7, store.lead("plain-1"))).result()


@example("superseded")
def _(_: Path) -> None:
    store = MemoryStore()
    first = store.lead("plain-1")
    store.lead("plain-1")
    store.submit(Entry("plain-1", [], 0, first)).result()


@example("newer_database")
def _(folder: Path) -> None:
    SqlStore(folder / "shoal.db").close()
    with sqlite3.connect(folder / "shoal.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    SqlStore(folder / "shoal.db")


@example("older_database")
def _(folder: Path) -> None:
    connection = sqlite3.connect(folder / "shoal.db")
    connection.executescript(min(FIRST.glob("*.sql")).read_text())
    connection.close()
    SqlStore(folder / "shoal.db")


class _WebSite(httpx.BaseTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(b"<html><body>It works!</body></html>"))


@example("not_a_coordinator")
def _(_: Path) -> None:
    with Connection("http://www.example.com", transport=_WebSite()) as connection:
        connection.call("GET", "/v1/tasks", None, list[TaskStatus])


@over_http("error")
def _(served: Served) -> httpx.Response:
    with patch.object(served.coordinator, "identities", None):  # a mistake of ours
        return served.client.get("/v1/tasks", headers=served.people())


@over_http("bad_request")
def _(served: Served) -> httpx.Response:
    return served.client.post("/v1/checkin", json={"training": "boston"}, headers=served.device("bob"))


@over_http("unauthorised")
def _(served: Served) -> httpx.Response:
    return served.client.get("/v1/tasks", headers=served.people("wrong"))


@over_http("bad_signature")
def _(served: Served) -> httpx.Response:
    return served.client.post("/v1/checkin", content=b"{}")


@example("pending")
def _(_: Path) -> None:
    bob = device_key("bob").public
    raise Newcomers(welcome=True).ask(DeviceRecord(key_id(bob), "bob", bob, 0.0))


@over_http("forbidden")
def _(served: Served) -> httpx.Response:
    return served.client.get("/v1/tasks", headers=served.people(served.enrolment))


@over_http("not_found")
def _(served: Served) -> httpx.Response:
    served.publish(spec())
    return served.client.get("/v1/tasks/plane-1/status", headers=served.people())


@over_http("conflict")
def _(served: Served) -> httpx.Response:
    served.device("bob")
    return served.enrol("bob", device_key("another bob"))


@over_http("wrong_offset")
def _(served: Served) -> httpx.Response:
    served.publish(spec())
    assignment = served.check_in("bob").assignment
    assert assignment is not None
    path = f"/v1/assignments/{assignment.id}/upload"
    fields = {"Upload_Complete": "?0", "Upload_Offset": "100"}
    served.call("bob", "POST", path, b"", Upload_Length="200", Repr_Digest=digest_field(bytes(32)), **fields)
    return served.call("bob", "PATCH", path, b"more", Content_Type="application/partial-upload", **fields)


@example("wrong_receipt")
def _(_: Path) -> None:
    other = base64.b64encode(bytes(32)).decode()
    receipts.check(other, ReceiptKey(bytes(32)).sign(Receipt("5f0c5be1", "0" * 64, 1.0)))


@over_http("out_of_range")
def _(served: Served) -> httpx.Response:
    digest = served.publish(spec()).latest.digest
    return served.client.get(f"/v1/blobs/{digest}", headers={**served.people(), "Range": "bytes=9999-"})


@over_http("gone")
def _(served: Served) -> httpx.Response:
    return served.report("bob", "5f0c5be1", report_body(delta(1.0)))


@over_http("too_large")
def _(served: Served) -> httpx.Response:
    return served.client.post("/v1/checkin", content=bytes(2 << 20), headers=served.device("bob"))


@over_http("unknown_encoding")
def _(served: Served) -> httpx.Response:
    headers = {**served.device("bob"), "Content-Encoding": "gzip"}
    return served.client.post("/v1/checkin", content=b"x", headers=headers)


@over_http("wrong_protocol")
def _(served: Served) -> httpx.Response:
    return served.client.post("/v1/checkin", json={"protocol": 0}, headers=served.device("bob"))


@over_http("refused_update")
def _(served: Served) -> httpx.Response:
    served.publish(spec())
    given = served.check_in("bob").assignment
    assert given is not None
    return served.report("bob", given.id, report_body({**delta(1.0), "w": np.full((2, 3), np.nan, np.float32)}))


@over_http("unavailable")
def _(served: Served) -> httpx.Response:
    served.publish(spec())
    served.coordinator.storage.store.lead("plain-1")  # as another process does that was started on the same home
    for _ in range(2):  # the first call finds it out
        answer = served.client.post("/v1/checkin", json={"training": ["plain"]}, headers=served.device("bob"))
    return answer


@over_http("too_slow")
def _(served: Served) -> httpx.Response:
    answered = threading.Event()

    def stalling() -> Iterator[bytes]:
        yield b"{"
        answered.wait(20)

    headers = {**served.device("bob"), CONTENT_DIGEST: EMPTY_DIGEST}
    with patch("shoal.server.calls.PATIENCE_SECONDS", 0.05):
        answer = served.client.post("/v1/checkin", content=stalling(), headers=headers)
    answered.set()
    return answer


@example("remote_failure")
def _(_: Path) -> None:
    bob = VirtualWorker("bob")
    rows = bob.send(torch.ones(5, 3))
    nn.functional.embedding(bob.send(torch.tensor([9])), rows).get()


@example("refused_operator")
def _(_: Path) -> None:
    torch.ops.aten.set_(VirtualWorker("bob").send(torch.ones(2)))


@example("wrong_place")
def _(_: Path) -> None:
    VirtualWorker("bob").send(torch.ones(2)) + VirtualWorker("alice").send(torch.ones(2))


@example("over_limit")
def _(_: Path) -> None:
    bob = VirtualWorker("bob", limits=Limits(bytes=1000))
    (bob.send(torch.ones(10)).expand(100, 10) + 1).get()


@example("session_lost")
def _(_: Path) -> None:
    bob = VirtualWorker("bob")
    ones = bob.send(torch.ones(2))
    bob.close()
    ones.get()


def _greet(listener: ssl.SSLSocket) -> None:
    with suppress(OSError):
        listener.accept()


@example("wrong_certificate")
def _(folder: Path) -> None:
    cert, key = certificate(folder)
    context = Lock(cert, key).context()
    assert context is not None
    with socket.create_server(("127.0.0.1", 0)) as plain, context.wrap_socket(plain, server_side=True) as listener:
        greeting = threading.Thread(target=_greet, args=(listener,))
        greeting.start()
        try:
            connect(f"wss://127.0.0.1:{listener.getsockname()[1]}", token="secret")
        finally:
            greeting.join()


@example("not_recordable")
def _(_: Path) -> None:
    record(torch.sum)(torch.ones(2))
