"""Devices that ask to join without a token, and wait until a person says yes or no."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from shoal.core.errors import Conflict, Forbidden, NotFound, Pending, RequestError, Unauthorised, Unavailable
from shoal.store.store import DeviceRecord

MOST = 1000
"""Devices that wait at the same time."""

PATIENCE_SECONDS = 3600.0
"""For how long a device that does not ask again is remembered."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A device that asked: who it would be, when it asked last, and whether it was refused."""

    device: DeviceRecord
    asked: float
    refused: bool = False


class Newcomers:
    """Who waits for approval: in memory only, so that strangers fill no disk. Without `welcome`, nobody does."""

    def __init__(self, welcome: bool) -> None:
        self.welcome = welcome
        self._waiting: dict[str, Newcomer] = {}

    def ask(self, device: DeviceRecord) -> RequestError:
        """Note that a device asks to join, and return what it is told."""
        if not self.welcome:
            return Unauthorised(
                f"device {device.name!r} gave no enrolment token",
                "give one, or let the coordinator be started with --approval and a person approve the device",
            )
        self._forget(device.enrolled)
        known = self._waiting.get(device.name)
        if known is None and len(self._waiting) >= MOST:
            return Unavailable(f"{MOST} devices wait for approval", "wait until some of them are approved or refused")
        if known is not None and known.device.id != device.id and not known.refused:
            return Conflict(f"another device waits as {device.name!r}", "choose another name")
        if known is not None and known.refused and known.device.id == device.id:
            self._waiting[device.name] = replace(known, asked=device.enrolled)
            return Forbidden(f"device {device.name!r} was refused by the coordinator's people", "ask them why")
        self._waiting[device.name] = Newcomer(device, device.enrolled)
        return Pending(
            f"device {device.name!r} with the key {device.id} waits for approval",
            f"let an administrator compare the key and type: shoal devices approve {device.name}",
        )

    def find(self, name: str) -> DeviceRecord:
        """Return the device that waits under a name. Raises NotFound."""
        if name not in self._waiting:
            raise NotFound(f"no device {name!r} waits for approval", "list the devices for those that do")
        return self._waiting[name].device

    def let_in(self, name: str) -> None:
        """Forget a device that is enrolled now."""
        self._waiting.pop(name, None)

    def refuse(self, name: str) -> None:
        """Turn a device away, until it has not asked for an hour. Raises NotFound."""
        self._waiting[name] = replace(self._waiting[self.find(name).name], refused=True)

    def waiting(self) -> Iterator[Newcomer]:
        """Yield those who asked, the first one first."""
        yield from self._waiting.values()

    def _forget(self, now: float) -> None:
        for name in [name for name, one in self._waiting.items() if now - one.asked > PATIENCE_SECONDS]:
            del self._waiting[name]
