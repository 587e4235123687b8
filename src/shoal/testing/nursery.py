"""A process that has imported the coordinator, and forks one for each of its lives: many for the price of one start.

    with Nursery() as nursery:
        child = nursery.start(["server", "--home", "/tmp/home"], environment={}, stdout=1, stderr=2)
        child.send_signal(signal.SIGKILL)
        child.wait(10)

A forked coordinator is a process of its own like any other, with its own file descriptors, threads and event loop; only
what it has imported was imported before. The two sides speak over a Unix socket: a message of JSON and two descriptors
to the nursery, `[pid, exit code or null]` back, when a child is born and when it ends.
"""

import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NoReturn, Self

MESSAGE = 64 << 10
END_SECONDS = 30.0


class Child:
    """A process that a nursery forked; what it offers is a part of what subprocess.Popen does."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery = nursery
        self.pid = pid

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal, or None while it lives."""
        return self._nursery.code(self.pid, 0.0)

    def wait(self, timeout: float) -> int:
        """Return its exit code. Raises subprocess.TimeoutExpired."""
        code = self._nursery.code(self.pid, timeout)
        if code is None:
            raise subprocess.TimeoutExpired("shoal", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Nursery:
    """The side of it that starts children. Belongs to one thread."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  (our own program)
                [sys.executable, "-m", "shoal.testing.nursery", str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self._codes: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._socket.close()  # it ends when nobody can ask for more
        self._process.wait(END_SECONDS)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int) -> Child:
        """Fork a process that carries out a command of `shoal`, with these descriptors and variables set."""
        message = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
        socket.send_fds(self._socket, [message], [stdout, stderr])
        while True:
            pid, code = self._heard(END_SECONDS)
            if code is None:
                return Child(self, pid)

    def code(self, pid: int, seconds: float) -> int | None:
        """Return the exit code of a child that has ended within so many seconds."""
        end = time.monotonic() + seconds
        while pid not in self._codes:
            try:
                self._heard(max(0.0, end - time.monotonic()))
            except TimeoutError:
                return None
        return self._codes[pid]

    def _heard(self, seconds: float) -> tuple[int, int | None]:
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(MESSAGE)
        except BlockingIOError as error:
            raise TimeoutError from error
        if not data:
            raise ChildProcessError("the nursery has ended")
        pid, code = json.loads(data)
        if code is not None:
            self._codes[pid] = code
        return pid, code


def _serve(line: socket.socket) -> None:
    """Fork what is asked for and tell what became of it, until the other side is gone."""
    waiting = selectors.DefaultSelector()
    waiting.register(line, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is line:
                data, descriptors, _, _ = socket.recv_fds(line, MESSAGE, 2)
                if not data:
                    return
                pid = _fork(line, json.loads(data), *descriptors)
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                line.send(json.dumps([pid, None]).encode())
            else:
                descriptor = key.fd
                waiting.unregister(descriptor)
                os.close(descriptor)
                _, status = os.waitpid(key.data, 0)
                line.send(json.dumps([key.data, os.waitstatus_to_exitcode(status)]).encode())


def _fork(line: socket.socket, asked: Mapping[str, object], stdout: int, stderr: int) -> int:
    pid = os.fork()
    if pid == 0:
        line.close()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        _live(asked)
    os.close(stdout)
    os.close(stderr)
    return pid


def _live(asked: Mapping[str, object]) -> NoReturn:
    from shoal.cli.main import main

    os.setpgid(0, 0)  # an interrupt at the terminal is for whoever started the nursery
    match asked:
        case {"arguments": list() as arguments, "environment": dict() as environment}:
            os.environ.update(environment)
            sys.argv = ["shoal", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Be a nursery on the socket whose descriptor is the first argument."""
    # what `shoal server` imports when it starts
    import uvicorn.loops.auto
    import uvicorn.protocols.http.auto  # noqa: F401

    import shoal.cli.logs
    import shoal.cli.main
    import shoal.server.serve  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
