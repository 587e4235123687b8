"""A tensor in pieces: memory is taken once, when it is announced, and each piece is copied to its place."""

from typing import Any, Protocol

import torch

from shoal.core.errors import BadRequest
from shoal.remote.arguments import expected
from shoal.remote.frames import DTYPES


class Announced(Protocol):
    """What says that a tensor will come."""

    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> list[int]: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102


class Arriving:
    """A tensor of which some bytes are here."""

    def __init__(self, announced: Announced, *, ident: int = 0, keep: bool = True) -> None:
        if announced.size != expected(announced.dtype, announced.shape):
            raise BadRequest(
                f"{announced.size} bytes for a tensor {announced.dtype}{announced.shape}",
                "send what the shape asks for",
            )
        self.ident = ident
        self._size = announced.size
        self._here = 0
        self.tensor = torch.empty(announced.shape, dtype=DTYPES[announced.dtype]) if keep else None
        self._memory = None if self.tensor is None or not self._size else _memory(self.tensor)

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        return self._here >= self._size

    def add(self, data: bytes | memoryview) -> None:
        """Take the next piece. Raises BadRequest for more than was announced."""
        if self._here + len(data) > self._size or not data:
            raise BadRequest(f"{self._here + len(data)} bytes of a tensor of {self._size}", "send what was announced")
        if self._memory is not None:
            self._memory[self._here : self._here + len(data)] = data
        self._here += len(data)


def raw(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor, row by row."""
    return _octets(tensor.detach().contiguous()).numpy().tobytes() if tensor.numel() else b""


def _octets(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _memory(tensor: torch.Tensor) -> memoryview:
    octets: Any = _octets(tensor).numpy()
    return memoryview(octets)
