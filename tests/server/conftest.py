import base64
import hashlib
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

import httpx
import msgspec
import numpy as np
import pytest

from shoal.core.roles import Role
from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec, weight_units
from shoal.core.tree import Tree, encode
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport
from shoal.wire.codec import encode_trees, frame
from shoal.wire.digests import CONTENT_DIGEST, digest_field
from shoal.wire.messages import CheckInReply, ReportHead, TaskStatus, VersionsReply
from shoal.wire.signing import Ed25519Key, SigningKey, sign

ARRAYS = {
    "w": ArraySpec((2, 3), "float32"),
    "b": ArraySpec((), "float32"),
    "mean": ArraySpec((3,), "float32", Role.BUFFER),
    "steps": ArraySpec((), "int64", Role.COUNTER),
    "base": ArraySpec((4,), "float32", Role.FROZEN),
}
START: Tree = {
    "w": np.ones((2, 3), np.float32),
    "b": np.float32(0.5) * np.ones((), np.float32),
    "mean": np.zeros(3, np.float32),
    "steps": np.zeros((), np.int64),
}


def spec(rounds: int = 2, goal: int = 2, **changes: object) -> TaskSpec:
    plan = RoundPlan(goal=goal, minimum=1, deadline=60.0, lease=20.0, attempts=2)
    made = TaskSpec("plain", ARRAYS, rounds, plan, bounds=Bounds(max_abs=8.0, max_weight=1000.0, max_updates=16))
    return replace(made, **changes)  # type: ignore[arg-type]


def delta(value: float) -> Tree:
    return {
        "w": np.full((2, 3), value, np.float32),
        "b": np.full((), -value, np.float32),
        "mean": np.full(3, value / 2, np.float32),
        "steps": np.full((), 3, np.int64),
    }


def report_body(tree: Tree, weight: float = 10.0, **head: object) -> bytes:
    data = encode_trees({"delta": tree})
    made = ReportHead(hashlib.sha256(data).hexdigest(), len(data), weight_units(weight), {"loss": 1.0})
    return frame(replace(made, **head), data)  # type: ignore[arg-type]


SIGNER = "Signed-By"


def device_key(name: str) -> Ed25519Key:
    """A device's key, the same each time."""
    return Ed25519Key(base64.b64encode(hashlib.sha256(name.encode()).digest()).decode())


def nonce() -> str:
    return secrets.token_urlsafe(16)


def signing_time(coordinator: Coordinator) -> float:
    return coordinator.identities.nonces.now(coordinator.clock())


class Signing(httpx.Auth):
    """Signs what is to be sent for a device, by the coordinator's clock; a digest that is given is taken as it is."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        name = request.headers.pop(SIGNER, None)
        if name is not None:
            given = request.headers.get(CONTENT_DIGEST)
            digest = given or digest_field(hashlib.sha256(request.read()).digest())
            target, now = request.url.raw_path.decode(), signing_time(self._coordinator)
            request.headers.update(sign(device_key(name), request.method, target, digest, now, nonce()))
        yield request


@dataclass
class Served:
    """A coordinator in memory behind a client, with its tokens and a clock that stands still."""

    client: httpx.Client
    coordinator: Coordinator
    clock: ManualClock
    admin: str
    enrolment: str
    devices: set[str] = field(default_factory=set)

    def people(self, token: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self.admin}"}

    def device(self, name: str) -> dict[str, str]:
        """The header by which the client knows who is to sign; it does not travel."""
        if name not in self.devices:
            answer = self.enrol(name, device_key(name))
            assert answer.status_code == 200, answer.text
            self.devices.add(name)
        return {SIGNER: name}

    def enrol(self, name: str, key: SigningKey, token: str | None = None, **headers: str) -> httpx.Response:
        """Let a device ask to join, with the common enrolment token unless another one is given; "" for none."""
        body = msgspec.json.encode({"name": name, "public_key": key.public, "key_type": key.kind})
        digest, now = digest_field(hashlib.sha256(body).digest()), signing_time(self.coordinator)
        signed = sign(key, "POST", "/v1/devices", digest, now, nonce())
        shown = {} if token == "" else self.people(token or self.enrolment)
        return self.client.post("/v1/devices", content=body, headers={**shown, **signed, **headers})

    def publish(self, made: TaskSpec, start: Tree = START) -> TaskStatus:
        initial = self.client.post("/v1/blobs", content=encode(start), headers=self.people()).json()["digest"]
        made = replace(made, initial=initial)
        answer = self.client.post("/v1/tasks", content=msgspec.json.encode(made), headers=self.people())
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=TaskStatus)

    def check_in(self, name: str, **asked: object) -> CheckInReply:
        answer = self.client.post(
            "/v1/checkin", json={"training": ["plain"], "statistics": True, **asked}, headers=self.device(name)
        )
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=CheckInReply)

    def report(self, name: str, assignment: str, body: bytes) -> httpx.Response:
        return self.client.post(f"/v1/assignments/{assignment}/report", content=body, headers=self.device(name))

    def call(self, name: str, method: str, path: str, content: bytes | None = None, **headers: str) -> httpx.Response:
        """Call as a device; underscores in the names of headers stand for dashes."""
        more = {field.replace("_", "-"): value for field, value in headers.items()}
        return self.client.request(method, path, content=content, headers={**self.device(name), **more})

    def versions(self, task: str, after: int = -1, wait: float = 5.0) -> VersionsReply:
        answer = self.client.get(f"/v1/tasks/{task}/versions?after={after}&wait={wait}", headers=self.people())
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=VersionsReply)


@pytest.fixture
def served() -> Iterator[Served]:
    clock = ManualClock()
    coordinator = Coordinator(MemoryStore(), MemoryBlobs(), clock)
    admin = coordinator.identities.issue("admin", clock())
    enrolment = coordinator.identities.issue("enrolment", clock())
    transport = InMemoryTransport(build_app(coordinator))
    with httpx.Client(transport=transport, base_url="http://shoal", auth=Signing(coordinator)) as client:
        yield Served(client, coordinator, clock, admin, enrolment)
