"""How much one client may take of a worker."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps of one client; each is checked before memory or time is taken."""

    frame: int = 4 << 20
    """Bytes of one message."""
    part: int = 1 << 20
    """Bytes of one piece of a large tensor."""
    objects: int = 200_000
    bytes: int = 4 << 30
    """Bytes of all tensors kept."""
    seconds: float = 24 * 3600.0
    """Processor seconds of one session."""
    clients: int = 64
    """Sessions at once, of all clients."""
    lease: float = 60.0
    """Seconds for which the tensors of a client that is gone are kept."""
    window: int = 20_000
    """Operators that may be under way: the client waits for credit beyond."""
    window_bytes: int = 32 << 20
    """The same for bytes."""
    programs: int = 1000
