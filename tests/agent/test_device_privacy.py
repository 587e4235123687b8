"""Every byte that a device sends in a day of use, and that no example is in it."""

import base64
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from shoal.wire.codec import decode_tree, head_length
from tests.agent.devices import offset_task, open_device
from tests.agent.federation import Federation

TYPES = ("<f4", ">f4", "<f8", ">f8", "<f2")


class Tap(httpx.BaseTransport):
    """Writes down whole requests: method, path, headers and body."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self.sent: list[tuple[str, str, bytes, bytes]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = b"".join(request.stream)  # type: ignore[arg-type]
        headers = b"\n".join(name + b": " + value for name, value in request.headers.raw)
        self.sent.append((request.method, str(request.url), headers, body))
        again = httpx.Request(request.method, request.url, headers=request.headers.raw, content=body)
        again.extensions = request.extensions
        return self._inner.handle_request(again)

    @property
    def everything(self) -> bytes:
        return b"\n".join(b"\n".join((f"{method} {url}".encode(), *rest)) for method, url, *rest in self.sent)


def encodings(row: np.ndarray) -> Iterator[bytes]:
    """What three neighbouring numbers of a row may look like: floats of any width and order, text, base64 of either."""
    for first in range(len(row) - 2):
        few = row[first : first + 3]
        raw = [np.asarray(few, kind).tobytes() for kind in TYPES]
        yield from raw
        for data in raw[:4]:
            # whatever stands before, base64 shows one of three texts; their ends depend on the neighbours
            for shift in range(3):
                yield base64.b64encode(b"\0" * shift + data)[4:-4]
    for value in row:
        yield f"{value:.5f}".encode()
        yield json.dumps(float(value)).encode()


def shown(example: np.ndarray, sent: bytes) -> list[bytes]:
    return [found for found in encodings(example) if found in sent]


@pytest.mark.slow
def test_no_example_is_in_what_a_device_sends(federation: Federation):
    rng = np.random.default_rng(7)
    x = (rng.standard_normal((120, 3)) * 3 + 1.23456).astype(np.float32)
    y = (x @ np.float32([1, -2, 3])).astype(np.float32)
    task, inner = offset_task(), federation.transport
    run = federation.researcher.publish(task, rounds=6, goal=1, plan=False)
    tap = Tap(inner)
    federation.transport = tap  # type: ignore[assignment]
    with open_device(federation, "ann", task) as device:
        for hour in range(24):
            device.observe(x[5 * hour : 5 * hour + 5], y[5 * hour : 5 * hour + 5])
            device.predict(x[hour])
            if hour % 4 == 3:
                device.personalise()
                assert device.sync()
                assert any(version.number == (hour + 1) // 4 for version in run.follow())
        device.status()
        device.leave()
    federation.transport = inner

    examples = np.concatenate([x, y[:, None]], axis=1)
    assert [shown(example, tap.everything) for example in examples if shown(example, tap.everything)] == []
    for example in examples[:3]:  # the search finds what is there
        for kind in TYPES:
            assert shown(example, b"..." + example.astype(kind).tobytes())
        assert shown(example, json.dumps(example.tolist()).encode())
        assert shown(example, base64.b64encode(b"ab" + example.tobytes()))

    reports = [body for _, url, _, body in tap.sent if url.endswith("/report")]
    assert len(reports) == 6
    for body in reports:
        length = head_length(body)
        head = json.loads(body[4 : 4 + length])
        assert head.keys() == {"digest", "size", "weight", "metrics", "costs", "origin", "uploaded"}
        assert (head["metrics"].keys(), head["origin"]) == ({"loss"}, None)
        assert set(decode_tree(body[4 + length :])) == {"delta/a", "delta/b"}
    others = {httpx.URL(url).path: len(body) for _, url, _, body in tap.sent if body and not url.endswith("/report")}
    assert others.keys() == {"/v1/devices", "/v1/checkin"}
    assert max(others.values()) < 512  # a name, a key, the names of tasks
