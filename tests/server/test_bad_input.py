"""What a stranger sends: each is a typed error with the right status, and nothing is lost."""

import hashlib
import json
import tracemalloc
import zlib

import msgspec
import numpy as np
import pytest

from shoal.core.roles import Role
from shoal.core.task import ArraySpec
from shoal.core.tree import encode
from shoal.wire.codec import encode_trees, frame
from shoal.wire.messages import ReportHead
from tests.server.conftest import ARRAYS, SIGNER, START, Served, delta, device_key, report_body, spec


def opened(served: Served) -> str:
    served.publish(spec())
    given = served.check_in("bob").assignment
    assert given is not None
    return given.id


def changed(**arrays: object) -> dict:
    return {name: value for name, value in {**delta(1.0), **arrays}.items() if value is not None}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (changed(w=np.full((2, 3), np.nan, np.float32)), "'delta/w' holds NaN"),
        (changed(b=np.full((), np.inf, np.float32)), "'delta/b' holds NaN or infinity"),
        (changed(w=np.full((2, 3), 9.0, np.float32)), "'delta/w' holds 9"),
        (changed(b=None), "lacks the arrays ['delta/b']"),
        (changed(c=np.zeros(1, np.float32)), "unknown arrays ['delta/c']"),
        (changed(w=np.zeros((3, 2), np.float32)), "'delta/w' has shape (3, 2)"),
        (changed(w=np.zeros((2, 3), np.float64)), "'delta/w' has dtype float64"),
        (changed(steps=np.full((), -1, np.int64)), "counter 'delta/steps'"),
    ],
)
def test_a_bad_update_is_refused_by_name(served: Served, tree: dict, words: str) -> None:
    assignment = opened(served)
    answer = served.report("bob", assignment, report_body(tree))
    assert answer.status_code == 422
    assert answer.json()["code"] == "refused_update"
    assert words in answer.json()["problem"]
    assert answer.json()["fix"]
    task = served.coordinator.tasks["plain-1"]
    assert task.state.leases["bob"].state == "rejected"
    assert served.check_in("bob").assignment is None


@pytest.mark.parametrize("weight", [0.0, -1.0, 1001.0])
def test_a_weight_out_of_bounds_is_refused(served: Served, weight: float) -> None:
    answer = served.report("bob", opened(served), report_body(delta(1.0), weight))
    assert answer.status_code == 422
    assert "weight" in answer.json()["problem"]


def test_a_metric_that_is_no_number_is_refused(served: Served) -> None:
    data = encode_trees({"delta": delta(1.0)})
    head = {"digest": hashlib.sha256(data).hexdigest(), "size": len(data), "weight": 65536, "metrics": {"loss": "x"}}
    text = json.dumps(head).encode()
    answer = served.report("bob", opened(served), len(text).to_bytes(4, "little") + text + data)
    assert answer.status_code == 400
    assert "metrics" in answer.json()["problem"]


def test_bytes_that_changed_on_the_way_may_be_sent_again(served: Served) -> None:
    assignment = opened(served)
    body = report_body(delta(1.0))
    broken = body[:-1] + bytes([body[-1] ^ 1])
    assert served.report("bob", assignment, broken).status_code == 400
    assert served.report("bob", assignment, body).status_code == 200


def test_a_body_over_its_cap_is_refused_before_it_is_read(served: Served) -> None:
    answer = served.report("bob", opened(served), report_body({**delta(1.0), "c": np.zeros(1 << 20, np.float32)}))
    assert answer.status_code == 413
    assert served.client.post("/v1/checkin", content=b"x" * (2 << 20), headers=served.device("bob")).status_code == 413


def test_a_header_over_its_cap_is_refused(served: Served) -> None:
    data = (1 << 40).to_bytes(8, "little") + b"{}"
    head = ReportHead(hashlib.sha256(data).hexdigest(), len(data), 65536)
    assert served.report("bob", opened(served), frame(head, data)).status_code == 413
    assert served.report("alice", opened_again(served), (1 << 31).to_bytes(4, "little") + b"{}").status_code == 413


def opened_again(served: Served) -> str:
    given = served.check_in("alice").assignment
    assert given is not None
    return given.id


def test_an_array_twice_is_refused(served: Served) -> None:
    entry = '"delta/w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}'
    text = f"{{{entry},{entry}}}".encode()
    data = len(text).to_bytes(8, "little") + text + bytes(24)
    head = ReportHead(hashlib.sha256(data).hexdigest(), len(data), 65536)
    answer = served.report("bob", opened(served), frame(head, data))
    assert answer.status_code == 400
    assert "twice" in answer.json()["problem"]


def bomb(size: int) -> bytes:
    """Zeros that gzip makes a thousand times smaller."""
    pressed = zlib.compressobj(9, wbits=31)
    return b"".join([*(pressed.compress(bytes(1 << 20)) for _ in range(size >> 20)), pressed.flush()])


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "br", "gzip, identity"])
def test_a_compressed_body_is_refused_on_every_route_that_takes_one(served: Served, encoding: str) -> None:
    assignment = opened(served)
    for path, headers in [
        ("/v1/checkin", served.device("bob")),
        (f"/v1/assignments/{assignment}/report", served.device("bob")),
        (f"/v1/assignments/{assignment}/release", served.device("bob")),
        ("/v1/devices", None),
        ("/v1/tasks", served.people()),
        ("/v1/blobs", served.people()),
    ]:
        encoded = {"Content-Encoding": encoding}
        if headers is None:
            answer = served.enrol("ann", device_key("ann"), **encoded)
        else:
            answer = served.client.post(path, content=b"x", headers={**headers, **encoded})
        assert (answer.status_code, answer.json()["code"]) == (415, "unknown_encoding"), path
        assert answer.headers["accept-encoding"] == "identity"
        assert repr(encoding) in answer.json()["problem"]


def test_a_bomb_is_not_inflated_and_takes_no_memory(served: Served) -> None:
    packed = bomb(64 << 20)
    assignment = opened(served)
    tracemalloc.start()
    try:
        for header in ({"Content-Encoding": "gzip"}, {}):
            headers = {**served.device("bob"), **header}
            answer = served.client.post(f"/v1/assignments/{assignment}/report", content=packed, headers=headers)
            assert answer.status_code in (413, 415)
        promised = b'{"delta/w":{"dtype":"F32","shape":[1099511627775],"data_offsets":[0,4398046511100]}}'
        data = len(promised).to_bytes(8, "little") + promised
        answer = served.report(
            "bob", assignment, frame(ReportHead(hashlib.sha256(data).hexdigest(), len(data), 1), data)
        )
        assert answer.status_code == 400
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert served.report("bob", assignment, report_body(delta(1.0))).status_code == 200


@pytest.mark.parametrize("header", [{}, {"Authorization": "Basic x"}, {"Authorization": "Bearer wrong"}])
def test_a_wrong_token_reaches_nothing(served: Served, header: dict[str, str]) -> None:
    for method, path in [
        ("GET", "/v1/tasks"),
        ("POST", "/v1/tasks"),
        ("GET", "/v1/devices"),
        ("POST", "/v1/devices"),
        ("POST", "/v1/checkin"),
        ("POST", "/v1/blobs"),
        ("GET", f"/v1/blobs/{'0' * 64}"),
        ("POST", "/v1/assignments/x/report"),
        ("POST", "/v1/assignments/x/renew"),
        ("POST", "/v1/assignments/x/release"),
    ]:
        body = b'{"name":"x","public_key":"x"}' if path == "/v1/devices" and method == "POST" else b"{}"
        answer = served.client.request(method, path, headers=header, content=None if method == "GET" else body)
        assert answer.status_code == 401, (method, path, answer.text)
        assert answer.json()["server_time"] == served.clock()


def test_a_device_cannot_act_as_a_person_nor_a_person_as_a_device(served: Served) -> None:
    for answer in (
        served.client.get("/v1/tasks", headers=served.device("bob")),
        served.client.post("/v1/checkin", json={}, headers=served.people()),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_roles_reach_what_they_may(served: Served) -> None:
    viewer = served.coordinator.identities.issue("viewer", served.clock())
    assert served.client.get("/v1/tasks", headers=served.people(viewer)).status_code == 200
    answer = served.client.post("/v1/blobs", content=b"x", headers=served.people(viewer))
    assert answer.status_code == 403
    assert "viewer" in answer.json()["problem"]


def test_an_expired_token_is_refused(served: Served) -> None:
    token = served.coordinator.identities.issue("viewer", served.clock(), expires=served.clock() + 10)
    served.clock.advance(11)
    answer = served.client.get("/v1/tasks", headers=served.people(token))
    assert answer.status_code == 401
    assert "expired" in answer.json()["problem"]


def test_an_unknown_task_names_those_there_are(served: Served) -> None:
    served.publish(spec())
    answer = served.client.get("/v1/tasks/plane-1/status", headers=served.people())
    assert answer.status_code == 404
    assert "plain-1" in answer.json()["fix"]


def test_names_that_clash(served: Served) -> None:
    served.publish(spec())
    content = msgspec.json.encode(spec(seed=7, initial=served.coordinator.tasks["plain-1"].state.spec.initial))
    answer = served.client.post("/v1/tasks", content=content, headers=served.people())
    assert answer.status_code == 409
    served.device("bob")
    answer = served.enrol("bob", device_key("another bob"))
    assert answer.status_code == 409
    assert "'bob'" in answer.json()["problem"]


def test_a_task_without_its_bytes_is_refused(served: Served) -> None:
    content = msgspec.json.encode(spec(initial="0" * 64))
    answer = served.client.post("/v1/tasks", content=content, headers=served.people())
    assert answer.status_code == 404


def test_a_task_whose_first_version_has_other_arrays_is_refused(served: Served) -> None:
    start = {name: array for name, array in START.items() if name != "b"}
    initial = served.client.post("/v1/blobs", content=encode(start), headers=served.people()).json()["digest"]
    content = msgspec.json.encode(spec(initial=initial))
    answer = served.client.post("/v1/tasks", content=content, headers=served.people())
    assert answer.status_code == 422
    assert "'b'" in answer.json()["problem"]


def test_an_unknown_aggregator_is_refused(served: Served) -> None:
    document = json.loads(msgspec.json.encode(spec()))
    document["aggregator"] = {"name": "meen"}
    answer = served.client.post("/v1/tasks", json=document, headers=served.people())
    assert answer.status_code == 400
    assert "'mean'" in answer.json()["fix"]


def test_an_old_client_is_told_to_upgrade(served: Served) -> None:
    answer = served.client.post("/v1/checkin", json={"protocol": 0}, headers=served.device("bob"))
    assert answer.status_code == 426
    assert "upgrade Shoal on the device" in answer.json()["fix"]


def test_updates_are_never_handed_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.server.routes_devices.INLINE_BYTES", 1)
    assignment = opened(served)
    receipt = served.report("bob", assignment, report_body(delta(1.0))).json()
    answer = served.client.get(f"/v1/blobs/{receipt['digest']}", headers=served.people())
    assert answer.status_code == 404


def test_a_refused_large_update_leaves_no_bytes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.server.routes_devices.INLINE_BYTES", 1)
    body = report_body(changed(w=np.full((2, 3), 9.0, np.float32)))
    assert served.report("bob", opened(served), body).status_code == 422
    digest = hashlib.sha256(encode_trees({"delta": changed(w=np.full((2, 3), 9.0, np.float32))})).hexdigest()
    with pytest.raises(Exception, match=digest):
        served.coordinator.storage.blobs.size(digest)


def test_an_unknown_route_is_a_typed_error(served: Served) -> None:
    answer = served.client.get("/v2/nothing")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_the_openapi_document_describes_every_message(served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    assert {"TaskSpec", "CheckInReply", "ReportHead", "ErrorMessage"} <= document["components"]["schemas"].keys()
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in document["components"]["schemas"]


def test_healthz_needs_no_token(served: Served) -> None:
    assert served.client.get("/healthz").json()["status"] == "ok"


@pytest.mark.parametrize("body", [b"[" * (1 << 19), b'{"training":' + b"[" * (1 << 19), b"\xff\xfe", b"", b"null"])
def test_a_message_that_cannot_be_read_is_a_bad_request(served: Served, body: bytes) -> None:
    answer = served.client.post("/v1/checkin", content=body, headers=served.device("bob"))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "text", [b"[" * (1 << 20), b'{"a":' * 20_000, b'{"a":{"dtype":"\\ud800","shape":[],"data_offsets":[0,0]}}']
)
def test_a_header_that_is_meant_to_break_the_reader_does_not(served: Served, text: bytes) -> None:
    data = len(text).to_bytes(8, "little") + text
    places = {name: ArraySpec((1 << 18,), "float32") for name in ("w", "b")}
    served.publish(spec(arrays=places), {name: np.zeros(1 << 18, np.float32) for name in places})
    given = served.check_in("bob").assignment
    assert given is not None
    answer = served.report("bob", given.id, frame(ReportHead(hashlib.sha256(data).hexdigest(), len(data), 65536), data))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_a_query_that_is_no_number_is_a_bad_request(served: Served) -> None:
    served.publish(spec())
    answer = served.client.get("/v1/tasks/plain-1/versions?after=last", headers=served.people())
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "'after' is 'last'" in answer.json()["problem"]


def test_an_old_client_is_known_by_its_header_or_its_message_whatever_else_it_says(served: Served) -> None:
    for body, header in (({"protocol": 0, "training": 7}, {}), ({}, {"Shoal-Protocol": "2"})):
        answer = served.client.post("/v1/checkin", json=body, headers={**served.device("bob"), **header})
        assert (answer.status_code, answer.json()["code"]) == (426, "wrong_protocol")
    answer = served.client.get("/v1/tasks", headers={**served.people(), "Shoal-Protocol": "old"})
    assert answer.status_code == 426
    other = {"name": "old", "public_key": 3, "protocol": 0}
    signed = {SIGNER: "old", **served.people(served.enrolment)}
    assert served.client.post("/v1/devices", json=other, headers=signed).status_code == 426


def test_what_one_device_sends_wrongly_takes_nothing_from_the_others(served: Served) -> None:
    task = served.publish(spec(goal=2))
    given = {name: served.check_in(name).assignment for name in ("bob", "alice")}
    bob, alice = given["bob"], given["alice"]
    assert bob is not None
    assert alice is not None
    good = served.report("alice", alice.id, report_body(delta(3.0))).json()
    for body in (b"", b"\0" * 100, report_body(delta(1.0))[:-3], frame(ReportHead("0" * 64, 3, 65536), b"abc")):
        assert 400 <= served.report("bob", bob.id, body).status_code < 500
        assert served.report("alice", bob.id, report_body(delta(1.0))).status_code == 410
    assert served.report("alice", alice.id, report_body(delta(3.0))).json() == good
    assert served.report("bob", bob.id, report_body(delta(1.0))).status_code == 200
    [version] = served.versions(task.id, after=0).versions
    assert version.reports == 2


def test_what_stays_on_a_device_is_refused_when_it_comes(served: Served) -> None:
    own = {"own": ArraySpec((2,), "float32", Role.LOCAL)}
    served.publish(spec(goal=2, arrays={**ARRAYS, **own}))
    sent = served.check_in("bob").assignment.id
    answer = served.report("bob", sent, report_body({**delta(1.0), "own": np.zeros(2, np.float32)}))
    assert (answer.status_code, answer.json()["code"]) == (422, "refused_update")
    assert "own" in answer.json()["problem"]
    kept = served.check_in("ann").assignment.id
    assert served.report("ann", kept, report_body(delta(1.0))).status_code == 200
