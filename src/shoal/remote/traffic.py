"""What crossed the line between a client and a worker, as counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counts since the session began; `waits` are the times that the client stood still for an answer."""

    operators: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    waits: int = 0
    reconnections: int = 0
    seconds: float = 0.0
    """Time on the line: computed for a virtual worker with latency or bandwidth, else measured while waiting."""
