"""Devices' parts in a round: who holds one, how many are at work, and whose time runs out first."""

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shoal.core.receipt import Receipt
from shoal.core.types import Assignment, Costs
from shoal.core.value import value


class LeaseState(StrEnum):
    """Where one device's part in a round stands. LATE: its round closed before it reported."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    EXPIRED = "expired"
    RELEASED = "released"
    REJECTED = "rejected"
    LATE = "late"

    @property
    def outstanding(self) -> bool:
        """Whether an update may still come while the round is open."""
        return self in (LeaseState.OFFERED, LeaseState.EXPIRED)


@value
class Lease:
    """One device's part in a round."""

    assignment: Assignment
    state: LeaseState
    expires: float
    reason: str = ""


@value
class Counted:
    """An accepted update: `weight` as it enters the sum, `full` as the device gave it."""

    assignment: str
    device: str
    digest: str
    size: int
    weight: int
    full: int
    accepted_at: float
    round: int
    version: str
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    costs: Costs = Costs()

    @property
    def receipt(self) -> Receipt:
        """What its device gets for it."""
        return Receipt(self.assignment, self.digest, self.accepted_at)


@dataclass
class Roster:
    """The leases by device. Counting those at work and finding the next that ends does not look at all of them."""

    held: dict[str, Lease] = field(default_factory=dict[str, Lease])

    def __post_init__(self) -> None:
        # No fields: they follow from the leases, so they are neither compared nor stored.
        self._offered = 0
        self._due: list[tuple[float, str]] = []
        held, self.held = self.held, {}
        for device, lease in held.items():
            self.put(device, lease)

    @property
    def offered(self) -> int:
        """How many devices are at work."""
        return self._offered

    def get(self, device: str) -> Lease | None:
        """Return a device's lease, or None."""
        return self.held.get(device)

    def put(self, device: str, lease: Lease) -> None:
        """Give a device a lease, or replace the one it has."""
        former = self.held.get(device)
        if former is not None and former.state is LeaseState.OFFERED:
            self._offered -= 1
        self.held[device] = lease
        if lease.state is LeaseState.OFFERED:
            self._offered += 1
            heapq.heappush(self._due, (lease.expires, device))

    def mark(self, device: str, state: LeaseState, reason: str = "") -> None:
        """Change where a device's lease stands."""
        held = self.held[device]
        self.put(device, Lease(held.assignment, state, held.expires, reason))

    def remove(self, device: str) -> None:
        """Forget a device's lease."""
        if self.held.pop(device).state is LeaseState.OFFERED:
            self._offered -= 1

    def clear(self) -> None:
        """Forget all leases."""
        self.held, self._offered, self._due = {}, 0, []

    def postpone(self, seconds: float) -> None:
        """Give everybody at work more time."""
        for device, lease in list(self.held.items()):
            if lease.state is LeaseState.OFFERED:
                self.put(device, Lease(lease.assignment, lease.state, lease.expires + seconds, lease.reason))

    def next_expiry(self) -> float:
        """Return when the next lease of a device at work ends; infinity when nobody is."""
        while self._due and self._stale(*self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else math.inf

    def ended(self, now: float) -> Iterator[str]:
        """Yield the devices at work whose lease has ended; each must be marked before the next is asked for."""
        while self.next_expiry() <= now:
            yield self._due[0][1]

    def _stale(self, expires: float, device: str) -> bool:
        lease = self.held.get(device)
        return lease is None or lease.state is not LeaseState.OFFERED or lease.expires != expires
