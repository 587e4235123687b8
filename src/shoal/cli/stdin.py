"""Standard input as a lifeline: a process that was started by another ends when the other one does."""

import os
import signal
import threading


def first_line() -> str:
    """Return the first line; empty when the input closes before one."""
    received = b""
    while not received.endswith(b"\n"):
        # byte by byte: what follows the line is not ours
        piece = os.read(0, 1)
        if not piece:
            return ""
        received += piece
    return received.decode().rstrip("\n")


def stop_when_closed() -> None:
    """Send this process SIGTERM once its standard input closes."""
    threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    while os.read(0, 1 << 12):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
