"""A real agent's large report over real sockets: what is cut is not sent again, not even to the next process."""

import hashlib
from pathlib import Path

import httpx
import numpy as np
import pytest

from shoal.core.errors import Unreachable
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.core.tree import digest, encode
from shoal.store.failpoints import EXIT_CODE
from shoal.testing.server_process import ServerProcess
from shoal.wire.codec import encode_trees, frame
from shoal.wire.http import Connection, SocketTransport, Traffic
from shoal.wire.messages import BlobReply, ReportHead, TaskStatus, VersionsReply
from shoal.wire.parts import Parts, send_report
from shoal.wire.source import FileSource
from tests.server.test_streaming import assigned, enrolled

ELEMENTS = 1 << 20
PART = 1 << 20
PARTS = Parts(size=PART)


class Cutting(httpx.BaseTransport):
    """Breaks the connection in the middle of the bodies of some PATCHes, counted from 1."""

    def __init__(self, cut: set[int]) -> None:
        self.traffic = Traffic()
        self._inner = SocketTransport(self.traffic)
        self._cut = cut
        self._parts = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._parts += request.method == "PATCH"
        if request.method == "PATCH" and self._parts in self._cut:
            data = request.read()

            def half():
                yield data[: len(data) // 2]
                raise httpx.WriteError("cut on purpose", request=request)

            request = httpx.Request(request.method, request.url, headers=request.headers, content=half())
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.processes
def test_a_cut_line_and_a_killed_coordinator_cost_no_byte_twice(tmp_path: Path):
    initial = {"w": np.arange(ELEMENTS, dtype=np.float32)}
    spec = TaskSpec("large", {"w": ArraySpec((ELEMENTS,), "float32")}, 1, RoundPlan(1), initial=digest(initial))
    arrays = encode_trees({"delta": {"w": np.ones(ELEMENTS, np.float32)}})
    report = tmp_path / "report"
    report.write_bytes(frame(ReportHead(hashlib.sha256(arrays).hexdigest(), len(arrays), 1 << 16), arrays))
    line = Cutting({2})
    with ServerProcess(tmp_path / "home", tmp_path / "log") as server:
        server.start()
        with Connection(server.url, server.admin_token) as person, enrolled(server, "bob") as bob:
            person.upload("/v1/blobs", encode(initial), BlobReply)
            person.call("POST", "/v1/tasks", spec, TaskStatus)
            bob._client = httpx.Client(base_url=server.url, headers=bob._client.headers, transport=line)
            assignment = assigned(bob).id
            server.kill()
            server.start("after_part:3")
            with pytest.raises(Unreachable):
                send_report(bob, assignment, FileSource(report), PARTS)
            assert server.ended(30.0) == EXIT_CODE
            before = line.traffic.bytes_up
            server.start()
            receipt = send_report(bob, assignment, FileSource(report), PARTS)
            assert receipt.digest == hashlib.sha256(arrays).hexdigest()
            # three parts were durable when the process died, and maybe the half of the one that was cut
            assert 0 < line.traffic.bytes_up - before < len(arrays) - 3 * PART + 8000
            # the half that was on its way when the line broke may be taken up after the device asked where it stands,
            # and then the next part finds the upload elsewhere
            assert line.traffic.bytes_up < len(arrays) + PART // 2 + PART + 16_000
            path = "/v1/tasks/large/versions?after=0&wait=30"
            (version,) = person.call("GET", path, None, VersionsReply, wait=30.0).versions
            assert version.digest == digest({"w": initial["w"] + 1})
    assert list((tmp_path / "home" / "uploads").iterdir()) == []
    line.close()
