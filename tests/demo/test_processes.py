"""Children never outlive their parent, and their death is heard at once."""

import contextlib
import os
import select
import signal
import threading
import time

import pytest

from shoal.core.errors import Abandoned
from shoal.demo.processes import Children, ignoring, interruptible

pytestmark = pytest.mark.processes

SERVER = ["server", "--port", "0", "--json", "--stop-with-stdin", "--home"]


def wait_for_signal() -> None:
    threading.Event().wait(60)
    pytest.fail("nothing happened")


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has asked about."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 0)[0])
    finally:
        os.close(handle)


def test_leaving_the_block_stops_a_child(tmp_path):
    with Children() as children:
        server = children.start("server", [*SERVER, str(tmp_path / "home")], tmp_path / "log", announces=True)
        assert "admin_token" in server.first_line(60)
        assert not ended(server.process.pid)
    assert server.process.returncode == 0
    assert ended(server.process.pid)


def test_a_child_that_does_not_listen_is_killed(tmp_path):
    with Children() as children:
        server = children.start("server", [*SERVER, str(tmp_path / "home")], tmp_path / "log", announces=True)
        server.first_line(60)
        os.kill(server.process.pid, signal.SIGSTOP)
        began = time.monotonic()
    assert server.process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 5


def test_an_early_death_interrupts_whatever_waits(tmp_path):
    log = tmp_path / "bob" / "agent.log"

    def start_and_wait() -> None:
        with Children() as children:
            children.start("bob", ["fly"], log)
            wait_for_signal()

    with pytest.raises(Abandoned, match="'bob' ended early with exit code 2") as raised:
        start_and_wait()
    assert "No such command 'fly'" in raised.value.fix
    assert str(log) in raised.value.fix


def test_nothing_that_retries_catches_an_early_death(tmp_path):
    def start_and_retry() -> None:
        with Children() as children:
            children.start("bob", ["fly"], tmp_path / "log")
            with contextlib.suppress(Exception):
                wait_for_signal()
            pytest.fail("went on")

    with pytest.raises(Abandoned, match="'bob' ended early"):
        start_and_retry()


def test_a_child_without_an_announcement_is_an_error(tmp_path):
    def start_and_listen() -> None:
        with Children() as children:
            server = children.start("server", [*SERVER, str(tmp_path / "home")], tmp_path / "log", announces=True)
            server.first_line(0.0)

    with pytest.raises(Abandoned, match="'server' said nothing"):
        start_and_listen()


def test_a_child_ends_when_the_pipe_from_its_parent_closes(tmp_path):
    def start_and_let_go() -> None:
        with Children() as children:
            server = children.start("server", [*SERVER, str(tmp_path / "home")], tmp_path / "log", announces=True)
            server.first_line(60)
            assert server.process.stdin is not None
            server.process.stdin.close()
            wait_for_signal()

    with pytest.raises(Abandoned, match="ended early with exit code 0"):
        start_and_let_go()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_interrupt(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_nohup_is_respected():
    with ignoring(signal.SIGHUP), interruptible():
        os.kill(os.getpid(), signal.SIGHUP)
