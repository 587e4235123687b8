"""Devices that ask to join without a token, and wait until a person says yes or no."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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
    """Who waits for approval, and which keys were refused. Without `welcome`, nobody waits.

    Those who wait are in memory only, so that strangers fill no disk: after a restart they ask again. Refusals are a
    person's, come from the store, and last until a person approves.
    """

    def __init__(self, welcome: bool, refused: Iterable[DeviceRecord] = ()) -> None:
        self.welcome = welcome
        self._waiting: dict[str, Newcomer] = {}
        self._refused = {device.id: Newcomer(device, device.enrolled, refused=True) for device in refused}

    def ask(self, device: DeviceRecord) -> RequestError:
        """Note that a device asks to join, and return what it is told."""
        if not self.welcome:
            return Unauthorised(
                f"device {device.name!r} gave no enrolment token",
                "give one, or let the coordinator be started with --approval and a person approve the device",
            )
        if device.id in self._refused:
            return Forbidden(f"device {device.name!r} was refused by the coordinator's people", "ask them why")
        self._forget(device.enrolled)
        known = self._waiting.get(device.name)
        if known is None and len(self._waiting) >= MOST:
            return Unavailable(f"{MOST} devices wait for approval", "wait until some of them are approved or refused")
        if known is not None and known.device.id != device.id:
            return Conflict(f"another device waits as {device.name!r}", "choose another name")
        self._waiting[device.name] = Newcomer(device, device.enrolled)
        return Pending(
            f"device {device.name!r} with the key {device.id} waits for approval",
            f"let an administrator compare the key and type: shoal devices approve {device.name}",
        )

    def find(self, name: str) -> DeviceRecord:
        """Return the device that waits under a name, or else the one refused last. Raises NotFound."""
        refused = [one for one in self._refused.values() if one.device.name == name]
        found = self._waiting.get(name) or (refused[-1] if refused else None)
        if found is None:
            raise NotFound(f"no device {name!r} waits for approval", "list the devices for those that do")
        return found.device

    def let_in(self, device: DeviceRecord) -> None:
        """Forget a device that is enrolled now."""
        self._refused.pop(device.id, None)
        self._waiting.pop(device.name, None)

    def turn_away(self, device: DeviceRecord) -> None:
        """Let a device's key ask in vain, from `enrolled` on; its name is free for another one."""
        known = self._waiting.get(device.name)
        if known is not None and known.device.id == device.id:
            del self._waiting[device.name]
        self._refused[device.id] = Newcomer(device, device.enrolled, refused=True)

    def waiting(self) -> Iterator[Newcomer]:
        """Yield those who asked, the first one first, then those who were refused."""
        yield from self._waiting.values()
        yield from self._refused.values()

    def _forget(self, now: float) -> None:
        for name in [name for name, one in self._waiting.items() if now - one.asked > PATIENCE_SECONDS]:
            del self._waiting[name]
