"""A line to a worker: whole messages there and back, in order, until it breaks."""

from collections.abc import Callable
from typing import Protocol


class Broken(Exception):
    """The line is gone; what was sent last may or may not have arrived."""


class Channel(Protocol):
    """One connection. What comes in goes to the `hear` that it was made with; `hear(None)` is its end."""

    def send(self, data: bytes) -> None:
        """Send a message. Raises Broken."""
        ...

    def close(self) -> None:
        """Close the line."""
        ...


Hear = Callable[[bytes | None], None]
Dial = Callable[[Hear], Channel]
"""Opens a line. Raises Broken where there is none to be had now."""
