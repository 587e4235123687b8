"""A stream of random numbers for each session, though torch's operators draw from one generator of the process."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_drawing = threading.Lock()


class Randomness:
    """A state of torch's generator that belongs to one session; begins at a seed that nobody knows."""

    def __init__(self) -> None:
        self.seed(secrets.randbits(53))

    def seed(self, seed: int) -> None:
        """Begin the stream that `torch.manual_seed(seed)` begins."""
        self._state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Let what runs inside draw from this stream."""
        with _drawing:
            before = torch.default_generator.get_state()
            torch.default_generator.set_state(self._state)
            try:
                yield
            finally:
                self._state = torch.default_generator.get_state()
                torch.default_generator.set_state(before)
