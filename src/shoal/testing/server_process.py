"""A real `shoal server`, to be killed and started again on the same home and port."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import httpx

from shoal.store.failpoints import CLOCK, VARIABLE
from shoal.testing.nursery import Child, Nursery

SERVE_SECONDS = 60.0
"""How long a coordinator may take from its start until it serves, on a busy machine."""

STOP_SECONDS = 30.0

SERVER = ("-m", "shoal")


class ServerProcess:
    """A coordinator of its own on the loopback; `log` takes what it says, of all its lives.

    The tokens are those that its first life announced. `options` are further ones of `shoal server`; `program` is what
    Python runs instead of `shoal`. `database` is the URL of one elsewhere than in the home; it reaches the process by
    its environment. With a `nursery` it is forked there, which spares it the imports.
    """

    def __init__(
        self,
        home: Path,
        log: Path,
        *options: str,
        program: Sequence[str] = SERVER,
        database: str = "",
        port: int = 0,
        nursery: Nursery | None = None,
    ) -> None:
        self.home = home
        self.database = database
        self.admin_token = ""
        self.enrolment_token = ""
        self.port = port or _free_port()
        self._program = program
        self._log = log
        self._options = options
        self.nursery = nursery
        self._process: subprocess.Popen[bytes] | Child | None = None
        self._said: BinaryIO | None = None

    @property
    def url(self) -> str:
        """Where it listens, in every life."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the process in its present life."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.kill()

    def start(self, failpoint: str = "", *, ahead: float = 0.0, quiet: bool = False) -> float | None:
        """Start it and return the seconds until it served; None when it died before, as `failpoint` may have it.

        Its clock is so many seconds `ahead`. What it says is lost when it is `quiet`.
        """
        started = time.monotonic()
        self.launch(failpoint, ahead=ahead, quiet=quiet)
        return time.monotonic() - started if self.serves() else None

    def launch(self, failpoint: str = "", *, ahead: float = 0.0, quiet: bool = False) -> None:
        """Start it and wait for nothing."""
        self.kill()
        arguments = ["server", "--home", str(self.home), "--port", str(self.port), *self._options, "--json"]
        environment = {VARIABLE: failpoint, CLOCK: str(ahead), "SHOAL_DATABASE": self.database}
        reading, writing = os.pipe()
        self._said = open(reading, "rb")  # noqa: SIM115  (closed with the process)
        with open(writing, "wb") as stdout, Path(os.devnull if quiet else self._log).open("ab") as log:
            self._process = self._born(arguments, environment, stdout.fileno(), log.fileno())

    def _born(
        self, arguments: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int
    ) -> subprocess.Popen[bytes] | Child:
        if self.nursery is not None:
            return self.nursery.start(arguments, environment, stdout, stderr)
        return subprocess.Popen(  # noqa: S603  (our own program)
            [sys.executable, *self._program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **environment},
        )

    def serves(self) -> bool:
        """Wait until it serves; False when it ended before."""
        process = self._process
        assert process is not None
        assert self._said is not None
        line = self._said.readline()
        if not line:
            return False
        announced = json.loads(line)
        self.admin_token = announced["admin_token"] or self.admin_token
        self.enrolment_token = announced["enrolment_token"] or self.enrolment_token
        try:
            # it listens when it announces itself, so this waits for the answer and not in a loop
            return httpx.get(f"{self.url}/healthz", timeout=SERVE_SECONDS).is_success
        except httpx.TransportError:
            if process.poll() is None:
                process.wait(STOP_SECONDS)
            return False

    def ended(self, seconds: float) -> int | None:
        """Wait for its end and return the exit code, negative for a signal; None when it lives on after `seconds`."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM, as a person would."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(number)
            self._process.wait(STOP_SECONDS)
            self._process = None
        if self._said is not None:
            self._said.close()
            self._said = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
