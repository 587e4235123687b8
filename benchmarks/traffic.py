"""A coordinator in a process of its own, and devices that call it over connections that stay open.

The devices are bytes on sockets: what they cost is not the coordinator's, whose CPU seconds are read from /proc.
"""

import asyncio
import base64
import contextlib
import re
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import numpy as np
from processes import processes

from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.core.tree import Tree
from shoal.core.tree import encode as encode_tree
from shoal.testing.server_process import ServerProcess
from shoal.wire.messages import CheckInRequest, EnrolReply, EnrolRequest, encode

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
FILES = 12_000
"""Open files that ten thousand connections need, on either side."""


@dataclass(frozen=True)
class Caller:
    """One enrolled device: what it writes in front of every call."""

    name: str
    secret: str

    def call(self, method: str, path: str, body: bytes) -> bytes:
        """Return a whole request."""
        head = f"{method} {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {self.secret}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def check_in(self, task: str, wait: float = 0.0) -> bytes:
        """Return the request with which it offers to work."""
        return self.call("POST", "/v1/checkin", encode(CheckInRequest(training=(task,), wait=wait)))


@contextlib.contextmanager
def coordinator() -> Iterator[ServerProcess]:
    """Start a real `shoal server` with an empty home, and end it afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder), Path(folder) / "log") as server:
        if server.start() is None:
            raise SystemExit((Path(folder) / "log").read_text())
        yield server


def cpu(server: ServerProcess) -> float:
    """Return the CPU seconds of a server so far."""
    return next(spent for pid, _, spent in processes() if pid == server.pid)


def people(server: ServerProcess) -> httpx.Client:
    """Return a connection of its administrator."""
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.admin_token}"})


def enrol(server: ServerProcess, number: int, prefix: str = "device") -> list[Caller]:
    """Enrol devices; their keys are numbers, since nothing here is signed."""
    with people(server) as line:
        callers = list[Caller]()
        for index in range(number):
            name, key = f"{prefix}-{index}", base64.b64encode(index.to_bytes(32, "big")).decode()
            answer = line.post("/v1/devices", content=encode(EnrolRequest(name, key))).raise_for_status()
            callers.append(Caller(name, msgspec.json.decode(answer.content, type=EnrolReply).secret))
        return callers


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


async def hammer(server: ServerProcess, requests: Sequence[Callable[[], bytes]], calls: int) -> float:
    """Let each connection send its request again and again; return the calls for each CPU second of the server."""
    lines = [await Line.open(server) for _ in requests]
    each = calls // len(lines)

    async def repeat(line: Line, request: Callable[[], bytes], times: int) -> None:
        for _ in range(times):
            await line.call(request())

    async def everybody(times: int) -> None:
        await asyncio.gather(*(repeat(line, request, times) for line, request in zip(lines, requests, strict=True)))

    await everybody(max(1, each // 20))  # what is only done once is done by now
    before = cpu(server)
    await everybody(each)
    spent = cpu(server) - before
    for line in lines:
        line.close()
    return each * len(lines) / spent
