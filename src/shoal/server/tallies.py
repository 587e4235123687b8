"""What became of each device's parts in rounds, counted since the coordinator started."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from shoal.core.origin import Origin
from shoal.rounds.effects import Accept, Assign, Effect
from shoal.rounds.events import Event, Rejected, Reported
from shoal.wire.messages import DeviceStatus


@dataclass(slots=True)
class Tally:
    """One device: how many parts it got, how many of its updates count or were refused, bytes, and its runtime."""

    assigned: int = 0
    accepted: int = 0
    refused: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Tallies:
    """The tally of each device, by name."""

    devices: dict[str, Tally] = field(default_factory=dict[str, Tally])

    def of(self, device: str) -> Tally:
        """Return a device's tally."""
        return self.devices.setdefault(device, Tally())

    def know(self, owners: Mapping[str, Origin]) -> None:
        """Take note of what devices said of themselves."""
        for device, origin in owners.items():
            self.of(device).runtime = runtime(origin)

    def happened(self, event: Event, effects: Sequence[Effect], changed: bool) -> None:
        """Count an event that is durable, by what it led to, if it changed anything."""
        if not changed:
            return
        if isinstance(event, Rejected):
            self.of(event.device).refused += 1
        for effect in effects:
            if isinstance(effect, Assign):
                self.of(effect.assignment.device).assigned += 1
            elif isinstance(effect, Accept) and isinstance(event, Reported):
                self._accepted(event)

    def _accepted(self, event: Reported) -> None:
        tally = self.of(event.device)
        tally.accepted += 1
        tally.bytes_up += event.costs.bytes_up
        tally.bytes_down += event.costs.bytes_down
        if event.origin is not None:
            tally.runtime = runtime(event.origin)

    def told(self, status: DeviceStatus) -> DeviceStatus:
        """Return a device's status with its tally."""
        tally = self.devices.get(status.name)
        return status if tally is None else replace(status, **asdict(tally))


def runtime(origin: Origin) -> str:
    """Return what a device trains with, in a few words."""
    found = origin.environment
    torch = f"torch {found.torch}" if found.torch else ""
    return ", ".join(part for part in (origin.trainer, torch, found.platform) if part)
