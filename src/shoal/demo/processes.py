"""Child processes that never outlive the one that started them.

Each child leads its own session, so that a Ctrl-C in the terminal reaches only the parent, which then stops them all.
The parent holds one end of each child's standard input: if the parent dies, however suddenly, that pipe closes, and
a child started with `--stop-with-stdin` ends by itself.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

from shoal.core.errors import Abandoned

GRACE_SECONDS = 1.0
"""How long a child may take to end after SIGTERM before it is killed."""

TAIL_LINES = 8


@dataclass(frozen=True, slots=True)
class Child:
    """One running process, and the file that it logs to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def send(self, line: str) -> None:
        """Write one line to its standard input. Raises Abandoned when it has ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self.failure("ended early") from error

    def first_line(self, seconds: float) -> str:
        """Return the first line that it prints, of a child started with `announces`. Raises Abandoned."""
        assert self.process.stdout is not None
        descriptor, received, until = self.process.stdout.fileno(), b"", time.monotonic() + seconds
        while b"\n" not in received:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(descriptor, 1 << 16) if ready else b""
            if not piece:
                raise self.failure("said nothing" if not ready else "ended without a word")
            received += piece
        return received.partition(b"\n")[0].decode()

    def failure(self, what: str) -> Abandoned:
        """Return the error that says what went wrong, with the end of its log."""
        return Abandoned(f"the process {self.name!r} {what}", f"see the end of {self.log}:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (it is empty)"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process group, if it still runs."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def reap(self, until: float) -> None:
        """Wait for its end until a moment of the monotonic clock; kill it then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, until - time.monotonic()))
        self.signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class _ChildDied(BaseException):
    """Ends the block of `Children` from wherever its code is; like KeyboardInterrupt, no retry catches it."""

    def __init__(self, failure: Abandoned) -> None:
        super().__init__(failure)
        self.failure = failure


class Children:
    """The processes of one run; leaving the `with` block stops them all.

    When a child ends while the block runs, the block ends at once, whatever it waits for, and raises Abandoned.
    """

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._before: Any = signal.SIG_DFL

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGCHLD, self._on_death)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with ignoring(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signal.SIGCHLD, self._before)
            self._stop()
        if isinstance(error, _ChildDied):
            raise error.failure from None

    def start(self, name: str, arguments: Sequence[str], log: Path, *, announces: bool = False) -> Child:
        """Start `python -m shoal ARGUMENTS`. What it prints goes to its log; with `announces`, to `first_line`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603  (our own program)
                [sys.executable, "-m", "shoal", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if announces else file,
                stderr=file,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        self._check()  # its death may have been told before it was on the list
        return child

    def _on_death(self, _number: int, _frame: FrameType | None) -> None:
        self._check()

    def _check(self) -> None:
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise _ChildDied(child.failure(f"ended early with exit code {code}"))

    def _stop(self) -> None:
        for child in self._children:
            child.signal(signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        for child in self._children:
            child.reap(until)


@contextlib.contextmanager
def ignoring(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore signals for the time of a block, so that cleaning up is not cut short."""
    with _handled(signal.SIG_IGN, numbers):
        yield


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and the loss of the terminal end a block like Ctrl-C does, by KeyboardInterrupt."""
    ends = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asks to go on
        ends.append(signal.SIGHUP)
    with _handled(signal.default_int_handler, ends):
        yield


@contextlib.contextmanager
def _handled(handler: Callable[..., Any] | signal.Handlers, numbers: Sequence[signal.Signals]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
