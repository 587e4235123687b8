"""What befalls a coordinator beside its death: a wrong clock, a full disk, damaged bytes, a second one on its home."""

import random
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import httpx

from shoal.core.errors import Abandoned
from shoal.testing.server_process import ServerProcess

Trouble: TypeAlias = Literal["clock", "full disk", "damaged bytes", "two coordinators"]

JUMPS = (-86_400.0, -3600.0, 3600.0, 86_400.0)
"""Seconds by which a wrong clock is ahead; between two lives it jumps by up to twice as many."""

ROOM = (4096, 40_000)
"""Bytes that a file may have on a full disk: fewer than a large update and than the database take."""

OLD = 12
"""Published blobs from which on the oldest is no version that a device or a round still starts from."""


@dataclass(slots=True)
class Troubles:
    """Draws troubles, each as often as the others. `happened` counts them, `parts` the uploads that were damaged."""

    server: ServerProcess
    random: random.Random
    happened: Counter[str] = field(default_factory=Counter[str])
    parts: int = 0
    _left: list[Trouble] = field(default_factory=list[Trouble])

    def live(self, seconds: float) -> int | None:
        """Start the coordinator in some trouble, live on for a while; return its exit code if it ended by itself."""
        if not self._left:
            self._left = ["clock", "full disk", "damaged bytes", "two coordinators"]
            self.random.shuffle(self._left)
        trouble = self._left.pop()
        self.happened[trouble] += 1
        match trouble:
            case "clock":
                self.server.start(ahead=self.random.choice(JUMPS))
                return self.server.ended(seconds)
            case "full disk":
                return self._full(seconds)
            case "damaged bytes":
                return self._damaged(seconds)
            case "two coordinators":
                return self.two(seconds)

    def _full(self, seconds: float) -> int | None:
        self.server.start(quiet=True)
        room = self.random.randrange(*ROOM)
        _, most = resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (room, most))
        code = self.server.ended(seconds)
        if code is None:
            resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (most, most))
            code = self.server.ended(seconds)
        return code

    def _damaged(self, seconds: float) -> int | None:
        for part in (self.server.home / "uploads").glob("*.part"):
            if part.stat().st_size:
                _flip(part)
                self.parts += 1
        blobs = sorted((self.server.home / "blobs" / "published").glob("??/*"), key=lambda path: path.stat().st_mtime)
        if len(blobs) < OLD:
            self.server.start()
            return self.server.ended(seconds)
        with _flipped(blobs[0]):
            self.server.start()
            self._ask(blobs[0].name)
            return self.server.ended(seconds)

    def _ask(self, digest: str) -> None:
        headers = {"Authorization": f"Bearer {self.server.admin_token}"}
        answer = httpx.get(f"{self.server.url}/v1/blobs/{digest}", headers=headers, timeout=60.0)
        if answer.is_success:
            raise Abandoned(f"damaged bytes of blob {digest} were handed out", "see why they were not compared")

    def two(self, seconds: float) -> int | None:
        """Let a second coordinator lead; in PostgreSQL it stands by, on the same port, and the first one dies."""
        self.server.start()
        server, log = self.server, self.server.home.with_name("rival.log")
        if not server.database:
            with ServerProcess(server.home, log, nursery=server.nursery) as rival:
                rival.start()
                rival.ended(seconds)
            return server.ended(seconds)
        with ServerProcess(
            server.home, log, "--standby", database=server.database, port=server.port, nursery=server.nursery
        ) as rival:
            rival.launch()
            code = server.ended(seconds)
            server.kill()
            if not rival.serves():
                raise Abandoned("the coordinator that stood by did not go on", f"see {log}")
            rival.ended(seconds)
        return code


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:  # the same file: blobs may be linked
        file.write(data)


@contextmanager
def _flipped(path: Path) -> Iterator[None]:
    _flip(path)
    try:
        yield
    finally:
        _flip(path)
