"""A coordinator in a process of its own, and devices that call it over connections that stay open.

The devices are bytes on sockets, each call signed with the device's own key: what they cost is not the coordinator's,
whose CPU seconds (all threads, user and system) are read from /proc.
"""

import asyncio
import contextlib
import hashlib
import re
import resource
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx
import numpy as np
from processes import TICKS, cpu_seconds

from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import Tree
from shoal.core.tree import encode as encode_tree
from shoal.testing.server_process import SERVER, ServerProcess
from shoal.wire.digests import digest_field
from shoal.wire.messages import CheckInRequest, EnrolRequest, encode
from shoal.wire.signing import Ed25519Key, sign

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
FILES = 12_000
"""Open files that ten thousand connections need, on either side."""

TOGETHER = 64
"""Devices that enrol at a time: their transactions become durable in groups."""

WARM_UP = 20
"""One call in so many is made before the count begins, so that what is only done once is done by then."""


@dataclass(frozen=True)
class Caller:
    """One enrolled device, and its key."""

    name: str
    key: Ed25519Key

    @classmethod
    def new(cls, name: str) -> "Caller":
        """Make a device with a key of its own."""
        return cls(name, Ed25519Key(Ed25519Key.generate()))

    def call(self, method: str, path: str, body: bytes, more: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """Return a whole request, signed now."""
        digest = digest_field(hashlib.sha256(body).digest())
        signed = sign(self.key, method, path, digest, time.time(), secrets.token_urlsafe(16))
        fields = {"Host": "here", "Content-Length": str(len(body)), **signed, **more}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body

    def enrol(self, token: str) -> bytes:
        """Return the request with which it joins."""
        asked = encode(EnrolRequest(self.name, self.key.public))
        return self.call("POST", "/v1/devices", asked, {"Authorization": f"Bearer {token}"})

    def check_in(self, task: str, wait: float = 0.0) -> bytes:
        """Return the request with which it offers to work."""
        return self.call("POST", "/v1/checkin", encode(CheckInRequest(training=(task,), wait=wait)))


@contextlib.contextmanager
def coordinator(program: Sequence[str] = SERVER) -> Iterator[ServerProcess]:
    """Start a real `shoal server` with an empty home, and end it afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder), Path(folder) / "log", program=program) as server,
    ):
        if server.start() is None:
            raise SystemExit((Path(folder) / "log").read_text())
        yield server


def people(server: ServerProcess) -> httpx.Client:
    """Return a connection of its administrator."""
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.admin_token}"})


def publish(server: ServerProcess, name: str, goal: int, elements: int = 1, rounds: int = 1000) -> str:
    """Publish a task with one array of float32; return its id."""
    model: Tree = {"w": np.zeros(elements, np.float32)}
    plan = RoundPlan(goal=goal, deadline=3000.0, lease=3000.0)
    bounds = Bounds(max_weight=1024.0, max_updates=1 << (goal - 1).bit_length())
    with people(server) as line:
        digest = line.post("/v1/blobs", content=encode_tree(model)).raise_for_status().json()["digest"]
        spec = TaskSpec(name, {"w": ArraySpec((elements,), "float32")}, rounds, plan, bounds=bounds, initial=digest)
        identity: str = line.post("/v1/tasks", content=encode(spec)).raise_for_status().json()["id"]
        return identity


class Line:
    """One connection that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, server: ServerProcess) -> "Line":
        host, _, port = server.url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def send(self, request: bytes) -> None:
        """Write a request, and wait for nothing."""
        self._writer.write(request)

    async def answer(self) -> bytes:
        """Return the body of the next answer, which must be a 200."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        found = LENGTH.search(head)
        body = await self._reader.readexactly(int(found[1]) if found else 0)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{head!r} {body!r}")
        return body

    async def call(self, request: bytes) -> bytes:
        """Send a request and return the body of its answer."""
        self.send(request)
        return await self.answer()

    def close(self) -> None:
        self._writer.close()


async def enrol(server: ServerProcess, number: int, prefix: str = "device") -> list[Caller]:
    """Let devices join, some of them at a time."""
    callers = [Caller.new(f"{prefix}-{index}") for index in range(number)]

    async def join(some: Sequence[Caller]) -> None:
        line = await Line.open(server)
        for caller in some:
            await line.call(caller.enrol(server.enrolment_token))
        line.close()

    await asyncio.gather(*(join(callers[start::TOGETHER]) for start in range(min(number, TOGETHER))))
    return callers


async def hammer(server: ServerProcess, requests: Sequence[Callable[[], bytes]], calls: int) -> float:
    """Let each connection send its request again and again; return the calls for each CPU second of the server."""
    lines = [await Line.open(server) for _ in requests]
    each = max(1, calls // len(lines))

    async def repeat(line: Line, request: Callable[[], bytes], times: int) -> None:
        for _ in range(times):
            await line.call(request())

    async def everybody(times: int) -> None:
        await asyncio.gather(*(repeat(line, request, times) for line, request in zip(lines, requests, strict=True)))

    await everybody(max(1, each // WARM_UP))
    before = cpu_seconds(server.pid)
    await everybody(each)
    spent = cpu_seconds(server.pid) - before
    for line in lines:
        line.close()
    return each * len(lines) / max(spent, 1 / TICKS)
