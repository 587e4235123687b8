"""Large bodies pass through the real coordinator without lying in its memory."""

import hashlib
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from shoal.core.receipt import Receipt
from shoal.core.task import ArraySpec, RoundPlan, TaskSpec
from shoal.core.tree import digest, encode
from shoal.core.types import Assignment
from shoal.testing.server_process import ServerProcess
from shoal.wire.codec import encode_trees, frame
from shoal.wire.http import Connection
from shoal.wire.messages import (
    BlobReply,
    CheckInReply,
    CheckInRequest,
    EnrolReply,
    EnrolRequest,
    ReportHead,
    TaskStatus,
    VersionsReply,
)
from shoal.wire.source import FileSource
from tests.server.conftest import device_key

ELEMENTS = 5 << 20
SIZE = 4 * ELEMENTS
FEW = 5 << 20
"""Bytes by which 20 MB that pass through may make the coordinator grow."""

FOLDING = 12 << 20
"""The same for the last update of a round, with which its version is made."""


class Growth:
    """The memory of a process, in steps: each answer is the peak since the one before, above what was held then."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._begin()

    def _read(self, field: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))

    def _begin(self) -> None:
        (self._process / "clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def peak(self) -> int:
        grown = self._read("VmHWM") - self._before
        self._begin()
        return grown


def enrolled(server: ServerProcess, name: str) -> Connection:
    key = device_key(name)
    device = Connection(server.url, key=key)
    device.call("POST", "/v1/devices", EnrolRequest(name, key.public), EnrolReply, token=server.enrolment_token)
    return device


def assigned(device: Connection) -> Assignment:
    given = device.call("POST", "/v1/checkin", CheckInRequest(("large",)), CheckInReply).assignment
    assert given is not None
    return given


@pytest.mark.processes
def test_each_step_of_a_large_round_makes_the_coordinator_grow_by_little(tmp_path: Path):
    initial = {"w": np.arange(ELEMENTS, dtype=np.float32)}
    spec = TaskSpec("large", {"w": ArraySpec((ELEMENTS,), "float32")}, 1, RoundPlan(2), initial=digest(initial))
    arrays = encode_trees({"delta": {"w": np.ones(ELEMENTS, np.float32)}})
    head = ReportHead(hashlib.sha256(arrays).hexdigest(), len(arrays), 1 << 16)
    body = tmp_path / "report"
    body.write_bytes(frame(head, arrays))
    with ServerProcess(tmp_path / "home", tmp_path / "log") as server:
        server.start()
        with Connection(server.url, server.admin_token) as person, ExitStack() as lines:
            bob, alice = (lines.enter_context(enrolled(server, name)) for name in ("bob", "alice"))
            growth = Growth(server.pid)
            person.upload("/v1/blobs", encode(initial), BlobReply)
            assert growth.peak() < FEW
            person.call("POST", "/v1/tasks", spec, TaskStatus)
            first, second = assigned(bob), assigned(alice)
            growth.peak()
            assert sum(len(piece) for piece in bob.stream(first.version, 2 * SIZE)) > SIZE
            assert growth.peak() < FEW
            bob.upload_file(f"/v1/assignments/{first.id}/report", FileSource(body), Receipt)
            assert growth.peak() < FEW
            alice.upload_file(f"/v1/assignments/{second.id}/report", FileSource(body), Receipt)
            path = "/v1/tasks/large/versions?after=0&wait=30"
            (version,) = person.call("GET", path, None, VersionsReply, wait=30.0).versions
            assert growth.peak() < FOLDING
        assert version.digest == digest({"w": initial["w"] + 1})
