"""Who calls: what a replayed, stale, altered or foreign signature gets, and what revocation ends."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import msgspec
import pytest

from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.testing.transport import InMemoryTransport
from shoal.wire.digests import digest_field
from shoal.wire.signing import sign
from tests.server.conftest import Served, device_key, nonce, served, signing_time, spec

__all__ = ["served"]

BODY = msgspec.json.encode({"training": ["plain"]})
PATH = "/v1/checkin"


def signed(served: Served, name: str = "ann", **changes: object) -> dict[str, str]:
    served.device(name)
    given = {"method": "POST", "target": PATH, "body": BODY, "at": 0.0, "nonce": nonce(), "key": device_key(name)}
    given |= changes
    digest = digest_field(hashlib.sha256(given["body"]).digest())
    when = signing_time(served.coordinator) + given["at"]
    return sign(given["key"], given["method"], given["target"], digest, when, given["nonce"])


def code(served: Served, headers: dict[str, str], body: bytes = BODY, path: str = PATH) -> tuple[int, str]:
    answer = served.client.post(path, content=body, headers=headers)
    return answer.status_code, answer.json().get("code", "")


def test_a_signed_call_is_let_in_once(served: Served):
    headers = signed(served)
    assert code(served, headers) == (200, "")
    assert code(served, headers) == (401, "bad_signature")


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"{}"},
        {"target": "/v1/other"},
        {"target": f"{PATH}?more=1"},
        {"method": "PUT"},
        {"at": -61.0},
        {"at": 5.0},
        {"key": device_key("somebody")},
    ],
)
def test_what_was_not_signed_so_is_refused(served: Served, changes: dict[str, object]):
    status, said = code(served, signed(served, **changes))
    assert (status, said) in ((401, "bad_signature"), (401, "unauthorised"))


def test_what_was_signed_before_a_restart_is_refused(served: Served):
    headers = signed(served)
    storage = served.coordinator.storage
    served.clock.advance(1.0)
    again = Coordinator(storage.store, storage.blobs, served.clock)
    with httpx.Client(transport=InMemoryTransport(build_app(again)), base_url="http://shoal") as client:
        assert code(replace(served, client=client), headers) == (401, "bad_signature")


def test_the_answer_tells_the_servers_time(served: Served):
    answer = served.client.post(PATH, content=BODY, headers=signed(served, at=-3600.0))
    assert answer.json()["server_time"] == pytest.approx(served.clock(), abs=1.0)


def test_revoking_a_device_ends_its_waiting(served: Served):
    served.publish(spec(goal=1))
    served.check_in("bob")
    served.device("ann")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(served.call, "ann", "POST", PATH, msgspec.json.encode({"training": ["plain"], "wait": 30.0}))
        while not served.coordinator.bell.waiting:
            assert not held.done()
        assert served.client.post("/v1/devices/ann/revoke", headers=served.people()).status_code == 200
        assert held.result(10).status_code == 401
    assert served.call("ann", "POST", PATH, BODY).status_code == 401


def test_a_token_has_its_uses_and_its_scope(served: Served):
    asked = {"role": "enrolment", "uses": 1, "scope": ["plain"], "expires_in": 60.0}
    token = served.client.post("/v1/tokens", json=asked, headers=served.people()).json()["token"]
    first, second = (served.enrol(name, device_key(name), token) for name in ("one", "two"))
    assert (first.status_code, second.status_code) == (200, 401)
    assert first.json()["scope"] == ["plain"]
    served.devices.add("one")
    served.publish(spec(goal=9, name="other"))
    assert served.check_in("one", training=["other"]).assignment is None
    assert served.call("one", "GET", "/v1/tasks/other-1").status_code == 403
    late = served.client.post("/v1/tokens", json={**asked, "uses": 2}, headers=served.people()).json()["token"]
    served.clock.advance(61.0)
    assert served.enrol("three", device_key("three"), late).status_code == 401
